"""The tables and the page of `fgfast study features`: what is measured, what is said, what is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from fgfast.studies import feature_plots
from fgfast.studies.cell import plain_name
from fgfast.studies.feature_measures import FIGURES, LEAST_CLASSES, Measured, Space, figure, over_classes
from fgfast.studies.figures import Estimate
from fgfast.studies.page import missing, section, write_tables
from fgfast.studies.tables import Table, Value
from fgfast.writing import Target

Spaces = Mapping[tuple[str, str], Space]
"""(backbone, arm) -> space."""
AllMeasured = Mapping[tuple[str, str], Measured]
"""(backbone, arm) -> what was measured."""
_AGAINST = (("x_fg", "x"), ("x_fg", "x-box"), ("x", "only-bg"))
CLAIM = "Fig. 6's claim, that classes are tighter without background,"


@dataclass(frozen=True, slots=True)
class Said:
    """What the page is of.

    Attributes:
        dataset: for people.
        classes: names, by index.
        seed: of bootstraps and maps.
    """

    dataset: str
    classes: tuple[str, ...]
    seed: int


def of_arms(found: AllMeasured, seed: int) -> Table:
    """Return a row for each backbone and arm, a column for each figure."""
    rows: list[tuple[Value, ...]] = []
    for (backbone, arm), one in found.items():
        rows.append((plain_name(backbone), arm, *(over_classes(name, one, seed=seed) for name in FIGURES)))
    ks = ", ".join(str(k) for k in sorted({one.neighbours for one in found.values()}))
    note = (
        "In percent: of test images for k-NN and the linear probe, of 1 for silhouettes and cosine distances. Means "
        f"over test images. k-NN: k = {ks} training images vote, each with its cosine. Linear probe: logistic "
        "regression, its C chosen on a seeded tenth of train. Silhouette, and distances within and between classes, "
        "are of test images alone. Intervals: 95 %, bootstrap over classes."
    )
    return Table("features", "Classes in the features of each arm", ("Backbone", "Arm", *FIGURES), tuple(rows), note)


def differences(found: AllMeasured, seed: int) -> Table:
    """Return a row for each pair of arms of a backbone: the first minus the second."""
    rows: list[tuple[Value, ...]] = []
    for backbone in dict.fromkeys(name for name, _ in found):
        for first, second in _AGAINST:
            a, b = found.get((backbone, first)), found.get((backbone, second))
            if a is not None and b is not None:
                values = (over_classes(name, a, b, seed) for name in FIGURES)
                rows.append((plain_name(backbone), f"{first} − {second}", *values))
    note = (
        "Points. Both arms are of the same images, and classes are resampled alike, so that differences are paired. "
        "x_fg − x-box is what is left of it beside images that are as close to the subject."
    )
    signed = frozenset(range(2, 2 + len(FIGURES)))
    heads = ("Backbone", "Difference", *FIGURES)
    return Table("differences", "What background and nearness do to them", heads, tuple(rows), note, signed)


def verdict(found: AllMeasured, seed: int) -> list[tuple[str, str]]:
    """Say of each backbone whether Fig. 6's claim holds: (sentence, how sure it is)."""
    said = []
    for backbone in dict.fromkeys(name for name, _ in found):
        a, x, box = (found.get((backbone, arm)) for arm in ("x_fg", "x", "x-box"))
        if a is None or x is None:
            continue
        change, ratio = (over_classes(name, a, x, seed) for name in ("silhouette", "within / between"))
        text = (
            f"{plain_name(backbone)}: from X to X_FG the silhouette of classes changes by {_points(change)}, "
            f"and distances within classes, beside those between, by {_points(ratio)}."
        )
        said.append((text, sure(change, a.images)))
        if box is not None and change.count >= LEAST_CLASSES:
            said.append(_nearness(backbone, over_classes("silhouette", a, box, seed)))
    return said or [("Fig. 6's claim needs the arms x and x_fg.", "")]


