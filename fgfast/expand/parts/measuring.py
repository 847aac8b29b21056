"""How far parts by k-means are from annotated ones, on the whole image (X) and on its foreground (X_FG), paired.

The paper behind fgfast (2408.01998, section 3.3) expects better localisation from X_FG; this is that as a number.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgfast import seeds
from fgfast.expand.kind import Ending
from fgfast.expand.parts.clustered import ANNOTATED, IMAGE_PARTS
from fgfast.expand.parts.shown import PARTS
from fgfast.ops.localisation import (
    contingency,
    distances,
    in_box,
    information_interval,
    mean_interval,
    mutual_information,
    regressed,
)
from fgfast.writing import write_file

SUMMARY, EACH = "localisation.json", "localisation.csv"
"""Files of the expansion."""

MEASURE = (
    "distance: from the centres of the parts a linear regression, fitted on the training images, predicts each "
    "annotated part of the test images; mean distance of those that can be seen, as a fraction of the annotated box's "
    "width and height (Huang and Li, 2020). nmi: normalised mutual information of annotated and found part at each "
    "annotated point of the test images (Choudhury et al., 2021). interval: 95 %, bootstrap over test images."
)

# Least-squares fits with fewer images than this per coefficient say little (a rule of thumb; Harrell, "Regression
# Modeling Strategies", 2015, section 4.4, asks for 10 to 20).
_PER_COEFFICIENT = 10

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Gathered:
    """What the tables say.

    Attributes:
        keys, splits: of the N images with annotated parts.
        found, everywhere: (N, K, 2) float64, centres of the parts of X_FG and of X in the annotated box; NaN for none.
        landmarks: (N, L, 2) float64, annotated parts in the annotated box; NaN for those that cannot be seen.
        pairs: of each annotated point: the number of its image, annotated part, part found on X_FG, part found on X,
            all from 0.
    """

    keys: list[str]
    splits: list[str]
    found: Numbers
    everywhere: Numbers
    landmarks: Numbers
    pairs: NDArray[np.int64]


@dataclass(frozen=True)
class Measuring:
    """Writes `SUMMARY` and `EACH` at the end of an expansion.

    Attributes:
        names: seed and kind, for the bootstrap.
        parts: number of parts that k-means was asked for.
        annotated: number of annotated parts.
    """

    names: tuple[int, str]
    parts: int
    annotated: int

    def __call__(self, ending: Ending) -> list[str]:
        """Measure, write, and return the files written."""
        gathered = self.gather(ending)
        summary, each = self.measure(gathered)
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(("key", "distance_x", "distance_x_fg", "difference"))
        table.writerows((key, *(f"{value:.6f}" for value in values)) for key, values in each.items())
        write_file(ending.target(EACH), text.getvalue().encode("utf-8", "surrogateescape"))
        ending.found.extend(_sentences(summary))
        write_file(ending.target(SUMMARY), (json.dumps(summary, indent=2) + "\n").encode())
        return [SUMMARY, EACH]

    def gather(self, ending: Ending) -> Gathered:
        """Read the tables."""
        places = {key: (split, points) for key, split, points in self._points(ending, ANNOTATED.name, self.annotated)}
        tables = {
            name: {key: points for key, _, points in self._points(ending, name, self.parts)}
            for name in (PARTS.name, IMAGE_PARTS.name)
        }
        keys = [key for key in places if ending.given(key)["box"] is not None]
        boxes = np.array([ending.given(key)["box"] for key in keys], np.float64).reshape(-1, 4)
        number = {key: index for index, key in enumerate(keys)}
        pairs = [
            (number[row["key"]], row["part"] - 1, row["found"] - 1, row["found_in_image"] - 1)
            for row in ending.rows(ANNOTATED.name)
            if row["key"] in number and row["found"] is not None
        ]
        found, everywhere, landmarks = (
            in_box(np.array([table[key] for key in keys]).reshape(len(keys), count, 2), boxes)
            for table, count in (
                (tables[PARTS.name], self.parts),
                (tables[IMAGE_PARTS.name], self.parts),
                ({key: points for key, (_, points) in places.items()}, self.annotated),
            )
        )
        splits = [places[key][0] for key in keys]
        return Gathered(keys, splits, found, everywhere, landmarks, np.array(pairs, np.int64).reshape(-1, 4))

    @staticmethod
    def _points(ending: Ending, table: str, count: int) -> Iterable[tuple[str, str, Numbers]]:
        """Return key, split and (count, 2) float64 x y of each image in a table; NaN for a part without a place."""
        found: dict[str, tuple[str, Numbers]] = {}
        for row in ending.rows(table):
            _, points = found.setdefault(row["key"], (row["split"], np.full((count, 2), np.nan)))
            if row["x"] is not None:
                points[row["part"] - 1] = row["x"], row["y"]
        return [(key, split, points) for key, (split, points) in found.items()]

    def measure(self, gathered: Gathered) -> tuple[dict[str, Any], Mapping[str, tuple[float, float, float]]]:
        """Return the summary, and of each test image the distances of X and X_FG, and their difference X_FG - X."""
        fitted = np.array([split == "train" for split in gathered.splits], np.bool_)
        tested = np.array([split == "test" for split in gathered.splits], np.bool_)
        on = {}
        for name, centres in (("x", gathered.everywhere), ("x_fg", gathered.found)):
            on[name] = distances(regressed(centres, gathered.landmarks, fitted), gathered.landmarks)
        counted = tested & ~np.isnan(on["x"]) & ~np.isnan(on["x_fg"])
        notes = self._notes(gathered, fitted, int(counted.sum()))
        summary: dict[str, Any] = {
            "measure": MEASURE,
            "parts": self.parts,
            "training_images": int(fitted.sum()),
            "test_images": int(counted.sum()),
            "notes": notes,
        }
        if not counted.any():
            return summary, {}
        x, x_fg = on["x"][counted], on["x_fg"][counted]
        interval = mean_interval(x_fg - x, seeds.generator(*self.names, "bootstrap", "distance"))
        summary["distance"] = _compared(float(x.mean()), float(x_fg.mean()), interval, not notes, -1)
        summary["nmi"] = self._information(gathered.pairs, counted)
        keys = [key for key, own in zip(gathered.keys, counted.tolist(), strict=True) if own]
        return summary, dict(zip(keys, zip(x, x_fg, x_fg - x, strict=True), strict=True))

    def _information(self, pairs: NDArray[np.int64], counted: NDArray[np.bool_]) -> dict[str, Any]:
        """Return the mutual information of the test images' annotated points with the parts of X and of X_FG."""
        images, parts, found, everywhere = pairs[counted[pairs[:, 0]]].T.tolist()
        shape = (len(counted), self.annotated, self.parts)
        # Images are numbered among all; those that are not tested must not be drawn.
        on_x, on_fg = (contingency(images, parts, own, shape)[counted] for own in (everywhere, found))
        interval = information_interval(on_x, on_fg, seeds.generator(*self.names, "bootstrap", "nmi"))
        x, x_fg = (mutual_information(tables.sum(axis=0)) for tables in (on_x, on_fg))
        return _compared(x, x_fg, interval, True, 1)

    def _notes(self, gathered: Gathered, fitted: NDArray[np.bool_], tested: int) -> list[str]:
        """Return what makes the numbers doubtful."""
        notes = []
        if not tested:
            notes.append("Nothing was measured: it needs images of split train and of split test with annotated parts.")
        seen = ~np.isnan(gathered.landmarks[fitted]).any(axis=2)
        fewest = int(seen.sum(axis=0).min()) if seen.size else 0
        if tested and fewest < _PER_COEFFICIENT * 2 * self.parts:
            notes.append(
                f"The regression has {2 * self.parts} coefficients per coordinate, and an annotated part has as few as "
                f"{fewest} training images: the distances are those of a poor fit. nmi fits nothing."
            )
        return notes


