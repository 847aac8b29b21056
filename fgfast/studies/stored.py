"""A study as it lies in its folder: its page can be made again, alone or beside others, without run and images."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgfast.errors import DatasetError, FgfastError, OutputRefusedError
from fgfast.files import read_regular
from fgfast.studies.cell import Cell, Strategy
from fgfast.studies.grid import CELL, CELLS, STUDY, file_of
from fgfast.studies.page import Thumbnails
from fgfast.studies.predictions import read_predictions
from fgfast.studies.results import Study, Trained
from fgfast.studies.waterbirds import Groups
from fgfast.writing import Target, remove, write_file

GALLERY, GROUPS = "gallery.json", "groups.json"
# A gallery has two dozen thumbnails; groups name each image of a test set.
_MOST_BYTES = 1 << 27


@dataclass(frozen=True, slots=True)
class Stored:
    """What a folder holds: a study, the thumbnails of its gallery, and the groups of its test sets, if any."""

    folder: Path
    study: Study
    thumbnails: Thumbnails
    groups: Groups | None


def keep(folder: Path, thumbnails: Thumbnails, groups: Groups | None) -> None:
    """Keep in a study's folder what its page needs besides its tables of predictions.

    Raises:
        OutputFailedError: the disk is full, read-only or failing.
    """
    _write(folder, GALLERY, {key: list(pair) for key, pair in thumbnails.items()})
    if groups is None:
        remove(Target(folder, GROUPS))  # of an earlier study in this folder
    else:
        kinds = None if groups.kinds is None else {str(n): kind for n, kind in groups.kinds.items()}
        found = {"tests": list(groups.tests), "group_of": dict(groups.group_of), "kinds": kinds}
        _write(folder, GROUPS, {**found, "train_counts": dict(groups.train_counts)})


def _write(folder: Path, name: str, value: Mapping[str, Any]) -> None:
    text = json.dumps(value, sort_keys=True)
    write_file(Target(folder, name), text.encode("utf-8", "surrogateescape") + b"\n")


def stored(folder: Path) -> Stored:
    """Read a study from its folder, which may be anybody's.

    Raises:
        OutputRefusedError: it holds no study.
        DatasetError: a file of it is not understood.
    """
    if not (folder / STUDY).is_file():
        raise OutputRefusedError(f"{folder} holds no study: there is no {STUDY} in it")
    about = understood(folder / STUDY, _about)
    trained, not_run = [], []
    order = {name: n for n, name in enumerate(about["planned"])}
    for place in sorted((folder / CELLS).glob("*"), key=lambda one: (order.get(one.name, len(order)), one.name)):
        if not (place / CELL).is_file():
            not_run.append((place.name, "its training is not finished"))
            continue
        cell = understood(place / CELL, cell_of)
        tables = {test: place / file_of(test) for test in about["tests"]}
        trained.append(Trained(cell, {test: read_predictions(path) for test, path in tables.items() if path.is_file()}))
    there = {place.name for place in (folder / CELLS).glob("*")}
    not_run += [(name, "its training has not begun") for name in about["planned"] if name not in there]
    study = Study(about["study"], about["dataset"], about["classes"], tuple(trained), tuple(not_run))
    _check_classes(folder, study)
    thumbnails = understood(folder / GALLERY, _gallery) if (folder / GALLERY).is_file() else {}
    groups = understood(folder / GROUPS, _groups) if (folder / GROUPS).is_file() else None
    return Stored(folder, study, thumbnails, groups)


def understood(path: Path, understand: Callable[[dict[str, Any]], Any]) -> Any:
    """Return what a file of JSON, which may be anybody's, means.

    Args:
        path: of the file.
        understand: takes the object in it; it may raise whatever a wrong type or a missing name raises.

    Raises:
        DatasetError: it is not understood.
    """
    try:
        found = json.loads(read_regular(path, _MOST_BYTES))
        return understand(found)
    except FgfastError as error:
        raise DatasetError(path, str(error)) from error
    except (OSError, ValueError, OverflowError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DatasetError(path, f"is not understood: {type(error).__name__}: {error}") from error


def _about(found: dict[str, Any]) -> dict[str, Any]:
    tests = [str(test["name"]) for test in found["tests"]]
    if any("/" in test or "\0" in test for test in tests):
        raise ValueError("the name of a test set is no name of a file")
    return {
        "study": str(found["study"]),
        "dataset": str(found["dataset"]),
        "classes": tuple(str(name) for name in found["classes"]),
        "tests": tests,
        "planned": [str(name) for name in found.get("planned", ())],
    }


def cell_of(found: dict[str, Any]) -> Cell:
    """Return the cell that cell.json is of; for `understood`."""
    values = dict(found["cell"])
    cell = Cell(**{**values, "strategy": Strategy(**values["strategy"])})
    texts = (cell.study, cell.backbone, cell.recipe, cell.strategy.fill)
    if not (
        isinstance(cell.seed, int) and isinstance(cell.pretrained, bool) and all(isinstance(v, str) for v in texts)
    ):
        raise TypeError("a cell has a name, a backbone, a recipe, a fill, a seed and a start")
    return cell


def _gallery(found: dict[str, Any]) -> Thumbnails:
    return {str(key): (str(first), str(second)) for key, (first, second) in found.items()}


def _groups(found: dict[str, Any]) -> Groups:
    kinds = found["kinds"]
    return Groups(
        tuple(str(test) for test in found["tests"]),
        {str(key): str(group) for key, group in found["group_of"].items()},
        {str(group): int(count) for group, count in found["train_counts"].items()},
        None if kinds is None else {int(n): int(kind) for n, kind in kinds.items()},
    )


def _check_classes(folder: Path, study: Study) -> None:
    """Check that predictions name classes that there are.

    Raises:
        DatasetError: they do not.
    """
    for one in study.trained:
        for test, said in one.tests.items():
            if max(int(said.labels.max()), int(said.predicted.max())) >= len(study.classes):
                raise DatasetError(folder, f"{one.cell.name}, {test}: there are {len(study.classes)} classes only")
