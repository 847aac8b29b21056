"""Models that sleep: Detic and SAM as a device would run them, without their arithmetic.

Rows are filled and read as the real models fill and read them, into buffers of the real sizes. Only what a device
computes is replaced by sleep: `launch` returns at once, `wait` sleeps until the device, which serves one batch after
the other, would be through. The outputs are the same for every image.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fgfast.bench.simulate_images import canvases
from fgfast.records import Detections, Float32, Image, Size
from fgfast.runner import BatchedStage
from fgfast.runner.batching import Ring

# Of one GPU: batches queued at a time and images per batch, as `fgfast convert` has them (models/serving/batches.py).
DEPTH, BATCH = 2, 4
# Side of SAM's low-resolution logits; classes of a vocabulary of one name, with the background.
_LOW_RES, _CLASSES = 256, 2


class SleepingDevice:
    """A device that serves one batch after the other.

    Args:
        worker: the name of its worker.
    """

    def __init__(self, worker: str) -> None:
        self.worker = worker
        self._free = 0.0
        self._lock = threading.Lock()

    def queue(self, seconds: float) -> tuple[float, float]:
        """Queue work; return the time.monotonic() at which it begins and ends."""
        with self._lock:
            start = max(time.monotonic(), self._free)
            self._free = start + seconds
            return start, self._free


class Timed(NamedTuple):
    """The result of a row, with the time in which the device computed its batch.

    Attributes:
        value: what the model gives.
        worker: the worker that the device belongs to.
        start, end: of the batch on the device, time.monotonic().
    """

    value: Any
    worker: str
    start: float
    end: float


class SleepingSlot:
    """The slot of a sleeping model: the real one's buffers, and the time of the batch in it.

    Attributes:
        rows: the real slot; None where rows are not filled.
        span: start and end of the batch on the device.
    """

    def __init__(self, rows: Any) -> None:
        self.rows = rows
        self.span = (0.0, 0.0)


class SleepingModel:
    """A model on slots (fgfast.runner.SlotModel) that sleeps; neither fills nor reads rows.

    Args:
        device: the device it runs on.
        seconds: per image, on any canvas.
        late: seconds by which a sleep ends late; see SimulatedCpu.
        canvases: size of an image -> its canvas, where images on different ones do not share a batch.

    Attributes:
        buckets: the number of canvases.
    """

    depth, batch, device = DEPTH, BATCH, "simulated"

    def __init__(
        self, device: SleepingDevice, seconds: float, late: float = 0.0, canvases: Mapping[Size, Size] | None = None
    ) -> None:
        self._on, self._seconds, self._late = device, seconds, late
        self._canvases = canvases or {}
        self.buckets = max(1, len(set(self._canvases.values())))

    def bucket(self, image: Image, *inputs: Any) -> Size | None:
        """Return the canvas of an image; None where all images share batches."""
        return self._canvases[image.size] if self._canvases else None

    def rows(self, bucket: Any) -> int:
        """Return the number of images per slot."""
        return self.batch

    def slot(self, bucket: Any) -> SleepingSlot:
        """Return a new slot."""
        return SleepingSlot(None)

    def fill(self, slot: SleepingSlot, row: int, *inputs: Any) -> None:
        """Do nothing."""

    def launch(self, slot: SleepingSlot, rows: int) -> None:
        """Queue the first `rows` rows on the device."""
        slot.span = self._on.queue(rows * self._seconds)

    def wait(self, slot: SleepingSlot) -> None:
        """Sleep until the device is through."""
        time.sleep(max(0.0, slot.span[1] - time.monotonic() - self._late))

    def read(self, slot: SleepingSlot, row: int) -> Timed:
        """Return the time of the batch."""
        return Timed(None, self._on.worker, *slot.span)

    def shrink(self) -> None:
        """Do nothing: memory is never short."""


def most_in_flight(threads: int) -> int:
    """Return the most images in flight in a worker that does everything: one per thread, and one per place in a batch.

    Args:
        threads: of its pool.
    """
    models = (SleepingModel(SleepingDevice(""), 0.0, canvases=own) for own in (canvases(), None))
    stages: list[BatchedStage[Any]] = [BatchedStage("", model, lambda work: (), lambda *_: None) for model in models]
    return threads + sum(Ring(stage, 0.0).rows for stage in stages)


class SleepingDetic(SleepingModel):
    """Detic that fills and reads its rows, and sleeps in between. It finds one box, the same in every image."""

    def __init__(self, device: SleepingDevice, seconds: float, late: float = 0.0) -> None:
        super().__init__(device, seconds, late, canvases())
        import torch

        from fgfast.models.detic.config import SWIN_B

        generator = torch.Generator().manual_seed(0)
        corners = torch.rand((SWIN_B.proposals, 2), generator=generator) * 300
        self._boxes = torch.cat((corners, corners + 200), dim=1)
        self._scores = torch.rand((SWIN_B.proposals, _CLASSES), generator=generator) * 0.4
        self._scores[0, 0] = 0.9

    def slot(self, bucket: Size) -> SleepingSlot:
        """Return a new slot with rows of a canvas."""
        from fgfast.backends.slots import ComputeStream
        from fgfast.graphs import detic_detector
        from fgfast.models.detic.config import SWIN_B
        from fgfast.models.serving.batches import ImageSlot

        ports = detic_detector(bucket, self.batch, SWIN_B.proposals).inputs[:2]
        return SleepingSlot(ImageSlot(ports, {}, ComputeStream("cpu")))

    def fill(self, slot: SleepingSlot, row: int, image: Image) -> None:
        """Resize an image into a row."""
        from fgfast.models.detic.config import SWIN_B
        from fgfast.models.detic.transform import resized_size

        size = resized_size(*image.size, SWIN_B.shorter_edge, SWIN_B.longest_edge)
        slot.rows.place(row, image.pixels, size)

    def read(self, slot: SleepingSlot, row: int) -> Timed:
        """Select the detections of a row."""
        from fgfast.models.detic.transform import Selection, select, to_stored

        size = slot.rows.size(row)
        chosen = select(self._boxes, self._scores, size, Selection())
        found = to_stored(chosen, size, slot.rows.stored[row])
        names = ("subject",) * len(found.scores)
        detections = Detections(found.boxes.numpy(), found.scores.numpy(), names)
        return Timed(detections, self._on.worker, *slot.span)


class SleepingSam(SleepingModel):
    """SAM that fills and reads its rows, and sleeps in between. Every mask is the same ellipse."""

    def __init__(self, device: SleepingDevice, seconds: float, late: float = 0.0) -> None:
        super().__init__(device, seconds, late)
        y, x = np.mgrid[-1 : 1 : _LOW_RES * 1j, -1 : 1 : _LOW_RES * 1j]
        self._logits = (10 * (0.4 - (x + 0.3) ** 2 - (y + 0.4) ** 2)).astype(np.float32)[None]

    def slot(self, bucket: None) -> SleepingSlot:
        """Return a new slot with rows of SAM's square."""
        from fgfast.backends.slots import ComputeStream
        from fgfast.graphs import sam_image_encoder
        from fgfast.models.sam.architecture import ARCHITECTURES
        from fgfast.models.serving.batches import ImageSlot

        ports = sam_image_encoder(ARCHITECTURES["vit_l"].side, self.batch).inputs
        return SleepingSlot(ImageSlot(ports, {}, ComputeStream("cpu")))

    def fill(self, slot: SleepingSlot, row: int, image: Image, box: Float32) -> None:
        """Resize an image into a row."""
        from fgfast.models.sam.transform import resized_size, scale_boxes

        side = slot.rows.canvas.height
        slot.rows.place(row, image.pixels, resized_size(*image.size, side))
        scale_boxes(box[None], *image.size, side)

    def read(self, slot: SleepingSlot, row: int) -> Timed:
        """Copy the logits of a row."""
        from fgfast.models.sam.segmenter import LowRes

        return Timed(LowRes(self._logits.copy(), np.ones(1, np.float32)), self._on.worker, *slot.span)