def _sentences(summary: Mapping[str, Any]) -> list[str]:
    """Return the summary in words, for run.json and the report."""
    titles = {"distance": "Distance to the annotated parts", "nmi": "Information shared with the annotated parts"}
    told = []
    for name, title in titles.items():
        if one := summary.get(name):
            low, high = one["interval"]
            told.append(
                f"{title}: {one['x']:.3f} on the image (X), {one['x_fg']:.3f} on its foreground (X_FG); difference "
                f"{one['difference']:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}. {one['verdict']}"
            )
    return [*told, *summary["notes"]]


def _compared(x: float, x_fg: float, interval: tuple[float, float], sound: bool, better: int) -> dict[str, Any]:
    """Return one measure of X and X_FG; `better` is 1 where more is better, -1 where less is."""
    numbers = {"x": x, "x_fg": x_fg, "difference": x_fg - x}
    low, high = sorted(better * bound for bound in interval)
    if not sound:
        verdict = "The regression has too few training images; see the notes."
    elif low > 0:
        verdict = "Parts of the foreground localise the annotated ones better than parts of the whole image."
    elif high < 0:
        verdict = "Parts of the foreground localise the annotated ones worse than parts of the whole image."
    else:
        verdict = "The interval contains 0: these images do not show a difference."
    rounded: dict[str, Any] = {name: round(value, 6) for name, value in numbers.items()}
    return {**rounded, "interval": [round(bound, 6) for bound in interval], "verdict": verdict}
