"""The tables of where classifiers look, and what they say."""

from __future__ import annotations

from fgfast.studies.figures import LEAST_SEEDS, Difference, Estimate
from fgfast.studies.gradcam_figures import Look, as_share, compared_rows
from fgfast.studies.gradcam_look import ARMS
from fgfast.studies.gradcam_values import METHODS
from fgfast.studies.results import Row
from fgfast.studies.tables import Table, Value
from fgfast.studies.verdicts import model_name, sure, whole

_INTERVALS = (
    "Over images: bootstrap, trainings held fixed, each image's value being its mean over them. Over trainings: "
    f"Student's t, from {LEAST_SEEDS} trainings on; fewer give no interval."
)
_CHANGES = (
    ("cam_inside", "Grad-CAM: energy inside", "cam"),
    ("cam_hit", "Grad-CAM: pointing game", "cam"),
    ("gradient_inside", "input gradients: energy inside", "gradient"),
    ("gradient_hit", "input gradients: pointing game", "gradient"),
    ("stays", "predictions that stay when the background is repainted", ""),
)


def made(look: Look) -> list[Table]:
    """Return all tables that have rows."""
    return [table for table in (inside(look), changes(look), repainted(look)) if table.rows]


def inside(look: Look) -> Table:
    """How much of a map lies inside the mask, beside the mask's share of the image."""
    rows: list[tuple[Value, ...]] = []
    for row in look.study.rows:
        for arm in ARMS:
            for method, title in METHODS.items():
                evidence, area = look.mean(row, arm, f"{method}_evidence"), look.mean(row, arm, "area")
                if evidence is None:
                    continue
                first: tuple[Value, ...] = (row.name, row.cell.train, arm, title, look.by_construction(row, method))
                energy, pointing = (_shares(look, row, arm, f"{method}_{name}") for name in ("inside", "hit"))
                rows.append((*first, str(len(row.trained)), *energy, area, *pointing, 1 - evidence))
    heads: tuple[str, ...] = ("Model", "Trained on", "Shown", "Map", "Inside by construction", "Trainings")
    heads = (*heads, "Energy inside, over images", "Energy inside, over trainings", "Mask's area")
    heads = (*heads, "Pointing game, over images", "Pointing game, over trainings", "Without evidence")
    note = (
        "Percent. Raw maps of the image's own class: nothing is subtracted from them, and nothing stretched. Energy: "
        "sum of a map, brought to the model's input; the mask's area is what a map without preference would have, "
        "measured in the same crop. Pointing game: the highest pixel lies inside, without tolerance. Without "
        "evidence: maps that are zero everywhere; they have no energy and count as missed in the pointing game. "
        "Where masking alone puts maps inside, the figure says nothing of where a model chooses to look. " + _INTERVALS
    )
    if lost := look.outside():
        note += f" {lost} image{'s' if lost > 1 else ''} whose subject lies outside a model's crop are left out."
    return Table("inside", "Where the models look", heads, tuple(rows), note)


def _shares(look: Look, row: Row, arm: str, name: str) -> tuple[Value, Value]:
    found = look.estimates(row, arm, name)
    return (None, None) if found is None else (as_share(found[0]), as_share(found[1]))


def changes(look: Look) -> Table:
    """Each row minus the one trained on X without masking, of the same backbone: the same images, paired by seed."""
    rows: list[tuple[Value, ...]] = []
    for row, other in compared_rows(look.study):
        for arm in ARMS:
            for name, title, method in _CHANGES:
                found = look.minus(row, other, arm, name)
                if found is not None:
                    mark = constructed(look, row, other, method)
                    rows.append((row.name, row.cell.train, other.name, arm, title, mark, found.images, found.seeds))
    heads: tuple[str, ...] = ("Model", "Trained on", "Minus, trained on x", "Shown", "Figure", "By construction")
    heads = (*heads, "Over images", "Over trainings")
    note = "Points: this row's figure minus that of the model trained on x without masking. " + _INTERVALS
    return Table("changes", "What training without background, or masking, changes", heads, tuple(rows), note, _LAST)


