"""`outline_edges` and `mask_parts` by OpenCV, in whole numbers but for one root."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fgfast.records import Bool, UInt8

Int64 = NDArray[np.int64]

NEAR = 31
"""Pixels, the side of the square around each subject pixel with whose edges those of the outline are compared."""
LEVELS = 4
"""Steps per grey level in which edges are ranked; Sobel's kernel gives 4 for a difference of one grey level."""


def mask_parts(bits: Bool) -> tuple[Int64, int]:
    """Compute fgfast.ops.mask_parts."""
    import cv2

    image = np.ascontiguousarray(bits).view(np.uint8)
    if not bits.any():
        return np.zeros(0, np.int64), 0
    _, _, statistics, _ = cv2.connectedComponentsWithStats((image != 0).view(np.uint8), connectivity=8)
    # Around the mask one pixel of background, which touches all that leads to the border by sides.
    others = np.pad(image == 0, 1, constant_values=True).view(np.uint8)
    _, labels = cv2.connectedComponents(others, connectivity=4)
    enclosed = int(np.count_nonzero(others)) - int(np.count_nonzero(labels == labels[0, 0]))
    return np.sort(statistics[1:, cv2.CC_STAT_AREA].astype(np.int64))[::-1].copy(), enclosed


def outline_edges(lab: UInt8, bits: Bool, outline: Bool) -> tuple[Int64, Int64, int]:
    """Compute fgfast.ops.outline_edges."""
    import cv2

    lab, mask = np.ascontiguousarray(lab), np.ascontiguousarray(bits).view(np.uint8)
    across, down = (cv2.Sobel(lab, cv2.CV_16S, dx, 1 - dx).astype(np.float32) for dx in (1, 0))
    squared = cv2.transform(across * across + down * down, np.ones((1, 3), np.float32))  # at most 6.3e6: exact
    edges = cv2.dilate(squared, np.ones((3, 3), np.uint8))
    ranks = (np.sqrt(edges) * LEVELS).astype(np.int32)
    near = cv2.dilate(mask, np.ones((NEAR, NEAR), np.uint8)) != 0
    counts = np.bincount(ranks[near])
    upto = np.cumsum(counts)
    under = ranks[outline]
    return (upto - counts)[under], upto[under], int(np.count_nonzero(near))
