"""The choice of the box that prompts the segmenter, by fixed rules."""

from __future__ import annotations

import numpy as np

from fgfast.records import Detections, Float32, OtherBox, Prompt, Sample, Size, plain

Corners = tuple[float, float, float, float]

# Boxes thinner than this, in pixels, after clipping to the image are not used.
_MIN_BOX_SIDE = 1.0
# IoU from which a detection agrees with an annotated box (the usual threshold of PASCAL VOC).
_AGREEMENT = 0.5
# Number of boxes that were not chosen but are kept for review.
_RUNNERS_UP = 5
# Without a usable box the image less a tenth on every side is used, because photographs are usually centred.
_CENTER_MARGIN = 0.1


def center_box(size: Size, banner_rows: int = 0) -> Float32:
    """Return the image less its banner and a tenth on every side, (4,) float32."""
    width, height = size.width, max(1, size.height - banner_rows)
    x, y = width * _CENTER_MARGIN, height * _CENTER_MARGIN
    return np.array([x, y, width - x, height - y], np.float32)


def choose_prompt(
    detections: Detections, sample: Sample, size: Size, right: frozenset[str] = frozenset()
) -> tuple[Prompt, str, tuple[OtherBox, ...]]:
    """Choose the segmenter's box; return the prompt, a flag ("" for none), and the runners-up.

    Right names precede others (`right` holds them in the form of `fgfast.records.plain`; empty: all are right), boxes
    that agree with an annotated one precede those that do not, higher scores precede lower ones, larger boxes smaller
    ones, earlier ones later ones. If no box is usable, the largest annotated one is used, flagged "not detected";
    without one, the centre of the image, flagged "no box".
    """
    boxes = _usable(detections.boxes, size)
    annotated = _usable(sample.boxes, size)
    if not boxes and annotated:
        box = max(annotated.values(), key=_area)
        prompt = Prompt(np.array(box, np.float32), "nothing was detected; the annotated box is used instead")
        return prompt, "not detected", ()
    if not boxes:
        count = len(detections.boxes)
        found = f"none of {count} boxes is inside the image" if count else "no box was found"
        why = f"{found}; the centre of the image is used instead"
        prompt = Prompt(center_box(size, sample.banner_rows), why, guess=True)
        return prompt, "no box", ()

    def rank(n: int) -> tuple[bool, bool, float, float, int]:
        is_right = not right or plain(detections.labels[n]) in right
        agrees = any(_overlap(boxes[n], box) >= _AGREEMENT for box in annotated.values())
        return is_right, agrees, float(detections.scores[n]), _area(boxes[n]), -n

    best, *rest = sorted(boxes, key=rank, reverse=True)
    reason = detections.labels[best]
    if len(boxes) > 1:
        reason += f", the best of {len(boxes)}"
    flag = "" if rank(best)[0] else "other class"
    others = tuple((*boxes[n], float(detections.scores[n]), detections.labels[n]) for n in rest[:_RUNNERS_UP])
    score, name = float(detections.scores[best]), detections.labels[best]
    return Prompt(np.array(boxes[best], np.float32), reason, score, name, detections.guess), flag, others


def detection_numbers(prompt: Prompt, others: tuple[OtherBox, ...], right: frozenset[str]) -> dict[str, float]:
    """Return the numbers that speak against a detected box, 0..1; none where nothing was detected.

    "low score": 1 - the box's score. "close runner-up": the best score of another box of the same subject, as a part
    of it. "not the subject": 1 where the box's name is not right, absent where all names are.
    """
    if prompt.score is None:
        return {}

    def is_right(name: str) -> bool:
        return not right or plain(name) in right

    mine = is_right(prompt.name)
    second = max((score for *_, score, name in others if is_right(name) == mine), default=0.0)
    close = min(second / prompt.score, 1.0) if prompt.score > 0 else float(second > 0)
    numbers = {"low score": min(max(1 - prompt.score, 0.0), 1.0), "close runner-up": close}
    return numbers | ({"not the subject": float(not mine)} if right else {})


def _usable(boxes: Float32, size: Size) -> dict[int, Corners]:
    """Clip boxes to the image; return number -> box of those that are not too thin.

    The coordinates are plain floats, because NumPy is slow on so few.
    """
    height, width = map(float, size)
    clipped = {
        n: (max(x0, 0.0), max(y0, 0.0), min(x1, width), min(y1, height))
        for n, (x0, y0, x1, y1) in enumerate(boxes.tolist())
    }
    return {n: b for n, b in clipped.items() if min(b[2] - b[0], b[3] - b[1]) >= _MIN_BOX_SIDE}


def _area(box: Corners) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _overlap(a: Corners, b: Corners) -> float:
    """Intersection over union."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (_area(a) + _area(b) - shared)
