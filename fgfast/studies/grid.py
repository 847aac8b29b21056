"""A study as a grid of cells, each trained and tested on its own; what is finished is on disk, and stays.

OUT/
  study.json                            what is trained and tested on, and how; a grid with another one is another study
  cells/NAME/cell.json                  written last: a cell with it is finished
  cells/NAME/predictions-TEST.parquet   a row for each image of a test set
  cells/NAME/log.csv                    a row for each epoch
  cells/NAME/weights.safetensors        of the last epoch, or of the best in validation
  cells/NAME/checkpoint.safetensors     while it is trained
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from fgfast.errors import OutputRefusedError, UnknownNameError, UsageError
from fgfast.files import read_regular
from fgfast.io.portable_paths import PortablePaths
from fgfast.studies.arms import Shown
from fgfast.studies.cell import Arm, Cell, plain_name
from fgfast.studies.pairs import Pairs
from fgfast.studies.predictions import read_predictions
from fgfast.studies.recipes import Recipe
from fgfast.studies.results import Study, Trained
from fgfast.studies.splits import Indexes
from fgfast.studies.weights import weights_of
from fgfast.writing import Target, is_temp, make_folder, refuse_links, remove_tree, write_file

Select = Literal["last", "best-val"]
STUDY, CELL, CELLS, WEIGHTS, LOCK = "study.json", "cell.json", "cells", "weights.safetensors", "lock"
_MOST_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """A test set.

    Attributes:
        name: in tables and files.
        arm: what it shows.
        masked: whether a strategy that masks pixels masks those of this set, too.
        elsewhere: the name of the other pairs that it shows; empty for those of the study.
    """

    name: str
    arm: Arm
    masked: bool = True
    elsewhere: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Elsewhere:
    """Pairs of another run that are tested, with the classes of the study.

    Attributes:
        shown: the samples.
        test: indexes of those that test.
    """

    shown: Shown
    test: Indexes


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """A study to be carried out; it is pickled for workers.

    Attributes:
        name: "crossval", "masking", ...
        dataset: for people.
        cells: what is trained.
        recipes: by name.
        tests: what each is tested on.
        shown: the samples.
        train, test: indexes of the samples that train, and that test.
        select: "last": the last epoch counts; "best-val": the best in validation, a seeded tenth of train.
        out: the folder.
        keep_weights: whether weights are kept.
        parts: into how many parts a batch is divided.
        options: of timm, for all backbones.
        test_share: the share of each class that tests; None for the data set's own split.
        elsewhere: name -> pairs of another run.
        run: the run that the samples are of; it is named in the study, and may move with it.
    """

    name: str
    dataset: str
    cells: tuple[Cell, ...]
    recipes: Mapping[str, Recipe]
    tests: tuple[EvaluationSet, ...]
    shown: Shown
    train: Indexes
    test: Indexes
    out: Path
    select: Select = "last"
    keep_weights: bool = True
    parts: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    test_share: float | None = None
    elsewhere: Mapping[str, Elsewhere] = field(default_factory=dict)
    run: Path | None = None

    def __post_init__(self) -> None:
        if self.select not in get_args(Select):
            raise UnknownNameError("select", self.select, get_args(Select))
        names = [cell.name for cell in self.cells]
        if not names or len(set(names)) < len(names):
            raise UsageError("a study needs a cell, and each cell once")
        backbones = {cell.backbone for cell in self.cells}
        if len({plain_name(backbone) for backbone in backbones}) < len(backbones):
            raise UsageError(
                "two backbones of a study would have one name in its tables: name a file of weights like its model "
                f"and itself, as in resnet50.mine.safetensors. They are {', '.join(sorted(backbones))}"
            )
        if len({test.name for test in self.tests}) < len(self.tests) or not self.tests:
            raise UsageError("a study needs a test set, and each of them once")

    @property
    def pairs(self) -> Pairs:
        """The samples."""
        return self.shown.pairs

    def folder(self, cell: Cell) -> Target:
        """Return the folder of a cell."""
        return Target(self.out, f"{CELLS}/{cell.name}")

    def usable(self, arm: Arm, indexes: Indexes, shown: Shown | None = None) -> Indexes:
        """Return those samples, of the study or of others, that have an arm."""
        shown = shown or self.shown
        return indexes[[not shown.without(arm, int(n)) for n in indexes]]

    def tested(self, test: EvaluationSet) -> tuple[Shown, Indexes]:
        """Return what shows a test set, and the indexes of its samples."""
        if not test.elsewhere:
            return self.shown, self.usable(test.arm, self.test)
        other = self.elsewhere[test.elsewhere]
        return other.shown, self.usable(test.arm, other.test, other.shown)

    def data(self) -> dict[str, Any]:
        """Return what all cells are trained and tested on, as JSON has it."""
        found = {
            "study": self.name,
            "dataset": self.dataset,
            "classes": list(self.pairs.classes),
            "pairs": self.pairs.digest,
            "train": digest_of(self.pairs.keys[n] for n in self.train),
            "test": digest_of(self.pairs.keys[n] for n in self.test),
            "tests": [asdict(test) for test in self.tests],
            "backgrounds": self.shown.seed,
            "fill": asdict(self.shown.fill),
            "select": self.select,
            "options": dict(self.options),
            "test share": self.test_share,
            "parts": self.parts,
            "elsewhere": {
                name: [other.shown.pairs.digest, digest_of(other.shown.pairs.keys[n] for n in other.test)]
                for name, other in self.elsewhere.items()
            },
        }
        return dict(json.loads(json.dumps(found)))

    def digest(self, cell: Cell) -> str:
        """Return the digest of all that a cell's result depends on."""
        recipe = self.recipes[cell.recipe].describe()
        return digest_of([self.data(), asdict(cell), recipe])

    def check(self, overwrite: bool = False) -> None:
        """Check that the folder is empty, or holds this study; nothing is written.

        Raises:
            OutputRefusedError: it holds something else, or the same study of other data.
        """
        check_out(self.out, STUDY, self.data(), overwrite)

    def open(self, overwrite: bool = False) -> None:
        """Make the folder ready, once it is locked; with `overwrite` all cells in it are deleted.

        Raises:
            OutputRefusedError: see `check`.
            OutputFailedError: the disk is full, read-only or failing.
        """
        self.check(overwrite)
        if overwrite:
            remove_tree(Target(self.out, CELLS))
        make_folder(Target(self.out, CELLS))
        before = (read_json(self.out / STUDY) or {}).get("planned") or []
        planned = list(dict.fromkeys([*([] if overwrite else before), *(cell.name for cell in self.cells)]))
        run = {} if self.run is None else {"run": PortablePaths(self.out, self.run).path(self.run)}
        write_json(Target(self.out, STUDY), {**self.data(), "planned": planned, **run})

    def finished(self, cell: Cell) -> bool:
        """Whether a cell is finished, as it would be trained now."""
        found = read_json(self.folder(cell).path / CELL)
        if found is None or found.get("digest") != self.digest(cell):
            return False
        tables = [self.folder(cell).path / file_of(str(name)) for name in found.get("tests") or ()]
        if not all(table.is_file() for table in tables):
            return False
        now = weights_of(cell.backbone) if cell.pretrained else ""
        return not now or found.get("initial weights") == now

    def study(self, not_run: Sequence[tuple[str, str]] = ()) -> Study:
        """Return what is finished.

        Raises:
            DatasetError: a table of predictions is damaged.
        """
        trained = []
        for cell in self.cells:
            if self.finished(cell):
                folder = self.folder(cell).path
                there = {test.name: folder / file_of(test.name) for test in self.tests}
                trained.append(Trained(cell, {name: read_predictions(p) for name, p in there.items() if p.is_file()}))
        return Study(self.name, self.dataset, self.pairs.classes, tuple(trained), tuple(not_run))


