"""Images and boxes to masks, with any sessions of SAM's two graphs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from fgfast import ops
from fgfast.backends.session import Session
from fgfast.backends.slots import ComputeStream, translated
from fgfast.models.sam import transform
from fgfast.models.serving.batches import ImageSlot, depth_of, finite_rows, visible
from fgfast.ops import second_look
from fgfast.records import Float32, Image, Mask

# The outputs of the decoder that are read.
_OUTPUTS = ("logits", "quality")


@dataclass(frozen=True, slots=True, eq=False)
class LowRes:
    """SAM's outputs for one box, from which `finish` makes the mask.

    Attributes:
        logits: (M, s, s) float32 over the square, whose side is 4 s; M is 3 with multimask, else 1.
        quality: (M,) float32, the estimate of each mask's IoU.
        others: the logits of the boxes of a second look, (K, M, s, s) float32; K is 0 without one.
        others_quality: (K, M) float32.
    """

    logits: Float32
    quality: Float32
    others: Float32 = field(default_factory=lambda: np.zeros((0, 1, 1, 1), np.float32))
    others_quality: Float32 = field(default_factory=lambda: np.zeros((0, 1), np.float32))


def finish(found: LowRes, height: int, width: int, threads: int = 1) -> Mask:
    """Return the mask at full size; of several, the one with the best estimate. Any thread, on the CPU.

    Args:
        found: for one box.
        height: of the stored image, in pixels.
        width: of the stored image, in pixels.
        threads: maximum number of threads.
    """
    best = int(found.quality.argmax())
    logits = found.logits[None, best : best + 1]
    side = 4 * logits.shape[-1]
    resized = transform.resized_size(height, width, side)
    masks = ops.mask_post(logits, (height, width), resized, side, threads)
    stability = float(masks.stability[0, 0])
    numbers = _second_look(found, best, resized) if len(found.others) else {}
    return Mask(masks.bits[0, 0], float(found.quality[best]), stability if math.isfinite(stability) else None, numbers)


def _second_look(found: LowRes, best: int, resized: tuple[int, int]) -> dict[str, float]:
    """Compare the masks of the boxes in the low resolution of the logits, where the image is: a pixel there is 4."""
    rows, columns = (math.ceil(n / 4) for n in resized)
    others = [logits[quality.argmax()] for logits, quality in zip(found.others, found.others_quality, strict=True)]
    bits, *rest = [one[:rows, :columns] > 0 for one in (found.logits[best], *others)]
    return second_look.disagreement(bits, rest)


class SamSegmenter:
    """SAM in slots, one box per image, and the other ones of a second look (fgfast.runner.SlotModel).

    Args:
        encoder: a session of `sam_image_encoder`.
        decoder: a session of `sam_mask_decoder`, on the same device.
        batch: images per slot, where the encoder takes any number.
        smaller: makes the encoder for fewer images per call, where it takes a fixed number.

    Attributes:
        device: "cpu", "cuda:0".
        depth: batches queued on the device at a time.
        batch: images per slot.
        buckets: 1, because every image is resized to the same square.
        second_look: whether the decoder also gets the other boxes of `fgfast.ops.second_look` that depend on the box
            alone, in the same call; set before the first slot is made.
    """

    buckets = 1

    def __init__(
        self, encoder: Session, decoder: Session, batch: int = 1, smaller: Callable[[int], Session] | None = None
    ) -> None:
        self.encoder, self.decoder = encoder, decoder
        side = encoder.contract.inputs[0].shape[1]
        assert isinstance(side, int)
        self.side = side
        self.device, self.depth = str(encoder.device), depth_of(str(encoder.device))
        self.batch = self._fixed_batch() or batch
        self._smaller = smaller
        self.second_look = False
        self._compute = ComputeStream(encoder.device)

    finish = staticmethod(finish)

    def bucket(self, image: Image, box: Float32) -> int:
        """Return the side of SAM's square: any images can share a batch."""
        return self.side

    def rows(self, bucket: int) -> int:
        """Return the number of images per slot."""
        return self.batch

    def slot(self, bucket: int) -> ImageSlot:
        """Return a new slot.

        Raises:
            DeviceMemoryError: there is not enough memory.
        """
        ports = [port for port in self.decoder.contract.inputs if port.name in ("image_index", "boxes")]
        prompts = [replace(port, shape=(port.shape[0], self._boxes, *port.shape[1:])) for port in ports]
        sizes = dict.fromkeys((*self.encoder.contract.free, *self.decoder.contract.free), self.batch)
        slot = ImageSlot((*self.encoder.contract.inputs, *prompts), sizes, self._compute)
        # The boxes of each image, in the order of the images.
        slot.host["image_index"][:] = torch.arange(self.batch)[:, None]
        return slot

    def fill(self, slot: ImageSlot, row: int, image: Image, box: Float32) -> None:
        """Resize an image into a row. Any thread, several rows in parallel.

        Args:
            slot: from `slot`.
            row: of the slot.
            image: the stored image.
            box: (4,) float32, in pixels of the stored image.
        """
        height, width = image.size
        size = visible(transform.resized_size(height, width, self.side), image.size, "SAM")
        slot.place(row, image.pixels, size)
        boxes = [box]
        if self.second_look:
            boxes += second_look.boxes(box, image.size, None)[: second_look.FROM_BOX]
        slot.host["boxes"].numpy()[row] = transform.scale_boxes(np.stack(boxes), height, width, self.side)

    def launch(self, slot: ImageSlot, rows: int) -> None:
        """Queue encoder and decoder for the first `rows` rows on the device. The device's own thread.

        Raises:
            DeviceMemoryError: they do not fit into the device's memory.
            DeviceFailedError: the device failed.
        """
        with self._compute.current(), torch.inference_mode():
            inputs = slot.upload(self._fixed_batch() or rows)
            prompts = {name: inputs.pop(name)[:rows].flatten(0, 1) for name in ("image_index", "boxes")}
            stream = self._compute.stream
            found = self.decoder.run({**self.encoder.run(inputs, stream), **prompts}, stream)
            outputs = {name: found[name].unflatten(0, (rows, self._boxes)) for name in _OUTPUTS}
            slot.download(outputs | finite_rows(outputs))

    def shrink(self) -> None:
        """Replace an encoder of fixed shapes by one for half as many images."""
        takes = self._fixed_batch()
        if takes is None or takes == 1 or self._smaller is None:
            return
        self._compute.synchronize()  # earlier batches are still in the encoder
        with translated(self.device):
            self.encoder.close()
            self.encoder = self._smaller(takes // 2)
        self.batch = self._fixed_batch() or self.batch

    def wait(self, slot: ImageSlot) -> None:
        """Block until the results of a slot can be read; the errors are those of `launch`."""
        slot.wait()

    def read(self, slot: ImageSlot, row: int) -> LowRes:
        """Return the outputs for the box of a row, after `wait`. Any thread.

        Raises:
            NotFiniteError: they are not finite.
        """
        slot.check(row)
        logits, quality = (slot.results[name][row].numpy().copy() for name in _OUTPUTS)
        return LowRes(logits[0], quality[0], logits[1:], quality[1:])

    @property
    def _boxes(self) -> int:
        """Return the number of boxes per image."""
        return 1 + second_look.FROM_BOX if self.second_look else 1

    def _fixed_batch(self) -> int | None:
        """Return the images per call of the encoder; None where it takes any number."""
        takes = self.encoder.contract.inputs[0].shape[0]
        return takes if isinstance(takes, int) else None
