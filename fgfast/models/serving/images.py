"""Stored images to what models take: resized, in the rows of a slot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fgfast import ops
from fgfast.backends.slots import Lane, Slot
from fgfast.graphs import Port
from fgfast.records import UInt8

# (height, width) in pixels.
Size = tuple[int, int]


def resized(pixels: UInt8, size: Size, out: UInt8 | None = None, threads: int = 1) -> UInt8:
    """An image with Pillow's BILINEAR, which averages when it shrinks: by the native op, else by Pillow; equal bytes.

    Args:
        pixels: (H, W, 3) uint8.
        size: (h, w), pixels.
        out: (h, w, 3) uint8 to write into, perhaps a part of a larger image; None: a new one.
        threads: to work with at most.

    Returns:
        (h, w, 3) uint8: `out`, or the new one.
    """
    if ops.implementation() == "native":
        return ops.resize(pixels, size, out, threads)
    import numpy as np
    from PIL import Image

    made = np.array(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BILINEAR), np.uint8)
    if out is None:
        return made
    out[:] = made
    return out


class ImageSlot(Slot):
    """A slot of sessions that take `pixels` (B, H, W, 3) uint8 and `sizes` (B, 2) int64.

    Args:
        ports, sizes, lane: as Slot's.

    Attributes:
        canvas: (H, W), pixels.
        stored: height and width of the image in each row, as it is stored.
    """

    def __init__(self, ports: Sequence[Port], sizes: Mapping[str, int], lane: Lane) -> None:
        super().__init__(ports, sizes, lane)
        self._pixels, self._sizes = self.host["pixels"].numpy(), self.host["sizes"].numpy()
        self.canvas: Size = (self._pixels.shape[1], self._pixels.shape[2])
        # A row that was never filled is a black image of the canvas's own size.
        self._sizes[:] = self.canvas
        self._painted: list[Size] = [(0, 0)] * self.capacity
        self.stored: list[Size] = [self.canvas] * self.capacity

    def place(self, row: int, pixels: UInt8, size: Size, threads: int = 1) -> None:
        """Resize an image into a row; beyond it the row is black. Any thread, several rows at once.

        Args:
            row: of the slot.
            pixels: (H, W, 3) uint8 RGB.
            size: (h, w) after resizing, pixels, at most the canvas.
            threads: to work with at most.
        """
        (height, width), (old_height, old_width), target = size, self._painted[row], self._pixels[row]
        # Should resizing fail on the way, the row counts as painted all over.
        self._painted[row] = self.canvas
        resized(pixels, size, target[:height, :width], threads)
        # Only what the image before reached beyond this one.
        target[:height, width:old_width] = 0
        target[height:old_height, :old_width] = 0
        self._painted[row], self._sizes[row], self.stored[row] = size, size, (pixels.shape[0], pixels.shape[1])

    def size(self, row: int) -> Size:
        """(h, w) of the resized image in a row."""
        return int(self._sizes[row, 0]), int(self._sizes[row, 1])
