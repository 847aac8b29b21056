"""A tiny data set, converted, to decide about; and what its output holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from layouts import BUILDERS, HEIGHT, WIDTH, files_below

from fgfast import convert
from fgfast.config import Settings
from fgfast.io.ledger import Ledger
from fgfast.pipeline.mending import Change
from fgfast.records import Bool, Outcome

KEY = "images/001.Auk/Auk_0001_10.jpg"
OTHER = "images/001.Auk/Auk_0002_20.jpg"
THIRD = "images/002.Jay/Jay_0001_30.jpg"
# What a run says about itself holds times.
ABOUT_THE_RUN = {
    f"fgfast/{name}" for name in ("ledger.sqlite", "decisions.sqlite", "run.json", "report.html", "lock", "lock.owner")
}


def disc(x: float = 20, y: float = 16, r: float = 7) -> Bool:
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    bits = (columns - x) ** 2 + (rows - y) ** 2 < r * r
    bits[3, 40] = x > 30  # a part of one pixel
    bits[int(y), int(x)] = False  # and a hole
    return bits


def made(tmp_path: Path, layout: str = "cub", name: str = "out", **more: Any) -> Path:
    """Convert a tiny data set; return the output."""
    source = tmp_path / "data" / layout
    root = source if source.is_dir() else BUILDERS[layout](source)
    given = {"detector": "annotations", "segmenter": "box", "devices": "cpu", **more}
    convert(layout, tmp_path / name, root=root, settings=Settings(**given), in_process=True)
    return tmp_path / name


def result(out: Path) -> dict[str, bytes]:
    return {name: data for name, data in files_below(out).items() if name not in ABOUT_THE_RUN}


def rows(out: Path) -> dict[str, tuple[Any, ...]]:
    with Ledger(out / "fgfast/ledger.sqlite", write=False) as ledger:
        return {
            o.key: (o.status, o.reasons, o.detail, o.twin, o.rle, o.area, o.offset, o.twin_size, o.quality)
            + (() if o.box is None else (o.box_reason, *o.box.tolist()))
            for o in ledger.outcomes()
        }


def outcomes(answers: list[Any]) -> list[Outcome]:
    assert all(isinstance(answer, Outcome) for answer in answers), answers
    return answers


def change(key: str = KEY, verdict: str = "accept", seen: int = 0, **more: Any) -> Change:
    return Change(key, verdict, more.pop("how", verdict), seen, **more)
