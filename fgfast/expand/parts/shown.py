"""Rows, crops and the overview of a subject's parts, however they were found."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgfast.expand.kind import Subject, Table
from fgfast.io.encode import encode_grey, encode_png
from fgfast.ops import area_average
from fgfast.ops.geometry import mask_box
from fgfast.ops.parts import (
    NO_PART,
    PixelLabels,
    Window,
    coverage,
    cut_window,
    grid_of,
    middles,
    point_in,
    window_around,
)
from fgfast.records import Size, UInt8

CROPS, HEAT_MAPS, OVERVIEWS, PART_MAPS = "crops", "heat_maps", "overviews", "part_maps"
"""Folders of the expansion."""

PARTS = Table(
    "parts",
    {
        "part": "int32",
        "name": "string",
        "x": "float32",
        "y": "float32",
        "visible": "bool",
        "in_image": "bool",
        "in_mask": "bool",
        "share": "float32",
        **{f"crop_{edge}": "int32" for edge in ("x0", "y0", "x1", "y1")},
    },
)

# The overview is for eyes: its longer side in pixels, and how bright its background stays.
_LONGEST, _DIM = 480, 0.35
# Letters of a part's name in the name of its crop.
_MOST_LETTERS = 40


@dataclass(frozen=True, eq=False)
class Places:
    """Where the P parts of a subject are.

    Attributes:
        names: of the parts.
        points: (P, 2) float64 x y in pixels of the stored image; NaN for a part that is not visible.
        shares: (P,) float64, what of the subject belongs to each, 0..1; None where that is not known.
    """

    names: Sequence[str]
    points: NDArray[np.float64]
    shares: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Cropping:
    """How crops are cut.

    Attributes:
        share: side of the square, as a fraction of the longer side of the mask's box; 0 for no crops.
        background: "black" outside the mask, or "keep".
    """

    share: float
    background: str


def longer_side(subject: Subject) -> float:
    """Return the longer side of the box of a mask that is not empty, in pixels."""
    box = mask_box(subject.bits)
    assert box is not None
    return float(max(box[2] - box[0], box[3] - box[1]))


def file_name(number: int, name: str) -> str:
    """Return the name of a part's crop: its number, and what of its name any file system takes."""
    return f"{number:02d}_{re.sub(r'[^A-Za-z0-9]+', '_', name).strip('_')[:_MOST_LETTERS]}".rstrip("_") + ".png"


def rows_and_crops(
    subject: Subject, places: Places, cropping: Cropping
) -> tuple[list[Mapping[str, Any]], dict[tuple[str, str], bytes]]:
    """Return the rows of the table `PARTS`, and the crops as PNG files.

    A part that is not visible, or whose point is outside the image, has a row and no crop.
    """
    side = max(round(cropping.share * longer_side(subject)), 1)
    height, width = subject.bits.shape
    rows: list[Mapping[str, Any]] = []
    crops = {}
    for number, (name, (x, y)) in enumerate(zip(places.names, places.points.tolist(), strict=True), 1):
        visible = not math.isnan(x)
        inside = visible and 0 <= x < width and 0 <= y < height
        row: dict[str, Any] = {"part": number, "name": name, "visible": visible}
        row |= {"x": x if visible else None, "y": y if visible else None}
        row |= {"in_image": inside, "in_mask": inside and point_in(subject.bits, x, y)}
        row["share"] = None if places.shares is None else float(places.shares[number - 1])
        window = window_around(x, y, side) if inside and cropping.share else (None,) * 4
        row |= {f"crop_{edge}": at for edge, at in zip(("x0", "y0", "x1", "y1"), window, strict=True)}
        if window[0] is not None:
            crops[CROPS, file_name(number, name)] = encode_png(_crop(subject, window, cropping.background))
        rows.append(row)
    return rows, crops


def _crop(subject: Subject, window: Window, background: str) -> UInt8:
    """Return what a window shows of the image, or of the subject alone, (side, side, 3) uint8."""
    shown = cut_window(subject.pixels, window)
    if background == "black":
        shown *= cut_window(subject.bits[..., None].view(np.uint8), window)
    return shown


def stacked(maps: UInt8) -> bytes:
    """Encode (P, rows, columns) uint8 as one grey PNG, one map below the other."""
    return encode_grey(np.ascontiguousarray(maps.reshape(-1, maps.shape[2])))


def overview(subject: Subject, places: Places, labels: PixelLabels | None = None) -> bytes:
    """Draw the parts on the dimmed image, and return it as a PNG: a disc with its number for each point.

    Args:
        subject: the subject.
        places: the parts.
        labels: (H, W) int16, part of each pixel, or `NO_PART`: drawn as colours over the subject.
    """
    import cv2

    size = Size(*subject.bits.shape)
    grid = Size(*(min(pair) for pair in zip(grid_of(size, _LONGEST), size, strict=True)))
    canvas = area_average(np.ascontiguousarray(subject.pixels), grid)
    bits = coverage(subject.bits, grid) >= 128
    levels = (np.arange(256) * _DIM).astype(np.uint8)
    canvas = np.asarray(cv2.copyTo(canvas, bits.view(np.uint8), cv2.LUT(canvas, levels)), np.uint8)
    colours = palette(len(places.names))
    if labels is not None:
        rows, columns = middles(size, grid)
        own = labels[rows[:, None], columns]
        drawn = bits & (own != NO_PART)
        # The mean of the channels keeps the shape visible, and the hue to the parts.
        grey = (canvas.sum(axis=2, dtype=np.uint16) // 6).astype(np.uint8)
        tinted = cv2.merge([grey] * 3) + np.take(colours // 2, own, axis=0, mode="clip")
        canvas = np.asarray(cv2.copyTo(tinted, drawn.view(np.uint8), canvas), np.uint8)
    radius = max(round(max(grid) / 60), 3)
    scale = np.array([grid.width / size.width, grid.height / size.height])
    for number, (point, colour) in enumerate(zip(places.points * scale, colours.tolist(), strict=True), 1):
        if not np.isnan(point[0]) and (np.abs(point) < 1e5).all():
            at = (int(point[0]), int(point[1]))
            cv2.circle(canvas, at, radius + 1, (0, 0, 0), -1)
            cv2.circle(canvas, at, radius, colour, -1)
            corner = (at[0] + radius + 1, at[1] + radius)
            for thickness, ink in ((3, (0, 0, 0)), (1, (255, 255, 255))):
                cv2.putText(canvas, str(number), corner, cv2.FONT_HERSHEY_SIMPLEX, radius / 14, ink, thickness)
    return encode_png(canvas)


def palette(count: int) -> UInt8:
    """Return colours that are easily told apart, (count, 3) uint8 RGB: evenly spaced hues, alternately dark."""
    import cv2

    hue = np.arange(count) * (180 / max(count, 1))
    value = np.where(np.arange(count) % 2, 170, 255)
    hsv = np.stack([hue, np.full(count, 230), value], axis=-1).astype(np.uint8)
    return np.asarray(cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0], np.uint8)
