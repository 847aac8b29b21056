"""`fgfast convert --like`: the options of an earlier run, as defaults."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

# Options that belong to the data set of the earlier run, and not to another one.
_LISTS = ("splits", "classes", "exclude")
_OF_THE_DATASET = ("root", "labels", "mask_dir", *_LISTS)


# Where the context keeps the image that was the earlier run's background.
_IMAGE = "fgfast.like.image"


def take_defaults(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """Make the options of an earlier run the defaults of this command; called before other options are read."""
    if path is not None:
        ctx.default_map, ctx.meta[_IMAGE] = read(path)
    return path


def read(path: Path) -> tuple[dict[str, Any], _Image | None]:
    """Return option -> value of an earlier run, and the image that was its background.

    Args:
        path: a run.json, or the output folder that holds it.

    Raises:
        UsageError: there is no run.json, or it is damaged.
    """
    from dataclasses import fields

    from fgfast.config import Settings
    from fgfast.errors import UsageError

    file = next((f for f in (path / "fgfast/run.json", path / "run.json") if f.is_file()), path)
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        made = facts["fingerprint"]
        options = {f.name: made[f.name] for f in fields(Settings) if made.get(f.name) is not None}
        source = facts["source"]
        options |= {name: source[name] for name in ("dataset", "root", "labels", "mask_dir")} | source["selection"]
        image, background = source["background"], made["background"]
        cpu = made["device"] == "cpu" and bool(made["weights"])
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"--like {path}: {error}; give the run.json of a run, or its output folder") from error
    except (KeyError, TypeError) as error:
        raise UsageError(f"--like {file}: not the run.json of a run of this version: {error} is missing") from error
    if image is not None:
        options["background"] = image
    if cpu:
        options["devices"] = "cpu"
    given = {name: value for name, value in options.items() if value is not None}
    return given, None if image is None else _Image(Path(image), background, file)


@dataclass(frozen=True)
class _Image:
    """The image that was an earlier run's background, as that run described it."""

    path: Path
    described: str
    file: Path

    def check(self) -> None:
        """Raise UsageError unless the file still is the image that was used."""
        from fgfast.background import Background
        from fgfast.errors import UsageError

        if not self.path.is_file() or Background.parse(str(self.path)).describe() != self.described:
            raise UsageError(
                f"--like {self.file}: the background {self.path} is gone or has changed; give another --background"
            )


def drop_overridden(ctx: click.Context, options: dict[str, Any]) -> None:
    """Drop what the earlier run gives and the options of the command line make meaningless.

    A setting that has no effect beside them returns to its default; root, labels and classes go with their data set.

    Raises:
        UsageError: the image of the background that the earlier run gives has changed.
    """
    from dataclasses import fields

    from fgfast.config import Settings, idle

    earlier = {name for name in options if ctx.get_parameter_source(name) is click.core.ParameterSource.DEFAULT_MAP}
    if options["name"] or "dataset" not in earlier:
        for name in earlier.intersection(_OF_THE_DATASET):
            options[name] = () if name in _LISTS else None
    if "background" in earlier and (image := ctx.meta[_IMAGE]):
        image.check()
    values = {f.name: options.get(f.name, f.default) for f in fields(Settings)}
    values["devices"] = tuple(values["devices"].split(","))
    for f in fields(Settings):
        if f.name in earlier and f.name in idle(SimpleNamespace(**values)):
            options[f.name] = f.default
