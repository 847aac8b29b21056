"""From a box, points or strokes to masks, by the model of the run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from fgfast.errors import FgfastError, SegmenterLostError, UsageError
from fgfast.review import requests
from fgfast.review.mask_runs import decode_runs, encode_runs
from fgfast.review.reading import Reading
from fgfast.review.session import Review

# Characters of what a model wants to see again with the next click: a low-resolution mask as base64.
_LONGEST_PREVIOUS = 1 << 20


class SegmenterUnavailableError(FgfastError):
    """No model makes masks at the moment; drawing them by hand still works."""


def propose(review: Review, number: int, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return masks of an entry for what a person clicked.

    Raises:
        UsageError: nothing was clicked, or something that the model does not take.
        SegmenterUnavailableError: there is no model, or it died; the next click starts it again.
    """
    model = review.clicked()
    if model is None:
        raise SegmenterUnavailableError("no model makes masks here; draw with brush or lasso instead")
    o = review.read(Reading.outcome, number).result()
    if o.size is None:
        raise UsageError(f"{o.key} was never decoded, so it can have no mask")
    box = None if asked.get("box") is None else requests.box(asked["box"])
    points = requests.points(asked.get("points") or [], o.size)
    strokes = None
    if asked.get("subject") is not None or asked.get("background") is not None:
        drawn = [asked.get(name) for name in ("subject", "background")]
        strokes = tuple(None if runs is None else decode_runs(runs, o.size) for runs in drawn)
    if box is None and not points and strokes is None:
        raise UsageError("a mask needs a box, points or strokes")
    previous = asked.get("previous")
    if previous is not None:
        previous = requests.text(previous, "previous", _LONGEST_PREVIOUS)
    begun = time.perf_counter()
    try:
        found = model.propose(
            o.key,
            review.load(o),
            box=box,
            points=points,
            strokes=strokes,
            previous=previous,
            banner_rows=review.banner_rows(o),
        )
    except SegmenterLostError as error:
        raise SegmenterUnavailableError(str(error)) from error
    scores = [None if score is None else round(float(score), 4) for score in found.scores]
    return {
        "size": list(o.size),
        "masks": [{"runs": encode_runs(bits), "score": score} for bits, score in zip(found.masks, scores, strict=True)],
        "previous": found.previous,
        "ms": round(1000 * (time.perf_counter() - begun), 1),
    }
