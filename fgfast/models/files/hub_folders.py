"""The folder of a network of transformers: one that a person names, or a repository in the hub's cache."""

from __future__ import annotations

import re
from pathlib import Path

from fgfast.errors import UsageError
from fgfast.models.files import hub, hub_files

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_NEEDED = ("config.json", "model.safetensors")


def folder_of(model: str, what: str, example: str) -> Path:
    """Return the folder of a network's files.

    Args:
        model: a folder, or owner/name of a repository in the hub's cache.
        what: the network is, for people: "a depth model".
        example: a repository that would do.

    Raises:
        UsageError: it is neither, or the folder lacks a file.
        WeightsError: its files configure something else than a network.
    """
    folder: Path | None = Path(model).expanduser()
    if not folder.is_dir():  # type: ignore[union-attr]
        folder = hub.newest(model) if _REPOSITORY.fullmatch(model) else None
    if folder is None:
        raise UsageError(
            f"{model!r} is not {what}: give a folder with {' and '.join(_NEEDED)}, or a repository of the Hugging Face "
            f"hub, such as {example}, after fetching it: hf download {example}"
        )
    if absent := [name for name in _NEEDED if not (folder / name).is_file()]:
        raise UsageError(f"{folder} is no network of transformers: it lacks {', '.join(absent)}")
    hub_files.check(folder)
    return folder
