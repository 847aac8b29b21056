"""How far a mask is from what a data set says about its subject: the annotated box, keypoints, an official mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fgfast.ops.geometry import mask_box
from fgfast.ops.overlap import iou
from fgfast.records import Bool, Float32

# Keypoints are clicked at joints and tips, which lie on the outline as often as inside it: so far from the mask, as a
# fraction of the square root of its area, and at least so many pixels, a point still counts as inside.
_NEAR, _NEAR_PIXELS = 0.05, 3


def sides_off(bits: Bool, boxes: Float32) -> tuple[float, float]:
    """Return how far a mask reaches beyond a side of the annotated box, and how far it stays short of one.

    Each is the largest of the four, as a fraction of the box's width or height, at least 0. A ring of background or a
    part that is cut off moves single sides, which the IoU of the boxes hardly shows. For an empty mask, (0, 1).

    Args:
        bits: (H, W) bool; True is subject.
        boxes: (4,) or (N, 4) float32, N at least 1, in pixels; of several, that with the largest IoU is meant.
    """
    tight = mask_box(bits)
    if tight is None:
        return 0.0, 1.0
    nearest = boxes.reshape(-1, 4)[int(_overlaps(tight, boxes).argmax())].astype(np.float64)
    length = np.maximum(np.tile(nearest[2:] - nearest[:2], 2), 1.0)
    beyond = (tight - nearest) * (-1, -1, 1, 1) / length
    return max(float(beyond.max()), 0.0), max(float(-beyond.min()), 0.0)


def mask_distance(bits: Bool, official: Bool) -> float:
    """Return 1 - IoU of a mask and the official one, (H, W) bool each; 1 where one of them is empty."""
    return 1 - iou(bits, official) if bits.any() and official.any() else 1.0


def box_distance(bits: Bool, boxes: Float32) -> float:
    """Return 1 - IoU of the mask's box and the annotated box, the nearest one of several; 1 for an empty mask.

    Args:
        bits: (H, W) bool; True is subject.
        boxes: (4,) or (N, 4) float32, N at least 1, in pixels.
    """
    tight = mask_box(bits)
    if tight is None:
        return 1.0
    return float(1 - _overlaps(tight, boxes).max())


def _overlaps(tight: Float32, boxes: Float32) -> NDArray[np.float64]:
    """Return the IoU of a box with each of several."""
    boxes = boxes.reshape(-1, 4).astype(np.float64)
    sides = np.minimum(boxes[:, 2:], tight[2:]) - np.maximum(boxes[:, :2], tight[:2])
    both = np.clip(sides, 0, None).prod(axis=1)
    union = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1) + float(np.prod(tight[2:] - tight[:2])) - both
    overlaps: NDArray[np.float64] = both / union
    return overlaps


def keypoints_outside(bits: Bool, points: Float32) -> float | None:
    """Return the fraction of the keypoints that lie outside the mask; None where none is in the image.

    Args:
        bits: (H, W) bool; True is subject.
        points: (N, 2) float32 x y, in pixels.
    """
    import cv2

    height, width = bits.shape
    at = np.floor(points).astype(np.int64)
    at = at[((at >= 0) & (at < (width, height))).all(axis=1)]
    if not len(at):
        return None
    near = max(_NEAR_PIXELS, round(_NEAR * float(np.sqrt(np.count_nonzero(bits)))))
    # Only what is around a point is looked at: a dilation of the whole mask costs milliseconds.
    outside = 0
    for x, y in at.tolist():
        left, top = max(x - near, 0), max(y - near, 0)
        window = np.ascontiguousarray(bits[top : y + near + 1, left : x + near + 1]).view(np.uint8)
        if window[y - top, x - left]:
            continue
        spots = cv2.findNonZero(window)
        gaps = None if spots is None else spots.reshape(-1, 2) - (x - left, y - top)
        outside += gaps is None or float((gaps**2).sum(axis=1).min()) > near * near
    return outside / len(at)
