"""The page of a study, made from its tables of predictions alone; images are looked up for its gallery."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np

from fgfast.errors import FgfastError, UsageError
from fgfast.io.encode import encode
from fgfast.records import UInt8
from fgfast.studies import kept_tables, waterbirds
from fgfast.studies.grid import Grid
from fgfast.studies.masking_study import by_size
from fgfast.studies.page import GALLERY, leading, made, write_report, write_study
from fgfast.studies.results import Study, gallery_keys
from fgfast.studies.stored import Stored, keep, stored
from fgfast.studies.tables import Papers, Table
from fgfast.studies.waterbirds import Groups
from fgfast.writing import Target

PAGE = "study.html"
# Longer side of a thumbnail in pixels, and its quality.
_SIDE, _QUALITY = 160, 80


def write(grid: Grid, not_run: Sequence[tuple[str, str]] = (), groups: Groups | None = None) -> Path | None:
    """Write the page of what is finished in a study's folder, and its tables; return its path, None where nothing is.

    Trainings of earlier calls are on it, too.

    Raises:
        DatasetError: a table of predictions is damaged.
        OutputFailedError: the disk is full, read-only or failing.
    """
    found = stored(grid.out)
    if not found.study.trained:
        return None
    keep(grid.out, _thumbnails(grid, found.study), groups)
    found = stored(grid.out)
    reasons = dict(not_run)
    left = tuple((what, reasons.get(what, why)) for what, why in found.study.not_run)
    again(replace(found, study=replace(found.study, not_run=left)))
    return grid.out / PAGE


def again(found: Stored) -> None:
    """Write the page of a study, and its tables, from its folder alone.

    Raises:
        OutputFailedError: the disk is full, read-only or failing.
    """
    study, more = with_more(found)
    write_study(Target(found.folder), study, papers=papers(study.dataset), thumbnails=found.thumbnails, more=more)


def together(out: Target, folders: Sequence[Path]) -> Path:
    """Write one page of several studies, of one data set or of several, from their folders alone; return its path.

    Raises:
        OutputRefusedError: a folder holds no study.
        DatasetError: a file of one is not understood.
        UsageError: test sets that are compared are of other images.
        OutputFailedError: the disk is full, read-only or failing.
    """
    shown, kept = [], []
    for folder in folders:
        if (one := kept_tables.read(folder)) is not None:
            kept.append(one)
            continue
        found = stored(folder)
        study, more = with_more(found)
        tables = [*made(study, papers(study.dataset)), *(table for table in more if table.rows)]
        shown.append((study, tables, found.thumbnails))
    write_report(out, shown, kept)
    return out.path / "report.html"


def with_more(found: Stored) -> tuple[Study, list[Table]]:
    """Return a study, and the tables that only studies of its kind have."""
    study = found.study
    more = [by_size(study)] if study.name == "masking" else []
    if found.groups is not None:
        try:
            more += waterbirds.tables(study, found.groups)
        except UsageError as error:
            study = replace(study, not_run=(*study.not_run, ("accuracy by groups", str(error))))
    return study, more


def papers(dataset: str) -> Papers:
    """Return the papers' figures on a data set, those that could be read."""
    found = json.loads(files("fgfast.studies").joinpath("papers.json").read_text(encoding="utf-8"))
    return {
        (one["backbone"], one["train"], one["test"]): float(one["percent"])
        for one in found["figures"]
        if one["dataset"] == dataset
    }


def _thumbnails(grid: Grid, study: Study) -> dict[str, tuple[str, str]]:
    """Return key -> X and X_FG, small, of the gallery's images; those that cannot be read any more are left out."""
    row = leading(study)
    if row is None:
        return {}
    place = {key: n for n, key in enumerate(grid.pairs.keys)}
    found = {}
    for key in gallery_keys(row, GALLERY):
        try:
            pairs = [grid.shown.show(arm, place[key]) for arm in ("x", "x_fg")]
        except FgfastError:
            continue
        first, second = (_uri(pair.pixels) for pair in pairs)
        found[key] = first, second
    return found


def _uri(pixels: UInt8) -> str:
    import cv2

    height, width = pixels.shape[:2]
    scale = _SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    return "data:image/webp;base64," + base64.b64encode(encode(np.asarray(small, np.uint8), ".webp", _QUALITY)).decode()
