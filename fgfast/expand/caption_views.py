"""The images that a model is shown of a subject: cut out, cropped, whole."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from fgfast.ops.geometry import crop_window, mask_box
from fgfast.records import Bool, Size, UInt8

VIEWS = ("cut-out", "crop", "whole")
BACKGROUNDS: Mapping[str, int] = MappingProxyType({"white": 255, "grey": 128, "black": 0})
# Around the subject's box, as a fraction of its longer side: its outline is seen, and little else.
_PAD = 0.1


def view(name: str, pixels: UInt8, bits: Bool, longest: int, background: str) -> UInt8:
    """Return an image of a subject.

    Args:
        name: "whole" is the stored image; "crop" the subject's box with a tenth of its longer side around; "cut-out"
            the same window with one colour in place of the background, so that the two differ in nothing else.
        pixels: (H, W, 3) uint8 RGB.
        bits: (H, W) bool; True is subject, and there is one.
        longest: pixels of the longer side; larger images are shrunk by averages, smaller ones stay.
        background: of `BACKGROUNDS`.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    import cv2

    if name == "cut-out":
        pixels = np.where(bits[..., None], pixels, np.uint8(BACKGROUNDS[background]))
    if name != "whole":
        box = mask_box(bits)
        assert box is not None
        x0, y0, x1, y1 = crop_window(box, Size(*bits.shape), "box", _PAD)
        pixels = pixels[y0:y1, x0:x1]
    height, width = pixels.shape[:2]
    scale = longest / max(height, width)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(pixels)