def check_out(out: Path, name: str, data: Mapping[str, Any], overwrite: bool) -> None:
    """Check that a folder is empty, or holds what is to be in it; nothing is written.

    Args:
        out: the folder.
        name: of the file that says what it holds.
        data: what that must say.
        overwrite: whether it may hold the same of other data.

    Raises:
        OutputRefusedError: it holds something else, or the same of other data.
    """
    refuse_links([Target(out)])
    found = read_json(out / name)
    if found is None:
        there = [path.name for path in out.iterdir()] if out.is_dir() else []
        if [one for one in there if one not in (LOCK, CELLS) and not is_temp(one)]:
            raise OutputRefusedError(f"{out} holds something other than such a study: choose another folder")
    elif not overwrite and (differs := sorted(k for k, v in data.items() if found.get(k) != v)):
        raise OutputRefusedError(
            f"{out} holds another study: {', '.join(differs)} differ. Choose another folder, or compute everything "
            "again with --overwrite"
        )


def file_of(test: str) -> str:
    """Return the name of a test set's table of predictions."""
    return f"predictions-{test}.parquet"


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a JSON object; None where there is none, or it is damaged."""
    try:
        found = json.loads(read_regular(path, _MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def write_json(target: Target, value: Mapping[str, Any]) -> None:
    """Write plain values as JSON, with sorted keys."""
    write_file(target, _json(value))


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True, default=str).encode("utf-8", "surrogateescape") + b"\n"


def digest_of(value: Iterable[Any]) -> str:
    """Return the SHA-256 of plain values in their order, of keys for example."""
    text = json.dumps(list(value), sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
