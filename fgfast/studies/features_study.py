"""The tables and the page of `fgfast study features`: what is measured, what is said, what is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from fgfast.studies import feature_plots
from fgfast.studies.cell import plain_name
from fgfast.studies.feature_measures import FIGURES, LEAST_CLASSES, NEIGHBOURS, Measured, Space, over_classes
from fgfast.studies.figures import Estimate
from fgfast.studies.page import section, write_tables
from fgfast.studies.tables import Table, Value
from fgfast.writing import Target

Spaces = Mapping[tuple[str, str], Space]
"""(backbone, arm) -> space."""
_AGAINST = (("x_fg", "x"), ("x_fg", "x-box"), ("x", "only-bg"))


def of_arms(found: Mapping[tuple[str, str], Measured], seed: int) -> Table:
    """Return a row for each backbone and arm, a column for each figure."""
    rows: list[tuple[Value, ...]] = []
    for (backbone, arm), one in found.items():
        rows.append((plain_name(backbone), arm, *(over_classes(name, one, seed=seed) for name in FIGURES)))
    note = (
        f"Means over classes, in percent of 1; cosine distances. k-NN: the {NEIGHBOURS} nearest training images vote. "
        "Linear probe: logistic regression, its strength chosen on a tenth of train. Intervals: bootstrap over classes."
    )
    return Table("features", "Classes in the features of each arm", ("Backbone", "Arm", *FIGURES), tuple(rows), note)


def differences(found: Mapping[tuple[str, str], Measured], seed: int) -> Table:
    """Return a row for each pair of arms of a backbone: the first minus the second."""
    rows: list[tuple[Value, ...]] = []
    for backbone in dict.fromkeys(name for name, _ in found):
        for first, second in _AGAINST:
            a, b = found.get((backbone, first)), found.get((backbone, second))
            if a is not None and b is not None:
                values = (over_classes(name, a, b, seed) for name in FIGURES)
                rows.append((plain_name(backbone), f"{first} − {second}", *values))
    note = "Points. Both arms are of the same images, and classes are resampled alike, so that differences are paired."
    signed = frozenset(range(2, 2 + len(FIGURES)))
    heads = ("Backbone", "Difference", *FIGURES)
    return Table("differences", "What background and nearness do to them", heads, tuple(rows), note, signed)


def verdict(found: Mapping[tuple[str, str], Measured], seed: int) -> list[tuple[str, str]]:
    """Say of each backbone whether Fig. 6's claim holds: classes lie apart better without background."""
    said = []
    for backbone in dict.fromkeys(name for name, _ in found):
        a, b = found.get((backbone, "x_fg")), found.get((backbone, "x"))
        if a is not None and b is not None:
            figure = over_classes("silhouette", a, b, seed)
            change = f"{100 * figure.value:+.1f}".replace("-", "−")
            text = f"{plain_name(backbone)}: the silhouette of classes changes by {change} points from X to X_FG."
            said.append((text, _sure(figure)))
    return said or [("Fig. 6's claim needs the arms x and x_fg.", "")]


def _sure(figure: Estimate) -> str:
    claim = "Fig. 6's claim, that classes lie apart better without background,"
    if figure.count < LEAST_CLASSES:
        return (
            f"Too few classes: {figure.count} prove nothing about {claim[:-1]} ({LEAST_CLASSES} are needed), "
            "whatever the interval is."
        )
    if figure.low is None or figure.high is None:
        return f"{claim} cannot be judged."
    if figure.low > 0:
        return f"{claim} holds here."
    return f"{claim} does not hold here." if figure.high < 0 else f"{claim} is undecided here: the interval reaches 0."


def write(
    out: Target,
    dataset: str,
    found: Mapping[tuple[str, str], Measured],
    spaces: Spaces,
    seed: int,
    not_run: Sequence[tuple[str, str]] = (),
) -> None:
    """Write the page and its tables.

    Args:
        out: the folder.
        dataset: for people.
        found: what was measured.
        spaces: what is drawn.
        seed: of bootstraps and maps.
        not_run: (what, why).

    Raises:
        UsageError: arms that are compared are of other images.
        OutputFailedError: the disk is full, read-only or failing.
    """
    there, missing = feature_plots.methods()
    drawings = ""
    for backbone in dict.fromkeys(name for name, _ in spaces):
        arms = feature_plots.order([arm for name, arm in spaces if name == backbone])
        its = {arm: spaces[(backbone, arm)] for arm in arms}
        rows = feature_plots.some(next(iter(its.values())).test_labels)
        labels = next(iter(its.values())).test_labels[rows]
        points = {(m, arm): draw(one.test[rows], seed) for m, draw in there.items() for arm, one in its.items()}
        if points and len(rows) > 3:
            title = f"{plain_name(backbone)}: {len(rows):,} test images, a colour for each class"
            drawn = feature_plots.maps(points, labels, f"{dataset} {backbone}")
            note = f'<p class="soft">{escape(feature_plots.SENTENCE)}</p>'
            drawings += section(title, f"<div class=wide>{drawn}</div>{note}")
    items = (*not_run, *missing)
    lacking = Table("", "", ("What", "Why"), tuple(items)).html() if items else ""
    more = drawings + (section("Not run", lacking) if items else "")
    tables = ((of_arms(found, seed), ""), (differences(found, seed), ""))
    write_tables(out, f"features: {dataset}", verdict(found, seed), tables, more)


def figures(found: Mapping[tuple[str, str], Measured]) -> dict[str, dict[str, float]]:
    """Return the figures of each backbone and arm as plain values."""
    return {
        f"{plain_name(backbone)}, {arm}": {
            name: float(np.round(figure(one.by_class), 6)) for name, figure in FIGURES.items()
        }
        for (backbone, arm), one in found.items()
    }
