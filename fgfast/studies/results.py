"""What a study has: its trainings, each with the predictions of its test sets, and the rows of its tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from fgfast.errors import UsageError
from fgfast.studies.cell import Cell, plain_name
from fgfast.studies.figures import Difference, Estimate, accuracy, difference, over_seeds, paired
from fgfast.studies.predictions import Predictions


@dataclass(frozen=True, slots=True)
class Trained:
    """One training and what it said of each test set: arm -> predictions."""

    cell: Cell
    tests: Mapping[str, Predictions]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table: trainings that differ in their seed only."""

    trained: tuple[Trained, ...]

    @property
    def cell(self) -> Cell:
        """The first of them; all but its seed is the row's."""
        return self.trained[0].cell

    @property
    def name(self) -> str:
        """Backbone, strategy where there is one, start."""
        cell = self.cell
        strategy = cell.strategy_name
        parts = (plain_name(cell.backbone), "" if strategy == "none" else strategy, f"recipe {cell.recipe}")
        return ", ".join((*filter(None, parts), "" if cell.pretrained else "random start")).rstrip(", ")

    @property
    def kind(self) -> tuple[object, ...]:
        """What tells rows apart."""
        cell = self.cell
        return cell.study, cell.backbone, cell.train, cell.strategy, cell.recipe, cell.pretrained

    def of(self, arm: str) -> dict[int, Predictions]:
        """Return seed -> predictions of a test set; trainings that were not tested on it are left out."""
        return {one.cell.seed: one.tests[arm] for one in self.trained if arm in one.tests}

    def accuracy(self, arm: str) -> Estimate | None:
        """Return the mean accuracy over the trainings, None without any."""
        values = [accuracy(some) for some in self.of(arm).values()]
        if not values:
            return None
        found = over_seeds(values)
        if found.low is None or found.high is None:
            return found
        return replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))  # Student's may reach beyond

    def minus(self, first: str, second: str, other: Row | None = None) -> Difference | None:
        """Return the accuracy on the first test set minus that on the second (of another row, where one is given).

        Trainings are paired by seed; None where no seed has both.
        """
        a, b = self.of(first), (other or self).of(second)
        seeds = sorted(a.keys() & b.keys())
        return difference([(a[seed], b[seed]) for seed in seeds]) if seeds else None

    @property
    def gap(self) -> Difference | None:
        """The BG-gap (ImageNet-9): mixed-same minus mixed-rand."""
        return self.minus("mixed-same", "mixed-rand")


@dataclass(frozen=True, slots=True)
class Study:
    """All trainings of a study of a data set.

    Attributes:
        name: "crossval", "masking", ...
        dataset: for people.
        classes: names, by index.
        trained: in any order.
        not_run: (what, why) for people.
        notice: shown above all, for example that the predictions are random numbers.
    """

    name: str
    dataset: str
    classes: tuple[str, ...]
    trained: tuple[Trained, ...]
    not_run: tuple[tuple[str, str], ...] = ()
    notice: str = ""

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows, in the order of their first trainings.

        Raises:
            UsageError: two trainings are of one cell.
        """
        found: dict[tuple[object, ...], list[Trained]] = {}
        for one in self.trained:
            found.setdefault(Row((one,)).kind, []).append(one)
        for some in found.values():
            seeds = [one.cell.seed for one in some]
            if len(set(seeds)) < len(seeds):
                raise UsageError(f"two trainings are of one cell: {some[0].cell.name}")
        return tuple(Row(tuple(sorted(some, key=lambda one: one.cell.seed))) for some in found.values())

    @property
    def arms(self) -> tuple[str, ...]:
        """The test sets, as ARMS orders them."""
        from fgfast.studies.cell import ARMS

        there = {arm for one in self.trained for arm in one.tests}
        return (*(arm for arm in ARMS if arm in there), *sorted(there - set(ARMS)))

    def row(self, like: Row, train: str) -> Row | None:
        """Return the row that differs from another one in what it was trained on only."""
        kind = (*like.kind[:2], train, *like.kind[3:])
        return next((row for row in self.rows if row.kind == kind), None)


def both(first: Study, second: Study) -> Iterable[tuple[Row, Row]]:
    """Yield the rows that two studies have in common."""
    others: Mapping[tuple[object, ...], Row] = {row.kind: row for row in second.rows}
    for row in first.rows:
        if row.kind in others:
            yield row, others[row.kind]


def gallery_keys(row: Row, limit: int = 24) -> Sequence[str]:
    """Return images right on X and wrong on X_FG in most trainings of a row, surest first, in turn from each class.

    Their thumbnails are the caller's to make.
    """
    x, fg = row.of("x"), row.of("x_fg")
    seeds = sorted(x.keys() & fg.keys())
    if not seeds:
        return ()
    keys = x[seeds[0]].keys
    votes, sure = dict.fromkeys(keys, 0), dict.fromkeys(keys, 0.0)
    for seed in seeds:
        a, b = (paired(x[seeds[0]], some)[1] for some in (x[seed], fg[seed]))
        for n in (a.correct & ~b.correct).nonzero()[0]:
            votes[keys[n]] += 1
            sure[keys[n]] += float(b.confidence[n])
    label = dict(zip(keys, x[seeds[0]].labels.tolist(), strict=True))
    taken: dict[int, int] = {}
    chosen = []
    for key in sorted((k for k in keys if 2 * votes[k] > len(seeds)), key=lambda k: (-votes[k], -sure[k], k)):
        taken[label[key]] = taken.get(label[key], 0) + 1
        chosen.append((taken[label[key]], -votes[key], -sure[key], key))
    return [key for *_, key in sorted(chosen)[:limit]]
