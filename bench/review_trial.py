"""Measures how many planted errors the doubt finds, and fits its weights.

Errors are planted in photographs whose subject is known: a wrong object's box, half the box, the whole image, a box 1.5
times as large; a ring of background, a part cut off, an empty mask. Wrong boxes have sizes and places of right ones.
Half of the photographs are there to fit to, the other half, which the weights never saw, to test on. The figures are
those of a data set of which 2 % are wrong. Without photographs, drawn birds stand in, and their figures are no claim.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from fgfast.bench.doubt_fit import BUDGETS, PREVALENCE, Known, as_json, fit, found, measure
from fgfast.bench.known_photos import drawn_photos, known_photos
from fgfast.bench.planting import BOX_KINDS, FAILED, RIGHT, Case, Photo, cases_of
from fgfast.bench.stamp import stamp
from fgfast.bench.text import columns
from fgfast.models.grabcut_again import WEIGHED, look_again
from fgfast.ops.doubt import BUILT_IN, Family, Term, Weights, doubt
from fgfast.ops.evidence import NAMES, evidence
from fgfast.ops.truth import box_distance, sides_off
from fgfast.terminal import say
from fgfast.writing import Target, make_folder, replacing, write_file

PHOTOS = Path(__file__).resolve().parents[2] / "shared" / "photos"
DRAWN = 40  # birds drawn where there are no photographs
KNOWN = ("beyond the annotated box", "short of the annotated box")
FAMILIES: dict[str, tuple[str, ...]] = {
    "grabcut": (*NAMES,),
    "grabcut, second look": (*NAMES, *WEIGHED),
    "grabcut, box known": (*NAMES, *KNOWN),
    "grabcut, second look, box known": (*NAMES, *WEIGHED, *KNOWN),
}
"""Family -> the numbers that it may weigh."""
SAM = {"low quality": (0.3, 0.1, 0.8), "low stability": (0.2, 0.1, 0.8), "low score": (0.6, 0.2, 0.4)}
"""Mean, deviation (of roots) and weight of what only models say. Set by hand: official SAM weights were not at hand."""
TOLD = {"keypoints outside": (0.1, 0.2, 0.6), "far from the official mask": (0.3, 0.15, 0.8)}
"""The same of what a data set says and the trial cannot weigh: keypoints tell there which masks are right, and no true
mask is both the measure and a flag. Set by hand: a sixth of the keypoints, an IoU of 0.8 begin to count."""
OWN = WEIGHED[2:]
"""Numbers of GrabCut's second look that SAM's, one batch of its decoder, does not have."""
BY_HAND = "set by hand: half the weights of GrabCut, and what SAM says of itself; not measured, and nothing is claimed"


@dataclass(frozen=True)
class Row:
    """A case and its numbers."""

    case: Case
    held_out: bool
    numbers: dict[str, float]

    def known(self, family: str) -> Known:
        """Return the result as a family sees it."""
        names = (*FAMILIES[family], "empty", *(("far from the annotated box",) if "box known" in family else ()))
        own = {name: self.numbers[name] for name in names if name in self.numbers}
        return Known(self.case.photo, "" if self.case.kind == RIGHT else self.case.kind, own)


def held_out(name: str) -> bool:
    """Whether a photograph is there to test on: by its name, so that others may come and go."""
    return hashlib.sha256(name.encode()).digest()[0] % 2 == 1


def rows_of(photos: Sequence[Photo], second: bool, cache: Path | None) -> list[Row]:
    """Plant the errors, and compute the numbers of every case."""
    rows = []
    for subject, case in cases_of(photos, second, cache):
        photo = photos[subject]
        numbers = dict(evidence(photo.pixels, case.bits, case.box))
        if case.others:
            numbers |= look_again(photo.pixels, case.box, case.bits, case.others)
        if not case.bits.any():
            numbers["empty"] = 0.0
        else:
            numbers["far from the annotated box"] = box_distance(case.bits, photo.box)
            numbers |= zip(KNOWN, sides_off(case.bits, photo.box), strict=True)
        rows.append(Row(case, held_out(photo.name), numbers))
    return rows


def of_family(rows: Sequence[Row], family: str) -> list[Known]:
    """Return the results that a family is judged by: a second look cannot be taken at masks that were changed."""
    kinds = {row.case.kind for row in rows} - {FAILED}
    if "second look" in family:
        kinds &= {RIGHT, *BOX_KINDS}
    return [row.known(family) for row in rows if row.case.kind in kinds]


def doubts(results: Sequence[Known], weights: Weights) -> Any:
    """Return the doubt of each result, (N,) float64."""
    return np.array([doubt(one.numbers, weights).value for one in results])


def fitted(rows: Sequence[Row], families: Sequence[str], where: str) -> Weights:
    """Fit every family to the photographs that are there for it; SAM's are set by hand."""
    mine = [row for row in rows if not row.held_out]
    count = len({row.case.photo for row in mine})
    found: dict[str, Family] = {}
    for family in families:
        about = f"fitted to planted errors in {count} {where}, by bench/review_trial.py --fit"
        results = [one for one in of_family(mine, family) if "empty" not in one.numbers]  # those are sure
        first = found.get(family.replace(", second look", "")) if "second look" in family else None
        found[family] = _told(fit(results, FAMILIES[family], about, first))
    return Weights({**found, **_by_hand(found)})


