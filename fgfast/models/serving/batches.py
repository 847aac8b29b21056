"""Models on slots (see fgfast.runner.SlotModel): images resized into rows, sizes of batches, detectors on canvases.

`launch` does not wait for a GPU; on a CPU it computes. Filled rows remain when a launch fails.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor

from fgfast import ops
from fgfast.backends.slots import ComputeStream, Slot, translated
from fgfast.errors import ImageRefusedError, NotFiniteError
from fgfast.graphs import Port
from fgfast.models.serving.canvases import Canvases
from fgfast.records import Detections, Image, Size, UInt8

# Before the name of an output: whether it is finite.
FINITE = "finite "
# Default images per batch. On a GPU a starting point, to be measured: one image of 1024 x 1024 is 4096 tokens, which
# fill its matrix units, but not in the decoder and the heads, where 1 to 256 boxes are the rows; and twice as many
# images need twice the memory. The runner halves a batch that does not fit.
GPU_BATCH = 4
# On a CPU a batch hides no latency: the cores are busy with one image, whose intermediate results fit in the caches
# better than those of two.
CPU_BATCH = 1


def default_batch(device: str | torch.device) -> int:
    """Return the default number of images per batch on a device."""
    return GPU_BATCH if torch.device(device).type == "cuda" else CPU_BATCH


def depth_of(device: str) -> int:
    """Return the number of batches queued on a device: a GPU gets its next one before it has finished the last."""
    return 2 if device.startswith("cuda") else 1


def resized(pixels: UInt8, size: Size, out: UInt8 | None = None, threads: int = 1) -> UInt8:
    """Resize an image with Pillow's BILINEAR, which averages when it shrinks: by the native op, else by Pillow itself.

    Args:
        pixels: (H, W, 3) uint8.
        size: (h, w), pixels.
        out: (h, w, 3) uint8 to write into, possibly a part of a larger image; None allocates a new one.
        threads: maximum number of threads.

    Returns:
        (h, w, 3) uint8: `out`, or the new image.
    """
    if ops.implementation() == "native":
        return ops.resize(pixels, size, out, threads)
    image = np.array(Pillow.fromarray(pixels).resize(size[::-1], Pillow.Resampling.BILINEAR), np.uint8)
    if out is None:
        return image
    out[:] = image
    return out


def visible(size: Size, stored: Size, model: str) -> Size:
    """Return the size of a resized image, in pixels.

    Args:
        size: as the model's rule gives it; rounding leaves nothing of the shorter side of a very thin image.
        stored: of the image.
        model: its name in the error.

    Raises:
        ImageRefusedError: no pixel is left.
    """
    if min(size) < 1:
        raise ImageRefusedError(
            "too thin",
            f"nothing is left of an image of {stored.width}x{stored.height} pixels when {model} resizes it to "
            f"{size.width}x{size.height}; crop it, or use a method without a neural network",
        )
    return size


def finite_rows(outputs: Mapping[str, Tensor], masked: Collection[str] = ()) -> dict[str, Tensor]:
    """Return which rows hold only finite numbers: one reduction per output, on its device, without waiting for it.

    Args:
        outputs: name -> (B, ...) floating-point.
        masked: outputs in which -inf is regular, because it stands for padding.

    Returns:
        `FINITE` + name -> (B,) bool.
    """
    found = {}
    for name, output in outputs.items():
        low, high = output.flatten(1).aminmax(dim=1)  # NaN wins both
        found[FINITE + name] = (high < math.inf) & (True if name in masked else low > -math.inf)
    return found


class ImageSlot(Slot):
    """A slot of sessions that take `pixels` (B, H, W, 3) uint8 and `sizes` (B, 2) int64.

    Args:
        ports, sizes, compute: see Slot.

    Attributes:
        canvas: (H, W), pixels.
        stored: stored height and width of the image in each row.
    """

    def __init__(self, ports: Sequence[Port], sizes: Mapping[str, int], compute: ComputeStream) -> None:
        super().__init__(ports, sizes, compute)
        self._pixels, self._sizes = self.host["pixels"].numpy(), self.host["sizes"].numpy()
        self.canvas = Size(self._pixels.shape[1], self._pixels.shape[2])
        # A row that was never filled is a black image of the canvas's size.
        self._sizes[:] = self.canvas
        self._painted = [Size(0, 0)] * self.capacity
        self.stored = [self.canvas] * self.capacity

    def place(self, row: int, pixels: UInt8, size: Size, threads: int = 1) -> None:
        """Resize an image into a row; beyond it the row is black. Any thread, several rows in parallel.

        Args:
            row: of the slot.
            pixels: (H, W, 3) uint8 RGB.
            size: (h, w) after resizing, pixels, at most the canvas.
            threads: maximum number of threads.
        """
        (height, width), (old_height, old_width), target = size, self._painted[row], self._pixels[row]
        # Should resizing fail, the whole row counts as painted.
        self._painted[row] = self.canvas
        resized(pixels, size, target[:height, :width], threads)
        # Only where the previous image exceeded this one.
        target[:height, width:old_width] = 0
        target[height:old_height, :old_width] = 0
        self._painted[row], self._sizes[row], self.stored[row] = size, size, Size(*pixels.shape[:2])

    def check(self, row: int) -> None:
        """Raise NotFiniteError if outputs of a row are not finite, by the results of `finite_rows`."""
        names = [name for name in self.results if name.startswith(FINITE)]
        if bad := [name.removeprefix(FINITE) for name in names if not self.results[name][row]]:
            raise NotFiniteError(bad)

    def size(self, row: int) -> Size:
        """(h, w) of the resized image in a row."""
        return Size(int(self._sizes[row, 0]), int(self._sizes[row, 1]))


class CanvasDetector(ABC):
    """A detector whose graph takes images on a canvas.

    Args:
        canvases: sessions of the graph.

    Attributes:
        title: its name in errors.
        canvases: as above.
        device: "cpu", "cuda:0".
        depth: batches queued on the device at a time.
    """

    title: str
    # Outputs of the graph that are read, and those in which -inf stands for padding.
    outputs: tuple[str, ...] = ("boxes",)
    masked: tuple[str, ...] = ()

    def __init__(self, canvases: Canvases) -> None:
        self.canvases = canvases
        self.device = str(torch.device(canvases.device))
        self.depth = depth_of(self.device)
        self._compute = ComputeStream(canvases.device)

    @property
    def batch(self) -> int:
        """The largest number of images per slot."""
        return self.canvases.batch

    @property
    def buckets(self) -> int:
        """The number of canvases among which images are spread."""
        return self.canvases.buckets

    @abstractmethod
    def resized_size(self, height: int, width: int) -> Size:
        """Return (h, w), pixels, of a stored image of this size after resizing."""

    @abstractmethod
    def detections(self, slot: ImageSlot, row: int) -> Detections:
        """Return the detections of the image in a row, best first; see `read`."""

    @abstractmethod
    def _others(self, rows: int) -> dict[str, Tensor]:
        """Return the graph's other inputs for this number of images, on the device."""

    def bucket(self, image: Image) -> Size:
        """Return the canvas of an image: images on one canvas can share a batch."""
        return self.canvases.bucket(self._visible_size(image))

    def rows(self, bucket: Size) -> int:
        """Return the number of images per slot of this canvas."""
        return int(self.canvases.contract(bucket).inputs[0].shape[0])

    def slot(self, bucket: Size) -> ImageSlot:
        """Return a new slot for images on this canvas.

        Raises:
            DeviceMemoryError: there is not enough memory.
        """
        images = self.canvases.contract(bucket).inputs[:2]
        return ImageSlot(images, {}, self._compute)

    def fill(self, slot: ImageSlot, row: int, image: Image) -> None:
        """Resize an image into a row. Any thread, several rows in parallel."""
        slot.place(row, image.pixels, self._visible_size(image))

    def _visible_size(self, image: Image) -> Size:
        return visible(self.resized_size(*image.size), image.size, self.title)

    def launch(self, slot: ImageSlot, rows: int) -> None:
        """Queue the first `rows` rows on the device. The device's own thread.

        Raises:
            DeviceMemoryError: they do not fit into the device's memory.
            DeviceFailedError: the device failed.
        """
        takes = self.canvases.takes(slot.canvas, rows)
        with self._compute.current(), torch.inference_mode():
            session = self.canvases.session(slot.canvas, rows)
            found = session.run({**slot.upload(takes), **self._others(takes)}, self._compute.stream)
            outputs = {name: found[name][:rows] for name in self.outputs}
            slot.download(outputs | finite_rows(outputs, self.masked))

    def shrink(self) -> None:
        """Replace graphs of fixed shapes by those for half as many images."""
        self._compute.synchronize()  # earlier batches are still in the sessions
        with translated(self.device):
            self.canvases.shrink()

    def wait(self, slot: ImageSlot) -> None:
        """Block until the results of a slot can be read; the errors are those of `launch`."""
        slot.wait()

    def read(self, slot: ImageSlot, row: int) -> Detections:
        """Return the detections of the image in a row, best first, after `wait`; they share no memory. Any thread.

        Raises:
            NotFiniteError: the graph's outputs for the image are not finite.
        """
        slot.check(row)
        return self.detections(slot, row)
