"""Sheets of maps side by side, in Fig. 1's form: the same images, the maps of one model below those of another."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgfast.errors import DatasetError
from fgfast.files import read_regular
from fgfast.io.encode import encode
from fgfast.records import UInt8
from fgfast.studies.gradcam_look import TILE
from fgfast.studies.tables import clean

_MOST_BYTES = 1 << 26
_QUALITY = 82
# How much of a map's colour covers the grey image: where it is zero, and where it is highest.
_COVER = (0.0, 0.8)
_DARK, _LIGHT = (0, 0, 0), (255, 255, 255)


@dataclass(frozen=True, slots=True, eq=False)
class Sheet:
    """Images as a model sees them, and its raw maps.

    Attributes:
        pixels: (N, h, w, 3) uint8 RGB.
        masks: (N, h, w) uint8, the share of subject, 0..255.
        maps: (N, a, b) float32, not negative.
    """

    pixels: UInt8
    masks: UInt8
    maps: NDArray[np.float32]


def read_sheet(path: Path, count: int) -> Sheet:
    """Read sheet.safetensors of so many images.

    Raises:
        DatasetError: it is damaged, or something else.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        found = load(read_regular(path, _MOST_BYTES))
        sheet = Sheet(found["pixels"], found["masks"], found["maps"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DatasetError(path, f"is no sheet of maps: {error}") from error
    pixels, masks, maps = sheet.pixels, sheet.masks, sheet.maps
    kinds = [(one.dtype.name, one.ndim, len(one)) for one in (pixels, masks, maps) if one.ndim]
    if kinds != [("uint8", 4, count), ("uint8", 3, count), ("float32", 3, count)]:
        raise DatasetError(path, f"is no sheet of {count} images: {kinds}")
    fine = pixels.shape == (*masks.shape, 3) and 0 < max(masks.shape[1:]) <= TILE and min(maps.shape[1:]) > 0
    if not fine or max(maps.shape[1:]) > TILE * TILE or not (np.isfinite(maps).all() and (maps >= 0).all()):
        raise DatasetError(path, "is no sheet of maps: sizes differ, or a value is no number or negative")
    return sheet


def tile(pixels: UInt8, mask: UInt8, found: NDArray[np.float32] | None = None) -> UInt8:
    """Draw an image with its mask's outline; with a map, the image is grey and the map lies over it.

    Args:
        pixels: (h, w, 3) uint8 RGB.
        mask: (h, w) uint8, 0..255.
        found: (a, b) float32, not negative; its colours run from 0 to its own highest value.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    import cv2

    drawn: UInt8 = np.ascontiguousarray(pixels)
    if found is not None:
        height, width = mask.shape
        large = cv2.resize(np.ascontiguousarray(found), (width, height), interpolation=cv2.INTER_LINEAR)
        top = float(large.max())
        share = large / top if top > 0 else np.zeros_like(large)
        colours = cv2.applyColorMap(np.asarray(255 * share + 0.5, np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
        grey = cv2.cvtColor(drawn, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
        cover = _COVER[0] + (_COVER[1] - _COVER[0]) * share[..., None]
        drawn = np.ascontiguousarray((1 - cover) * grey + cover * colours + 0.5, np.uint8)
    drawn = np.array(drawn, np.uint8)
    outlines, _ = cv2.findContours(np.asarray(mask > 127, np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    for colour, width in ((_DARK, 3), (_LIGHT, 1)):
        cv2.drawContours(drawn, outlines, -1, colour, width)
    return drawn


def uri(pixels: UInt8) -> str:
    """Return an image, (h, w, 3) uint8 RGB, as a data URI of a WebP."""
    return "data:image/webp;base64," + base64.b64encode(encode(pixels, ".webp", _QUALITY)).decode()


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a sheet: a title, data URIs of its tiles, and what is written below each."""

    title: str
    tiles: Sequence[str]
    below: Sequence[str]


def section(title: str, note: str, lines: Sequence[Line]) -> str:
    """Return a sheet as HTML; every text is escaped."""
    cells = []
    for line in lines:
        cells.append(f"<h3>{_text(line.title)}</h3>")
        for one, below in zip(line.tiles, line.below, strict=True):
            cells.append(f'<figure><img src="{one}" alt=""><figcaption>{_text(below)}</figcaption></figure>')
    body = f'<p class="soft">{_text(note)}</p><div class="wide"><div class="tiles">{"".join(cells)}</div></div>'
    return f'<section class="sheet"><h2>{_text(title)}</h2>{body}</section>'


def _text(text: str) -> str:
    return escape(clean(text))