def _told(family: Family) -> Family:
    return replace(family, terms={**family.terms, **{flag: Term(*values) for flag, values in TOLD.items()}})


def _by_hand(found: dict[str, Family]) -> dict[str, Family]:
    own = {}
    for name, family in found.items():
        terms = {flag: replace(t, weight=round(t.weight / 2, 4)) for flag, t in family.terms.items() if flag not in OWN}
        terms |= {flag: Term(*values) for flag, values in (SAM | TOLD).items()}
        own[name.replace("grabcut", "sam")] = Family(family.intercept, terms, BY_HAND)
    return own


def figures_of(rows: Sequence[Row], weights: Weights, families: Sequence[str]) -> dict[str, Any]:
    """Measure every family on the photographs that were held out, and on those that it was fitted to."""
    figures: dict[str, Any] = {}
    for family in families:
        entry = figures[family] = {}
        for name, mine in (("held out", True), ("fitted", False)):
            own = [row for row in rows if row.held_out == mine]
            for more, used in (("", own), (", wrong masks", [row for row in own if not row.case.harmless])):
                results = of_family(used, family)
                entry[name + more] = measure(doubts(results, weights), results)
        entry["held out"]["own failures"] = _own_failures([row for row in rows if row.held_out], family, weights)
        if "second look" not in family:  # to be compared with the second look, which has no others
            boxes = [one for one in of_family([r for r in rows if r.held_out], family) if one.kind in ("", *BOX_KINDS)]
            entry["held out, errors of the box"] = measure(doubts(boxes, weights), boxes)
    return figures


def _own_failures(rows: Sequence[Row], family: str, weights: Weights) -> dict[str, Any]:
    """Return how many results the segmenter got wrong by itself, and the fraction found among the most doubtful."""
    results = [row.known(family) for row in rows if row.case.kind in (RIGHT, FAILED)]
    values, kinds = doubts(results, weights), [one.kind for one in results]
    shares = {f"found in {budget:.0%}": found(values, kinds, budget).get(FAILED) for budget in BUDGETS}
    return {"count": kinds.count(FAILED), **shares}


