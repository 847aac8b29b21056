"""The page of where classifiers look, made from the folder of what was found alone, without run and models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgfast.errors import OutputRefusedError
from fgfast.io.portable_paths import PortablePaths
from fgfast.studies import gradcam_tables
from fgfast.studies.gradcam_figures import Look, compared_rows
from fgfast.studies.gradcam_look import ABOUT, ARMS, SHEET
from fgfast.studies.gradcam_sheet import Line, read_sheet, section, tile, uri
from fgfast.studies.gradcam_values import METHODS, VALUES, read_values
from fgfast.studies.grid import CELL, CELLS
from fgfast.studies.page import THUMBNAIL_BYTES, missing, not_run, write_tables
from fgfast.studies.results import Row, Study, Trained
from fgfast.studies.stored import cell_of, understood
from fgfast.studies.verdicts import model_name
from fgfast.writing import Target

PAGE = "study.html"
FEW = 100
"""Test images; with fewer of them the page says that they are few."""
_NOTE = (
    "The same test images, as the model sees them: raw Grad-CAM of each image's own class, with the mask's outline. "
    "Colours run from 0 to each map's own highest value, so that they cannot be compared between maps; the shares "
    "below can. The images are drawn by a seed, in turn from each class, not chosen by hand."
)


@dataclass(frozen=True, slots=True)
class Found:
    """What a folder holds.

    Attributes:
        folder: the folder.
        look: what was found.
        sheet: keys of the images of the sheets.
        images: number of the test images.
    """

    folder: Path
    look: Look
    sheet: tuple[str, ...]
    images: int


def read(folder: Path) -> Found:
    """Read what was found from its folder, which may be anybody's.

    Raises:
        OutputRefusedError: it holds none.
        DatasetError: a file is not understood.
    """
    if not (folder / ABOUT).is_file():
        raise OutputRefusedError(f"{folder} holds no look at a study: there is no {ABOUT} in it")
    about = understood(folder / ABOUT, _about)
    trained, values, constructed = [], {}, {}
    left = dict(about["not run"])
    for name in about["planned"]:
        place = folder / CELLS / name
        if not (place / CELL).is_file():
            left.setdefault(name, "it was not looked at yet")
            continue
        cell, marks = understood(place / CELL, lambda found: (cell_of(found), _marks(found)))
        trained.append(Trained(cell, {}))
        values[cell.name] = read_values(place / VALUES)
        constructed[cell.name] = marks
    study = Study(about["study"], about["dataset"], about["classes"], tuple(trained), tuple(left.items()))
    return Found(folder, Look(study, values, constructed), about["sheet"], about["images"])


def _about(found: dict[str, Any]) -> dict[str, Any]:
    names = [str(name) for name in found["planned"]]
    if any("/" in name or "\0" in name or name in (".", "..") for name in names):
        raise ValueError("the name of a cell is no name of a folder")
    return {
        "study": str(found["study"]),
        "dataset": str(found["dataset"]),
        "classes": tuple(str(name) for name in found["classes"]),
        "planned": names,
        "not run": [(str(what), str(why)) for what, why in found["not run"]],
        "sheet": tuple(str(key) for key in found["sheet"]),
        "images": int(found["images"]),
    }


def _marks(found: dict[str, Any]) -> Mapping[str, str]:
    return {method: str(found["by construction"][method]) for method in METHODS}


def write(folder: Path, failed: Sequence[tuple[str, str]] = ()) -> Found | None:
    """Write study.html and its tables; return what the folder holds, None where nothing is finished.

    Args:
        folder: of what was found.
        failed: (cell, why) of those that failed just now.

    Raises:
        DatasetError: a file is not understood.
        UsageError: cells were shown other images.
        OutputFailedError: the disk is full, read-only or failing.
    """
    found = read(folder)
    if not found.look.study.trained:
        return None
    look, reasons = found.look, dict(failed)
    paths = PortablePaths(folder, folder)  # a reason may name files; the page goes to others
    items = [(what, paths.text(reasons.get(what, why))) for what, why in not_run(look.study)]
    sheets, left = _sheets(found)
    items += [
        (f"{model_name(row)}, shown {arm}", "no test image has it")
        for row in look.study.rows
        for arm in ARMS
        if not look.images(row, arm, "area")[1]
    ]
    if left:
        items.append((f"{left} further sheets of maps", "the page would be too large"))
    title = f"Where the models look: {look.study.name} of {look.study.dataset}"
    shown = [(table, "") for table in gradcam_tables.made(look)]
    write_tables(Target(folder), title, said(found), shown, "\n".join([*sheets, missing(items)]))
    return found


def said(found: Found) -> list[tuple[str, str]]:
    """Return the verdict, (sentence, how sure it is), and how few images it is about, if so."""
    sentences = gradcam_tables.verdict(found.look)
    if found.images < FEW:
        count = f"Only {found.images} test images of {len(found.look.study.classes)} classes"
        sentences.append((f"{count}: these figures prove nothing about others.", "Intervals over images are of these."))
    return sentences


def _sheets(found: Found) -> tuple[list[str], int]:
    """Return the sheets as HTML, those of the first trainings first, and the number of those left out."""
    study = found.look.study
    pairs = compared_rows(study)
    alone = [(row, row) for row in study.rows] if not pairs else []
    jobs = [
        (seed, row, other)
        for row, other in (*pairs, *alone)
        for seed in sorted({one.cell.seed for one in row.trained} & {one.cell.seed for one in other.trained})
    ]
    jobs.sort(key=lambda job: job[0])
    sections, left, room = [], 0, THUMBNAIL_BYTES
    for seed, row, other in jobs:
        text = _sheet(found, seed, row, other) if room > 0 else ""
        room -= len(text)
        if text and room >= 0:
            sections.append(text)
        else:
            left += 1
    return sections, left


def _sheet(found: Found, seed: int, row: Row, other: Row) -> str:
    """Return the sheet of two trainings of one seed: the images, the maps of the other row, those of the row."""
    both = (other,) if other is row else (other, row)
    lines = []
    for n, one in enumerate(both):
        cell = next(one.cell for one in one.trained if one.cell.seed == seed)
        sheet = read_sheet(found.folder / CELLS / cell.name / SHEET, len(found.sheet))
        keys, columns = found.look.values[cell.name].of("x")
        at = [keys.index(key) for key in found.sheet]
        classes = found.look.study.classes
        names = [classes[columns["label"][place]] for place in at]
        if n == 0:
            images = [uri(tile(*some)) for some in zip(sheet.pixels, sheet.masks, strict=True)]
            lines.append(Line("Images, and their classes", images, names))
        tiles = [uri(tile(*some)) for some in zip(sheet.pixels, sheet.masks, sheet.maps, strict=True)]
        below = []
        for place in at:
            said, share = int(columns["prediction"][place]), float(columns["cam_inside"][place])
            inside = "no evidence" if share != share else f"{100 * share:.0f} % inside"
            right = said == columns["label"][place]
            below.append(f"{inside}, {'predicted right' if right else f'predicted {classes[said]}'}")
        mark = found.look.by_construction(one, "cam")
        title = f"{one.name}, trained on {cell.train}"
        lines.append(Line(title + (f"; inside by construction: {mark}" if mark != "no" else ""), tiles, below))
    title = f"{both[-1].name}, seed {seed}: trained on {' and on '.join(one.cell.train for one in both)}"
    return section(title, _NOTE, lines)
