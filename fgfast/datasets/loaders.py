"""Lines of Python that load a twin with its data set's usual loader; they can be pasted as they are."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

# torchvision datasets/folder.py, IMG_EXTENSIONS: other files are no images to ImageFolder.
IMAGE_FOLDER_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def load_line(module: str, loader: str, *arguments: object, before: str = "", **options: Any) -> str:
    """Return the line that calls a loader.

    Args:
        module: the module to import it from.
        loader: its name.
        arguments: its arguments; paths are made absolute.
        before: a statement between import and call.
        options: its keyword arguments.
    """
    values = [_literal(value) for value in arguments]
    values += [f"{name}={_literal(value)}" for name, value in options.items()]
    return f"from {module} import {loader}; {before and f'{before}; '}twin = {loader}({', '.join(values)})"


def _literal(value: object) -> str:
    return repr(str(value.absolute()) if isinstance(value, Path) else value)


def torchvision_line(loader: str, out: Path, **options: Any) -> str:
    """Return the line for one of torchvision's classes, which find the twin by its name in `out`."""
    return load_line("torchvision.datasets", loader, out, **options)


def image_folder_line(folder: Path, classes: Collection[str], filled: Collection[str]) -> str:
    """Return the line for torchvision's ImageFolder.

    Args:
        folder: the folder that holds the class folders.
        classes: the names of the class folders.
        filled: the names of those that hold images. ImageFolder refuses others unless it is told to accept them.
    """
    options = {} if set(classes) <= set(filled) else {"allow_empty": True}
    return torchvision_line("ImageFolder", folder, **options)


def own_line(twin: Path, why: str = "") -> str:
    """Return the line for fgfast's own reader, where no public loader reads the layout, with the reason."""
    return load_line("fgfast.datasets", "open_dataset", twin) + (f"  # {why}" if why else "")
