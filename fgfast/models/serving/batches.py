"""Models on slots (see fgfast.runner.SlotModel): images resized into the rows of a slot, sizes of batches, and what
detectors on canvases have in common.

`launch` does not wait for a GPU; on a CPU it computes. What was filled stays when a launch fails.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

from fgfast import ops
from fgfast.backends.slots import ComputeStream, Slot
from fgfast.graphs import Port
from fgfast.models.serving.canvases import Canvases
from fgfast.records import Detections, Image, Size, UInt8
from fgfast.runner import compute

Result = TypeVar("Result")

# Images per batch, where nobody says otherwise. On a GPU a starting point, to be measured: one image of 1024 x 1024
# is 4096 tokens, which fill its matrix units, but not in the decoder and the heads, where 1 to 256 boxes are the rows;
# and twice as many images need twice the memory. The runner halves a batch that does not fit.
GPU_BATCH = 4
# On a CPU a batch has nothing to hide: the cores are busy with one image, whose intermediate results fit in the
# caches better than those of two.
CPU_BATCH = 1


def default_batch(device: str | torch.device) -> int:
    """Images per batch on a device where nobody says otherwise."""
    return GPU_BATCH if torch.device(device).type == "cuda" else CPU_BATCH


def depth_of(device: str) -> int:
    """Batches queued on a device at a time: a GPU has its next one before it is through with the last."""
    return 2 if device.startswith("cuda") else 1


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
        ports, sizes, compute: see Slot.

    Attributes:
        canvas: (H, W), pixels.
        stored: height and width of the image in each row, as it is stored.
    """

    def __init__(self, ports: Sequence[Port], sizes: Mapping[str, int], compute: ComputeStream) -> None:
        super().__init__(ports, sizes, compute)
        self._pixels, self._sizes = self.host["pixels"].numpy(), self.host["sizes"].numpy()
        self.canvas = Size(self._pixels.shape[1], self._pixels.shape[2])
        # A row that was never filled is a black image of the canvas's own size.
        self._sizes[:] = self.canvas
        self._painted = [Size(0, 0)] * self.capacity
        self.stored = [self.canvas] * self.capacity

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
        self._painted[row], self._sizes[row], self.stored[row] = size, size, Size(*pixels.shape[:2])

    def size(self, row: int) -> Size:
        """(h, w) of the resized image in a row."""
        return Size(int(self._sizes[row, 0]), int(self._sizes[row, 1]))


class CanvasDetector(ABC, Generic[Result]):
    """A detector whose graph takes images on a canvas.

    Args:
        canvases: what computes the graph.

    Attributes:
        canvases: as above.
        device: "cpu", "cuda:0".
    """

    # Outputs of the graph that are read.
    outputs: tuple[str, ...] = ("boxes",)

    def __init__(self, canvases: Canvases) -> None:
        self.canvases = canvases
        self.device = str(torch.device(canvases.device))
        self._compute = ComputeStream(canvases.device)

    @property
    def batch(self) -> int:
        """The most images of any slot."""
        return self.canvases.batch

    @property
    def depth(self) -> int:
        """Batches queued on the device at a time: a GPU has its next one before it is through with the last."""
        return depth_of(self.device)

    @abstractmethod
    def resized_size(self, height: int, width: int) -> Size:
        """(h, w) that a stored image of this size is resized to, pixels."""

    @abstractmethod
    def _others(self, rows: int) -> dict[str, Tensor]:
        """What the graph takes beside images, for so many; on the device."""

    @abstractmethod
    def read(self, slot: ImageSlot, row: int) -> Detections:
        """What was found in the image of a row, after `wait`. Any thread."""

    @abstractmethod
    def _result(self, slot: ImageSlot, row: int) -> Result:
        """What was found in the image of a row; nothing in it is the slot's."""

    def bucket(self, image: Image, threads: int = 1) -> Size:
        """The canvas of an image: images of one canvas can share a batch."""
        return self.canvases.bucket(self.resized_size(*image.pixels.shape[:2]))

    def rows(self, bucket: Size) -> int:
        """Images that a slot of this canvas holds."""
        return int(self.canvases.contract(bucket).inputs[0].shape[0])

    def slot(self, bucket: Size) -> ImageSlot:
        """A new slot for images of this canvas.

        Raises:
            DeviceMemoryError: there is no memory for it.
        """
        images = self.canvases.contract(bucket).inputs[:2]
        return ImageSlot(images, {}, self._compute)

    def fill(self, slot: ImageSlot, row: int, image: Image, threads: int = 1) -> None:
        """Resize an image into a row. Any thread, several rows at once."""
        slot.place(row, image.pixels, self.resized_size(*image.pixels.shape[:2]), threads)

    def launch(self, slot: ImageSlot, rows: int) -> None:
        """Queue the first `rows` rows on the device. The device's one thread.

        Raises:
            DeviceMemoryError: they do not fit into the device's memory.
            DeviceFailedError: the device failed.
        """
        takes = self.canvases.takes(slot.canvas, rows)
        with self._compute.current(), torch.inference_mode():
            session = self.canvases.session(slot.canvas, rows)
            found = session.run({**slot.upload(takes), **self._others(takes)}, self._compute.stream)
            slot.download({name: found[name][:rows] for name in self.outputs})

    def shrink(self) -> None:
        """Go on with graphs for half as many images, where their shapes are fixed."""
        self._compute.synchronize()  # batches before this one are still in the sessions
        self.canvases.shrink()

    def wait(self, slot: ImageSlot) -> None:
        """Return when the results of a slot can be read; errors are those of `launch`."""
        slot.wait()

    def _each(self, images: list[Image]) -> list[Result]:
        """Results of images, in their order, each as if it were alone."""
        found: dict[int, Result] = {}
        for canvas, places in self.canvases.spread([self.resized_size(*i.pixels.shape[:2]) for i in images]):
            slot = self._slot_for(canvas, len(places))
            for row, place in enumerate(places):
                self.fill(slot, row, images[place], torch.get_num_threads())
            compute(self, slot, len(places))
            found |= {place: self._result(slot, row) for row, place in enumerate(places)}
        return [found[place] for place in range(len(images))]

    def _slot_for(self, canvas: Size, rows: int) -> ImageSlot:
        images = self.canvases.session(canvas, rows).contract.inputs[:2]
        return ImageSlot(images, {}, self._compute)