def _nearness(backbone: str, change: Estimate) -> tuple[str, str]:
    text = f"{plain_name(backbone)}: from X cropped to the box to X_FG the silhouette changes by {_points(change)}."
    if change.low is not None and change.low > 0:
        return text, "It is not nearness alone."
    return text, "Being closer to the subject may be all there is to it."


def _points(change: Estimate) -> str:
    """Say a difference in points, with its interval."""

    def signed(value: float) -> str:
        return f"{100 * value:+.1f}".replace("-", "−")

    if change.low is None or change.high is None:
        return f"{signed(change.value)} points"
    return f"{signed(change.value)} points ({signed(change.low)} to {signed(change.high)})"


def sure(change: Estimate, images: int) -> str:
    """Judge Fig. 6's claim by the change of the silhouette: it holds, it does not, or there are too few classes."""
    if change.count < LEAST_CLASSES:
        return (
            f"Too few classes: {images:,} images of {change.count} classes prove nothing about {CLAIM[:-1]} "
            f"({LEAST_CLASSES} classes are needed), whatever the interval is."
        )
    if change.low is None or change.high is None:
        return f"{CLAIM} cannot be judged: there is no interval."
    if change.low > 0:
        return f"{CLAIM} holds here."
    return f"{CLAIM} does not hold here{': the interval reaches 0.' if change.high >= 0 else ': it is the reverse.'}"


def write(out: Target, said: Said, found: AllMeasured, spaces: Spaces, not_run: Sequence[tuple[str, str]] = ()) -> None:
    """Write the page and its tables.

    Args:
        out: the folder.
        said: what the page is of.
        found: what was measured.
        spaces: what is drawn.
        not_run: (what, why).

    Raises:
        UsageError: arms that are compared are of other images.
        OutputFailedError: the disk is full, read-only or failing.
    """
    drawings, lacking = "", list(not_run)
    for backbone in dict.fromkeys(name for name, _ in spaces):
        drawn, why = _maps(said, backbone, spaces)
        drawings += drawn
        lacking += [one for one in why if one not in lacking]
    tables = ((of_arms(found, said.seed), ""), (differences(found, said.seed), ""))
    title = f"features: {said.dataset}"
    write_tables(out, title, verdict(found, said.seed), tables, drawings + missing(lacking))


def _maps(said: Said, backbone: str, spaces: Spaces) -> tuple[str, list[tuple[str, str]]]:
    """Return the maps of a backbone, and what is not drawn."""
    there, lacking = feature_plots.methods()
    arms = feature_plots.order([arm for name, arm in spaces if name == backbone])
    its = {arm: spaces[(backbone, arm)] for arm in arms}
    labels = next(iter(its.values())).test_labels
    rows = feature_plots.some(labels)
    for arm, one in list(its.items()):
        if not feature_plots.drawable(one.test[rows]):
            why = f"{len(rows)} test images with features that do not differ: there is nothing to lay out"
            lacking.append((f"maps of {plain_name(backbone)}, {arm}", why))
            del its[arm]
    points = {(m, arm): draw(one.test[rows], said.seed) for m, draw in there.items() for arm, one in its.items()}
    if not points:
        return "", lacking
    svg = feature_plots.maps(points, labels[rows], said.classes, f"{said.dataset} {backbone}")
    some = f"{len(rows):,} of {len(labels):,} test images" if len(rows) < len(labels) else f"{len(rows):,} test images"
    title = f"Fig. 6: {plain_name(backbone)}, {some}, a colour for each class"
    note = f'<p class="soft">{escape(feature_plots.SENTENCE)}</p>'
    return section(title, f"{note}<div class=wide>{svg}</div>"), lacking


def figures(found: AllMeasured) -> dict[str, dict[str, float | None]]:
    """Return the figures of each backbone and arm as plain values, None where there is none."""
    return {
        f"{plain_name(backbone)}, {arm}": {name: _plain(float(figure(name, one))) for name in FIGURES}
        for (backbone, arm), one in found.items()
    }


def _plain(value: float) -> float | None:
    return round(value, 6) if np.isfinite(value) else None
