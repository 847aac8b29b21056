"""`fgfast convert --like`: the options of an earlier run, as defaults."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

# Options that belong to the data set of the earlier run, and not to another one.
_LISTS = ("splits", "classes", "exclude")
_OF_THE_DATASET = ("root", "labels", "mask_dir", "decisions", "masks_from", *_LISTS)
# Options that name files or folders, and those among them that may be words as well.
_OR_WORDS = ("background", "vocabulary", "model_weights", "doubt_weights")
_FILES = ("root", "mask_dir", "decisions", "masks_from", "exclude", *_OR_WORDS)

_TEXTS = ("dataset", "labels", *_FILES)

_MOST_BYTES = 1 << 24
_LONGEST, _LARGEST = 1 << 16, 1e9

# Where the context keeps the image that was the earlier run's background, and the names of options that are files.
_IMAGE, _ARE_FILES = "fgfast.like.image", "fgfast.like.files"


def take_defaults(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """Make the options of an earlier run the defaults of this command; called before other options are read."""
    if path is not None:
        ctx.default_map, ctx.meta[_ARE_FILES], ctx.meta[_IMAGE] = read(path)
    return path


def read(path: Path) -> tuple[dict[str, Any], set[str], _Image | None]:
    """Return option -> value of an earlier run, which options are files, and the image that was its background.

    A run.json may be anybody's. Only settings and what names the data set are taken over, never what is to become of
    an output; `files_taken` names the files.

    Args:
        path: a run.json, or the output folder that holds it.

    Raises:
        UsageError: there is no run.json, or it is damaged.
    """
    from fgfast.errors import UsageError
    from fgfast.files import read_regular
    from fgfast.io.portable_paths import resolved

    file = next((f for f in (path / "fgfast/run.json", path / "run.json") if f.is_file()), path)
    folder = file.absolute().parent
    out = folder.parent if folder.name == "fgfast" else folder
    try:
        facts = json.loads(read_regular(file, _MOST_BYTES).decode("utf-8"))
        options, files = _options(facts)
        described, cpu = facts["fingerprint"]["background"], facts["fingerprint"]["device"] == "cpu"
        cpu = cpu and bool(facts["fingerprint"]["weights"])
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"--like {path}: {error}; give the run.json of a run, or its output folder") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"--like {file}: not the run.json of a run of this version: {error} is missing") from error
    given = {name: value for name, value in options.items() if value is not None}
    for name in files.intersection(given):
        value = given[name]
        given[name] = [str(resolved(v, out)) for v in value] if name in _LISTS else str(resolved(value, out))
    if cpu:
        given["devices"] = "cpu"
    return given, files, _Image(Path(given["background"]), str(described), file) if "background" in files else None


def _options(facts: Any) -> tuple[dict[str, Any], set[str]]:
    """Return option -> value, as stored, and the names of the options that are files.

    Raises:
        ValueError: a value is none that the option has in a run.json.
        KeyError, TypeError, AttributeError: something is missing.
    """
    from dataclasses import fields

    from fgfast.config import Selection, Settings
    from fgfast.transfer import is_address

    made, source = facts["fingerprint"], facts["source"]
    options = {f.name: made[f.name] for f in fields(Settings) if made.get(f.name) is not None}
    options |= {name: source[name] for name in ("dataset", "root", "labels", "mask_dir")}
    options["decisions"], options["masks_from"] = source.get("decisions"), source.get("masks_from")
    if is_address(options["masks_from"]):  # nothing is fetched because somebody's file says so
        raise ValueError("its masks are from an address: repeat that run with --masks-from, not with --like")
    options |= {f.name: source["selection"][f.name] for f in fields(Selection)}
    given = {name: source[name] for name in _OR_WORDS if source[name] is not None}
    for name, value in (options | given).items():
        if name in _LISTS:
            known = isinstance(value, list) and all(map(_is_text, value))
        else:
            number = isinstance(value, (int, float)) and abs(value) < _LARGEST and name not in _TEXTS
            known = value is None or _is_text(value) or number
        if not known:
            raise ValueError(f"its {name!r} is no value of this option")
    for name in ("dataset", *_OR_WORDS):
        word = str(options.get(name, ""))
        if name not in given and re.search(r"[/\\]|^~", word) and not (name == "vocabulary" and "," in word):
            raise ValueError(f"its {name!r} is {word!r}, and no word")
    return options | given, {"root", "mask_dir", "decisions", "masks_from", "exclude", *given}


def _is_text(value: Any) -> bool:
    """Whether a value is a text that the name of a file can be."""
    from fgfast.io.ledger_paths import can_be_named

    return isinstance(value, str) and len(value) < _LONGEST and can_be_named(value)


def files_taken(ctx: click.Context, options: dict[str, Any]) -> str:
    """Return a line with the files that the command reads because the earlier run's run.json, maybe anybody's, says so.

    Empty where there are none.
    """
    texts = []
    for name in _FILES:
        earlier = ctx.get_parameter_source(name) is click.core.ParameterSource.DEFAULT_MAP
        if earlier and name in ctx.meta[_ARE_FILES] and options[name]:
            value = options[name]
            texts.append(f"{name.replace('_', '-')} {value if isinstance(value, (str, Path)) else ', '.join(value)}")
    return f"from {options['like']}: {'; '.join(texts)}" if texts else ""


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