def over_splits(rows: Sequence[Row], families: Sequence[str], where: str, splits: int) -> dict[str, Any]:
    """Divide the photographs into halves at random, fit to one and measure on the other, many times.

    One division has few right results among its most doubtful, so that a single photograph moves the figures.

    Returns:
        Family -> "found in 5%" and others -> mean, 10th and 90th percentile over the divisions, of all planted errors;
        for families without a second look also of the errors of the box alone.
    """
    photos = sorted({row.case.photo for row in rows})
    random = np.random.default_rng(0)
    shares: dict[str, dict[float, list[float]]] = {}
    for _ in range(splits):
        half = set(random.permutation(photos)[: len(photos) // 2].tolist())
        own = [replace(row, held_out=row.case.photo not in half) for row in rows]
        weights = fitted(own, families, where)
        for family in families:
            results = of_family([row for row in own if row.held_out], family)
            judged = {family: results}
            if "second look" not in family:  # to be compared with the second look, which has no others
                judged[f"{family}, errors of the box"] = [one for one in results if one.kind in ("", *BOX_KINDS)]
            for name, some in judged.items():
                values, kinds = doubts(some, weights), [one.kind for one in some]
                for budget, found_in in shares.setdefault(name, {b: [] for b in BUDGETS}).items():
                    found_in.append(found(values, kinds, budget)["all"])
    return {
        family: {
            f"found in {budget:.0%}": [round(float(x), 4) for x in (np.mean(v), *np.percentile(v, [10, 90]))]
            for budget, v in own_shares.items()
        }
        for family, own_shares in shares.items()
    }


def table(figures: dict[str, Any]) -> str:
    """Return the held-out figures as a table."""
    rows = []
    for family, entry in figures.items():
        for part in [name for name in entry if name.startswith("held out")]:
            own = entry[part]
            for kind in own["found in 5%"]:
                shares = [own[f"found in {budget:.0%}"][kind] for budget in BUDGETS]
                shown = [f"{share:.2f} ({low:.2f}-{high:.2f})" for share, low, high in shares]
                rows.append((family, part, kind, f"{own['auc'][kind]:.2f}", *shown))
    return columns(("numbers", "photographs", "error", "AUC", "found in 5 %", "found in 10 %"), rows)


def curves(rows: Sequence[Row], weights: Weights, families: Sequence[str]) -> dict[str, Any]:
    """Return family -> kind -> the fraction found at each share of the results that is looked at."""
    budgets = np.linspace(0, 0.3, 61)
    drawn: dict[str, Any] = {}
    for family in families:
        results = of_family([row for row in rows if row.held_out], family)
        values, kinds = doubts(results, weights), [one.kind for one in results]
        points = [found(values, kinds, budget) for budget in budgets]
        drawn[family] = {kind: [round(point[kind], 4) for point in points] for kind in points[0]}
    return {"budgets": budgets.round(4).tolist(), **drawn}


def plot(content: dict[str, Any], file: Path) -> None:
    """Draw the curves, a panel per family."""
    from matplotlib.figure import Figure

    lines = {name: entry for name, entry in content.items() if name != "budgets"}
    drawing = Figure(figsize=(10, 3.6 * ((len(lines) + 1) // 2)), layout="constrained")
    panels = drawing.subplots((len(lines) + 1) // 2, 2, squeeze=False, sharex=True, sharey=True).ravel()
    for axes, (family, kinds) in zip(panels, lines.items(), strict=False):
        for kind, values in kinds.items():
            style = {"color": "black", "linewidth": 2.2} if kind == "all" else {"linewidth": 1.1}
            axes.plot([100 * b for b in content["budgets"]], [100 * v for v in values], label=kind, **style)
        for budget in BUDGETS:
            axes.axvline(100 * budget, color="#999999", linewidth=0.7, linestyle=":")
        axes.set(title=family, xlabel="most doubtful results looked at, %", ylabel="planted errors found, %")
        axes.legend(fontsize=7, loc="lower right")
    with replacing(Target.file(file)) as out:
        drawing.savefig(out, dpi=110, format=file.suffix[1:].lower())


@click.command()
@click.option("--photos", metavar="DIR", type=click.Path(path_type=Path), help="Reads the photographs in this folder.")
@click.option("--fit", "refit", is_flag=True, help="Fits the weights before measuring, and writes them to --weights.")
@click.option(
    "--weights", metavar="FILE", type=click.Path(path_type=Path), help="Reads or writes this file of weights."
)
@click.option("--no-second-look", is_flag=True, help="Leaves out the five more cuts per result, and their families.")
@click.option("--cache", metavar="DIR", type=click.Path(path_type=Path), help="Keeps the masks in this folder.")
@click.option("--json", "file", metavar="FILE", type=click.Path(path_type=Path), help="Writes the figures to a file.")
@click.option("--plot", "drawing", metavar="FILE", type=click.Path(path_type=Path), help="Draws the curves (png, svg).")
@click.option("--drawn", metavar="N", type=int, help="Takes this many drawn birds in place of photographs.")
@click.option(
    "--splits", metavar="N", type=click.IntRange(0), default=0, help="Fits and tests on N random halves, too."
)
def main(
    photos: Path | None,
    refit: bool,
    weights: Path | None,
    no_second_look: bool,
    cache: Path | None,
    file: Path | None,
    drawing: Path | None,
    drawn: int | None,
    splits: int,
) -> None:
    """Measure how many planted errors the doubt finds, in photographs that its weights were not fitted to."""
    import cv2

    cv2.setNumThreads(1)
    known = [] if drawn else known_photos(photos or PHOTOS)
    where = "photographs" if known else "drawn images"
    known = known or drawn_photos(drawn or DRAWN)
    if cache is not None:
        make_folder(Target(cache))
    rows = rows_of(known, not no_second_look, cache)
    families = [family for family in FAMILIES if not (no_second_look and "second look" in family)]
    place = weights or BUILT_IN
    own = fitted(rows, families, where) if refit else Weights.load(place)
    if refit:
        write_file(Target.file(place), as_json(own))
    figures = figures_of(rows, own, families)
    say(table(figures))
    counted = f"{len(known)} subjects in {len({p.name for p in known})} {where}"
    say(f"{counted}; {PREVALENCE:.0%} of the results are wrong, every kind alike; intervals: 10 to 90 % by bootstrap.")
    divided = over_splits(rows, families, where, splits) if splits else {}
    for family, shares in divided.items():
        shown = ", ".join(f"{name} {mean:.2f} ({low:.2f}-{high:.2f})" for name, (mean, low, high) in shares.items())
        say(f"{splits} random halves, {family}: {shown}")
    points, about = curves(rows, own, families), stamp()  # before files are written, which would change the checkout
    if drawing:
        plot(points, drawing)
    if file:
        content = {"bench": "review trial", "subjects": counted, "families": figures, "curves": points, **about}
        content |= {"random halves": divided} if divided else {}
        write_file(Target.file(file), (json.dumps(content, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