_LAST = frozenset((6, 7))


def constructed(look: Look, row: Row, other: Row, method: str) -> str:
    """Say whether masking alone makes a figure of one of two rows: "no", or why.

    Args:
        look: what was found.
        row: its figure, less that of `other`.
        other: the row that it is compared with.
        method: of maps; empty for predictions that stay, which pixels that are masked cannot change.
    """
    if not method:
        return "yes, early masking" if row.cell.strategy.early or other.cell.strategy.early else "no"
    both = (look.by_construction(one, method) for one in (row, other))
    return next((why for why in both if why != "no"), "no")


def repainted(look: Look) -> Table:
    """What happens when the background is repainted."""
    rows: list[tuple[Value, ...]] = []
    for row in look.study.rows:
        for arm in ARMS:
            stays = look.estimates(row, arm, "stays")
            if stays is None:
                continue
            values: list[Value] = [row.name, row.cell.train, arm, str(len(row.trained)), *map(as_share, stays)]
            values += look.estimates(row, arm, "change") or (None, None)
            rows.append((*values, look.mean(row, arm, "size of change")))
    stay, change = "Predictions that stay", "Change of the class's probability"
    heads: tuple[str, ...] = ("Model", "Trained on", "Shown", "Trainings", f"{stay}, over images")
    heads = (*heads, f"{stay}, over trainings", f"{change}, over images", f"{change}, over trainings")
    heads = (*heads, "Size of that change")
    note = (
        "Percent and points. Backgrounds become noise, each pixel and channel drawn evenly from 0 to 255 at the stored "
        "size, the same for each model; the subject's pixels stay. The class is the image's own. Models that mask "
        "pixels see no background, and cannot change. " + _INTERVALS
    )
    return Table("repainted", "When the background is repainted", heads, tuple(rows), note, frozenset((6, 7)))


def verdict(look: Look) -> list[tuple[str, str]]:
    """Say what the figures of untouched images say: (sentence, how sure it is)."""
    said = []
    compared = compared_rows(look.study)
    for row in look.study.rows:
        if row.cell.train == "x" and row.cell.strategy.where == "none":
            said += _level(look, row)
            said += [one for other, base in compared if base == row for one in _compared(look, other, base)]
    said += [one for row in look.study.rows if not said for one in _level(look, row)]
    return said or [("Nothing was looked at.", "")]


def _level(look: Look, row: Row) -> list[tuple[str, str]]:
    found, area = look.estimates(row, "x", "cam_inside"), look.mean(row, "x", "area")
    above = look.estimates(row, "x", "cam_above")
    if found is None or area is None or above is None:
        return []
    text = (
        f"{model_name(row)}: {100 * found[0].value:.0f} % of Grad-CAM's energy lies inside the subject, whose mask "
        f"covers {100 * area:.0f} % of the image."
    )
    found_difference = Difference(*above, (), (), ())
    return [(text, f"Inside minus area: {_interval(above[0])} points. {sure(found_difference)}")]


def _interval(found: Estimate) -> str:
    if found.low is None or found.high is None:
        return whole(found.value)
    return f"{whole(found.value)} ({whole(found.low)} to {whole(found.high)})"


def _compared(look: Look, row: Row, base: Row) -> list[tuple[str, str]]:
    name = f"{model_name(row)}, against {base.cell.train} without masking"
    if (mark := constructed(look, row, base, "cam")) == "yes, late masking":
        return [(f"{name}: Grad-CAM lies inside by construction ({mark.partition(', ')[2]}): no finding.", "")]
    found = look.minus(row, base, "x", "cam_inside")
    if found is None:
        return []
    verb = "falls" if found.value < 0 else "rises"
    sign = -1 if found.value < 0 else 1
    part = "" if mark == "no" else ", in part by construction"
    text = (
        f"{name}: the share of Grad-CAM's energy inside the subject {verb} by {whole(sign * found.value)} points{part}"
    )
    return [(f"{text}.", f"Change: {_interval(found.images)} points. {sure(found)}")]
