"""Lets the model look at entries before anybody clicks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from fgfast.review.reading import Reading
from fgfast.review.session import Review


def prepare(review: Review, numbers: Iterable[int]) -> None:
    """Let the model look at entries ahead of the clicks, where it can."""
    model = review.clicked()
    if model is not None and "embed" in model.can:
        model.prepare(_images(review, numbers))


def prepare_before(review: Review, most: int, looked: Callable[[int, int], bool]) -> str:
    """Let the model look at the most doubtful entries before anybody clicks; return what came of it.

    Args:
        most: number of entries.
        looked: called with the number of those looked at so far, and of all; says whether to go on.
    """
    model = review.clicked()
    if model is None:
        return "nothing was prepared: no model makes masks where nothing may be changed"
    if "embed" not in model.can:
        return f"nothing is there to prepare: {model.name} looks at an image when it is clicked ({model.reason})"
    wanted = min(most, model.most, len(review.entries.columns.ids))
    images = _images(review, review.entries.columns.ids[review.entries.by_doubt()[:wanted]].tolist())
    made = model.make(images, lambda n: looked(n, len(images)))
    return f"{made:,} images prepared" + (f"; no more than {model.most:,} are kept" if most > model.most else "")


def _images(review: Review, numbers: Iterable[int]) -> list[tuple[str, Callable[[], Any]]]:
    """Return keys of entries, and what decodes their stored images."""
    outcomes = review.read(Reading.present, [*numbers]).result()
    return [(r.outcome.key, review.load(r.outcome)) for r in outcomes if r.outcome.size]
