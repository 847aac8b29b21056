"""Folders in Places' layout: with empty files, or with images of one colour."""

from __future__ import annotations

from pathlib import Path

from PIL import Image


def places(root: Path, each: int, above: str = "data_large") -> Path:
    """A folder of Places with empty files."""
    for category in ("b/bamboo_forest", "f/forest/broadleaf", "o/ocean", "l/lake/natural"):
        folder = root / above / category
        folder.mkdir(parents=True)
        for n in range(each):
            (folder / f"{n:08d}.jpg").touch()
    return root


def drawn_places(root: Path, each: int = 6) -> Path:
    """Places of one colour: green land, blue water; JPEGs of 70 x 40."""
    for category, colour in (
        *(("b/bamboo_forest", (20, 200, 20)), ("f/forest/broadleaf", (20, 120, 20))),
        *(("o/ocean", (20, 20, 250)), ("l/lake/natural", (20, 20, 150))),
    ):
        for n in range(each):
            path = root / "data_large" / category / f"{n:08d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (70, 40), colour).save(path)
    return root
