"""What the figures of a study say, in sentences, and how sure each is."""

from __future__ import annotations

from fgfast.studies.figures import LEAST_SEEDS, Difference
from fgfast.studies.results import Row, Study


def verdict(study: Study) -> list[tuple[str, str]]:
    """Say what the figures say: (sentence, how sure it is), the BG-gap first."""
    said = []
    for row in study.rows:
        if gap := row.gap:
            text = f"accuracy {_changes(gap)} from backgrounds of the own class to those of any (BG-gap)"
            said.append((f"{model_name(row)}: {text}.", sure(gap)))
    for row in study.rows:
        if row.cell.train == "x" and (found := row.minus("x", "x_fg")):
            said.append((f"{model_name(row)}: accuracy {_changes(found)} from X to X_FG.", sure(found)))
    return said or [("No difference can be computed: no training was tested on both of two test sets.", "")]


def model_name(row: Row) -> str:
    """Return a row's name with what it was trained on."""
    return f"{row.name}, trained on {row.cell.train}"


def _changes(found: Difference) -> str:
    """Say first minus second and its interval over images: "falls by 54 points (49 to 58)"."""
    sign = -1 if found.value < 0 else 1
    verb = "falls" if found.value > 0 else "rises"
    if round(100 * found.value, 1) == 0:
        verb = "changes"
    text = f"{verb} by {whole(sign * found.value)} points"
    if found.images.low is None or found.images.high is None:
        return text
    low, high = sorted((sign * found.images.low, sign * found.images.high))
    return f"{text} ({whole(low)} to {whole(high)})"


def whole(share: float) -> str:
    """Return points without decimals, one below 10."""
    text = f"{100 * share:.0f}" if abs(share) >= 0.0995 else f"{100 * share:.1f}"
    return text.removeprefix("-") if text.strip("-") == "0.0" else text.replace("-", "−")


def sure(found: Difference) -> str:
    """Say whether a difference holds: both intervals must lie on one side of 0."""
    count = found.seeds.count
    if not found.seeds.sure:
        few = f"{count} training{'s' if count > 1 else ''}"
        return (
            f"Too few runs: {few}, so no interval over trainings ({LEAST_SEEDS} are needed); that given is over images."
        )
    low, high = found.wide.low, found.wide.high
    if low is not None and high is not None and (low > 0 or high < 0):
        return f"Holds over images and over {count} trainings."
    return f"No difference holds: with {count} trainings an interval reaches 0."
