"""Models that work on batches in slots, and what detectors on canvases have in common.

Such a model says which images can share a batch (`bucket`) and how many (`rows`), and makes a `slot` for them. Any
thread may `fill` its rows, the one thread of its device `launch`es it, then comes `wait`, and any thread may `read`.
`launch` does not wait for a GPU; on a CPU it computes. What was filled stays when a launch fails.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

from fgfast.backends.slots import Lane, translated
from fgfast.errors import DeviceMemoryError
from fgfast.models.serving.canvases import Canvases, Size
from fgfast.models.serving.images import ImageSlot
from fgfast.records import Image

Result = TypeVar("Result")

# Images per batch, where nobody says otherwise. On a GPU a starting point, to be measured: one image of 1024 x 1024
# is 4096 tokens, which fill its matrix units, but not in the decoder and the heads, where 1 to 256 boxes are the rows;
# and twice as many images need twice the memory. A batch that does not fit is halved by whoever launches it.
GPU_BATCH = 4
# On a CPU a batch has nothing to hide: the cores are busy with one image, whose intermediate results fit in the
# caches better than those of two.
CPU_BATCH = 1


def default_batch(device: str | torch.device) -> int:
    """Images per batch on a device where nobody says otherwise."""
    return GPU_BATCH if torch.device(device).type == "cuda" else CPU_BATCH


def run_or_shrink(lane: Lane, run: Callable[[], None], shrink: Callable[[], None]) -> None:
    """Launch something; where the device lacks the memory, close what was too large before that is said.

    Args:
        lane: that computes it.
        run: queues it.
        shrink: makes graphs of fixed shape smaller, so that a smaller batch is less work for them.

    Raises:
        DeviceMemoryError, DeviceFailedError: see `translated`.
    """
    try:
        with translated(lane.device), torch.cuda.stream(lane.stream):
            run()
        return
    except DeviceMemoryError as error:
        short = error
    with translated(lane.device):
        if lane.stream is not None:
            lane.stream.synchronize()  # batches before this one are still in the sessions
        shrink()
    raise short


def refuse_more(takes: int, rows: int, device: str) -> None:
    """Raise DeviceMemoryError where a graph takes fewer images than a batch has: it was made smaller meanwhile."""
    if takes < rows:
        raise DeviceMemoryError(
            f"{device} has not enough memory for {rows} images at once, as an earlier batch showed; take {takes}"
        )


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
        self._lane = Lane(canvases.device)

    @property
    def batch(self) -> int:
        """Most images of any slot."""
        return self.canvases.batch

    @abstractmethod
    def resized_size(self, height: int, width: int) -> Size:
        """(h, w) that a stored image of this size is resized to, pixels."""

    @abstractmethod
    def _others(self, rows: int) -> dict[str, Tensor]:
        """What the graph takes beside images, for so many; on the device."""

    @abstractmethod
    def _result(self, slot: ImageSlot, row: int) -> Result:
        """What was found in the image of a row; nothing in it is the slot's."""

    def bucket(self, image: Image) -> Size:
        """The canvas of an image: those of one canvas can share a batch. Quick, any thread."""
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
        return ImageSlot(images, {}, self._lane)

    def fill(self, slot: ImageSlot, row: int, image: Image, threads: int = 1) -> None:
        """Resize an image into a row. Any thread, several rows at once."""
        slot.place(row, image.pixels, self.resized_size(*image.pixels.shape[:2]), threads)

    def launch(self, slot: ImageSlot, rows: int) -> None:
        """Queue the first `rows` rows on the device. Its one thread.

        Raises:
            DeviceMemoryError: they do not fit into the device's memory, nor did as many before.
            DeviceFailedError: the device failed.
        """
        takes = self.canvases.takes(slot.canvas, rows)
        refuse_more(takes, rows, self.device)
        run_or_shrink(self._lane, lambda: self._queue(slot, rows, takes), self.canvases.shrink)

    @torch.inference_mode()
    def _queue(self, slot: ImageSlot, rows: int, takes: int) -> None:
        session = self.canvases.session(slot.canvas, rows)
        found = session.run({**slot.upload(takes), **self._others(takes)}, self._lane.stream)
        slot.download({name: found[name][:rows] for name in self.outputs})

    def wait(self, slot: ImageSlot) -> None:
        """Until the results of a slot can be read; errors as for `launch`."""
        slot.wait()

    def _each(self, images: list[Image]) -> list[Result]:
        """Results of images at hand, in their order, each as if it were alone."""
        found: dict[int, Result] = {}
        for canvas, places in self.canvases.spread([self.resized_size(*i.pixels.shape[:2]) for i in images]):
            slot = self._slot_for(canvas, len(places))
            for row, place in enumerate(places):
                self.fill(slot, row, images[place], torch.get_num_threads())
            self.launch(slot, len(places))
            self.wait(slot)
            found |= {place: self._result(slot, row) for row, place in enumerate(places)}
        return [found[place] for place in range(len(images))]

    def _slot_for(self, canvas: Size, rows: int) -> ImageSlot:
        images = self.canvases.session(canvas, rows).contract.inputs[:2]
        return ImageSlot(images, {}, self._lane)
