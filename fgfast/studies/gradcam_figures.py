"""Figures of where classifiers look, computed from the values of images alone; trainings are rows, images columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fgfast.errors import UsageError
from fgfast.studies.figures import Difference, Estimate, bootstrap_mean, over_seeds
from fgfast.studies.gradcam_values import Values
from fgfast.studies.results import Row, Study

Float = NDArray[np.float64]

FIGURES = ("inside", "area", "hit", "evidence", "above")
"""Of a map: share of its energy inside the mask; the mask's share of the image; whether its highest pixel is inside;
whether it is above zero anywhere; the share inside less the mask's share."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was found of the cells of a study.

    Attributes:
        study: its cells, without predictions; what was not looked at, and why.
        values: name of a cell -> values of its images.
        constructed: name of a cell -> method -> whether masking alone puts maps inside: "no", or why.
    """

    study: Study
    values: Mapping[str, Values]
    constructed: Mapping[str, Mapping[str, str]]
    _estimated: dict[tuple[object, ...], tuple[Estimate, Estimate] | None] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )  # a bootstrap over thousands of images takes a part of a second, and tables and verdict want the same ones

    def by_construction(self, row: Row, method: str) -> str:
        """Return whether masking alone puts the maps of a row inside the mask: "no", or why."""
        return self.constructed[row.cell.name][method]

    def images(self, row: Row, arm: str, name: str) -> tuple[tuple[str, ...], dict[int, Float]]:
        """Return the keys of an arm's images, and seed -> the value of each; NaN where an image has none.

        Args:
            row: of the study.
            arm: that was shown.
            name: a figure of a method, as in "cam_inside"; "stays"; "change" and "size of change".

        Raises:
            UsageError: the trainings of the row were shown other images.
        """
        found, keys = dict[int, Float](), tuple[str, ...]()
        for one in row.trained:
            there, columns = self.values[one.cell.name].of(arm)
            if not there:
                continue
            if keys and there != keys:
                raise UsageError(f"trainings of {row.name} were shown other images; look again with --overwrite")
            keys = there
            values = _value(columns, name)
            values[columns["area"] == 0] = np.nan  # the subject lies outside the model's crop
            found[one.cell.seed] = values
        return keys, found

    def outside(self) -> int:
        """Return the number of images whose subject lies outside some model's crop."""
        lost = {
            key
            for one in self.values.values()
            for key, area in zip(one.keys, one.columns["area"], strict=True)
            if area == 0
        }
        return len(lost)

    def estimates(self, row: Row, arm: str, name: str) -> tuple[Estimate, Estimate] | None:
        """Return a figure's mean with its interval over images, and over trainings; None without images."""
        key = (row.kind, arm, name)
        if key not in self._estimated:
            _, found = self.images(row, arm, name)
            self._estimated[key] = both(np.stack(list(found.values()))) if found else None
        return self._estimated[key]

    def mean(self, row: Row, arm: str, name: str) -> float | None:
        """Return a figure's mean over trainings, without an interval; None without images."""
        _, found = self.images(row, arm, name)
        means = [float(np.nanmean(values)) for values in found.values() if not np.isnan(values).all()]
        return float(np.mean(means)) if means else None

    def minus(self, first: Row, second: Row, arm: str, name: str) -> Difference | None:
        """Return a figure of the first row minus that of the second, image by image, seed by seed."""
        key = (first.kind, second.kind, arm, name)
        if key not in self._estimated:
            self._estimated[key] = self._minus(first, second, arm, name)
        found = self._estimated[key]
        return None if found is None else Difference(*found, (), (), ())

    def _minus(self, first: Row, second: Row, arm: str, name: str) -> tuple[Estimate, Estimate] | None:
        keys, a = self.images(first, arm, name)
        others, b = self.images(second, arm, name)
        seeds = sorted(a.keys() & b.keys())
        if not seeds:
            return None
        if keys != others:
            raise UsageError(f"{first.name} and {second.name} were shown other images; look again with --overwrite")
        return both(np.stack([a[seed] - b[seed] for seed in seeds]))


def _value(columns: Mapping[str, NDArray[np.generic]], name: str) -> Float:
    def of(column: str) -> Float:
        return np.array(columns[column], np.float64)

    if name == "stays":
        return np.array(columns["prediction"] == columns["repainted_prediction"], np.float64)
    if name in ("change", "size of change"):
        change = of("repainted_probability") - of("probability")
        return np.abs(change) if name == "size of change" else change
    if name.endswith("_above"):
        return of(name.replace("_above", "_inside")) - of("area")
    return of(name)


def both(values: Float) -> tuple[Estimate, Estimate] | None:
    """Return the mean of values with its interval over images, by bootstrap, and over trainings, by Student's t.

    Args:
        values: (trainings, images); NaN where there is none. An image counts with its mean over the trainings where
            it has one; trainings are held fixed.

    Returns:
        None where there is no value at all.
    """
    has = ~np.isnan(values)
    if not has.any():
        return None
    images, seeds = has.any(0), has.any(1)
    each = np.nansum(values, 0)[images] / has.sum(0)[images]
    training = np.nansum(values, 1)[seeds] / has.sum(1)[seeds]
    return bootstrap_mean(each), over_seeds(training.tolist())


def as_share(found: Estimate) -> Estimate:
    """Return a share's estimate with its interval cut at 0 and 1: Student's may reach beyond."""
    if found.low is None or found.high is None:
        return found
    return replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))


def compared_rows(study: Study) -> list[tuple[Row, Row]]:
    """Return (row, what it is compared with): the one trained on X without masking, of its backbone and recipe.

    Among several of those, which differ in their pooling, it is the one of the row's own pooling, or else the first.
    """
    found = []
    plain = [row for row in study.rows if row.cell.train == "x" and row.cell.strategy.where == "none"]
    for row in study.rows:
        if row in plain:
            continue
        cell = row.cell
        kind = (cell.study, cell.backbone, cell.recipe, cell.pretrained)
        like = [
            one for one in plain if (one.cell.study, one.cell.backbone, one.cell.recipe, one.cell.pretrained) == kind
        ]
        like.sort(key=lambda one: one.cell.strategy.pooling != cell.strategy.pooling)
        if like:
            found.append((row, like[0]))
    return found
