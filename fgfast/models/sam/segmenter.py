"""Images and boxes to masks, through whatever computes SAM's two graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fgfast import ops
from fgfast.backends.session import Session
from fgfast.backends.slots import ComputeStream
from fgfast.models.sam import transform
from fgfast.models.serving.batches import ImageSlot, depth_of
from fgfast.records import Bool, Float32, Image, Size, UInt8
from fgfast.runner import compute

# What is read of the decoder's outputs.
_OUTPUTS = ("logits", "quality")


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """The masks of one image, one row for each of its N boxes; M is 3 with multimask, else 1.

    Attributes:
        bits: (N, M, H, W) bool at the size of the stored image; True is subject.
        quality: (N, M) float32, SAM's estimate of each mask's IoU; not confined to 0..1.
        stability: (N, M) float32 in 0..1, how little the mask depends on the threshold; NaN for no mask at all.
    """

    bits: Bool
    quality: Float32
    stability: Float32


@dataclass(frozen=True, slots=True, eq=False)
class LowRes:
    """What SAM gives for one box; `finish` makes the mask of it.

    Attributes:
        logits: (M, s, s) float32 over the square, whose side is 4 s; M is 3 with multimask, else 1.
        quality: (M,) float32, the estimate of each mask's IoU.
    """

    logits: Float32
    quality: Float32


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """The mask for one box.

    Attributes:
        bits: (H, W) bool at the size of the stored image; True is subject.
        quality: SAM's estimate of its IoU; not confined to 0..1.
        stability: 0..1, how little it depends on the threshold; NaN for no mask at all.
    """

    bits: Bool
    quality: float
    stability: float


def finish(found: LowRes, height: int, width: int, threads: int = 1) -> Segment:
    """The mask at full size; of several, the one that SAM thinks best. Any thread, on the CPU.

    Args:
        found: for one box.
        height: of the stored image, in pixels.
        width: of the stored image, in pixels.
        threads: to work with at most.
    """
    best = int(found.quality.argmax())
    one = slice(best, best + 1)
    full = _full_size(found.logits[None, one], found.quality[None, one], height, width, threads)
    return Segment(full.bits[0, 0], float(full.quality[0, 0]), float(full.stability[0, 0]))


def _full_size(logits: Float32, quality: Float32, height: int, width: int, threads: int) -> Segments:
    """Masks of one image from logits (N, M, s, s) float32."""
    side = 4 * logits.shape[-1]
    resized = transform.resized_size(height, width, side)
    made = ops.mask_post(logits, (height, width), resized, side, threads)
    return Segments(made.bits, quality, made.stability)


class SamSlot(ImageSlot):
    """A slot of SAM's two graphs.

    Attributes:
        pairs: image (N,) int64 and box (N, 4) float32 in pixels of the resized image, where there is not one box per
            row; None: the slot's own buffers hold the boxes.
    """

    pairs: tuple[Tensor, Tensor] | None = None


class SamSegmenter:
    """SAM for stored images: in slots, one box per image (fgfast.runner.SlotModel); or with `segment`, several.

    Args:
        encoder: a session of `sam_image_encoder`.
        decoder: a session of `sam_mask_decoder`, on the same device.
        batch: images per slot holds, where the encoder takes any number.
        smaller: the encoder for fewer images per call, where it takes a fixed number.

    Attributes:
        device: "cpu", "cuda:0".
        batch: images per slot holds.
    """

    def __init__(
        self, encoder: Session, decoder: Session, batch: int = 1, smaller: Callable[[int], Session] | None = None
    ) -> None:
        self.encoder, self.decoder = encoder, decoder
        side = encoder.contract.inputs[0].shape[1]
        assert isinstance(side, int)
        self.side = side
        self.device = str(encoder.device)
        self.batch = self._takes() or batch
        self._smaller = smaller
        self._compute = ComputeStream(encoder.device)

    @property
    def depth(self) -> int:
        """Batches queued on the device at a time; see fgfast.models.serving.batches.depth_of."""
        return depth_of(self.device)

    finish = staticmethod(finish)

    def bucket(self, image: Image, box: Float32) -> int:
        """The side of SAM's square: any images can share a batch."""
        return self.side

    def rows(self, bucket: int) -> int:
        """Images that a slot holds."""
        return self.batch

    def slot(self, bucket: int) -> SamSlot:
        """A new slot.

        Raises:
            DeviceMemoryError: there is no memory for it.
        """
        return self._slot(self.batch)

    def fill(self, slot: SamSlot, row: int, image: Image, box: Float32) -> None:
        """Resize an image into a row. Any thread, several rows at once.

        Args:
            slot: from `slot`.
            row: of it.
            image: the image.
            box: (4,) float32, in its pixels.
        """
        self._place(slot, row, image.pixels, 1)
        height, width = image.pixels.shape[:2]
        slot.host["boxes"].numpy()[row] = transform.scale_boxes(box[None], height, width, self.side)[0]

    def launch(self, slot: SamSlot, rows: int) -> None:
        """Queue encoder and decoder for the first `rows` rows on the device. The device's one thread.

        Raises:
            DeviceMemoryError: they do not fit into the device's memory.
            DeviceFailedError: the device failed.
        """
        with self._compute.current(), torch.inference_mode():
            given = slot.upload(self._takes() or rows)
            index, boxes = (given.pop(name)[:rows] for name in ("image_index", "boxes"))
            if slot.pairs is not None:
                index, boxes = (tensor.to(self.encoder.device) for tensor in slot.pairs)
            stream = self._compute.stream
            (embeddings,) = self.encoder.run(given, stream).values()
            found = self.decoder.run({"embeddings": embeddings, "image_index": index, "boxes": boxes}, stream)
            slot.download({name: found[name] for name in _OUTPUTS})

    def shrink(self) -> None:
        """Go on with an encoder for half as many images, where its shapes are fixed."""
        takes = self._takes()
        if takes is None or takes == 1 or self._smaller is None:
            return
        self._compute.synchronize()  # batches before this one are still in the encoder
        self.encoder.close()
        self.encoder = self._smaller(takes // 2)
        self.batch = self._takes() or self.batch

    def wait(self, slot: SamSlot) -> None:
        """Return when the results of a slot can be read; errors are those of `launch`."""
        slot.wait()

    def read(self, slot: SamSlot, row: int) -> LowRes:
        """What was found for the box of a row, after `wait`. Any thread."""
        logits, quality = (slot.results[name][row].numpy().copy() for name in _OUTPUTS)
        return LowRes(logits, quality)

    def segment(self, images: Sequence[UInt8], boxes: Sequence[Float32]) -> list[Segments]:
        """Masks for boxes, at full size.

        Args:
            images: (H, W, 3) uint8 RGB each.
            boxes: (N, 4) float32 for each image, in its stored pixels; N may be 0.
        """
        step = self._takes() or max(1, len(images))
        done: list[Segments] = []
        for start in range(0, len(images), step):
            done += self._segment(images[start : start + step], boxes[start : start + step])
        return done

    def _segment(self, images: Sequence[UInt8], boxes: Sequence[Float32]) -> list[Segments]:
        """The same for at most as many images as the encoder takes."""
        stored = [Size(*image.shape[:2]) for image in images]
        scaled = [transform.scale_boxes(b, h, w, self.side) for b, (h, w) in zip(boxes, stored, strict=True)]
        counts = [len(b) for b in scaled]
        if not sum(counts):
            return [self._none(*size) for size in stored]
        threads = torch.get_num_threads()
        slot = self._slot(len(images))
        for row, image in enumerate(images):
            self._place(slot, row, image, threads)
        index = torch.arange(len(images)).repeat_interleave(torch.tensor(counts))
        slot.pairs = index, torch.from_numpy(np.concatenate(scaled)).reshape(-1, 4)
        compute(self, slot, len(images))
        ends = np.cumsum(counts)[:-1]
        logits, quality = (np.split(slot.results[name].numpy().copy(), ends) for name in _OUTPUTS)
        found = zip(logits, quality, stored, strict=True)
        return [_full_size(low, good, *size, threads) for low, good, size in found]

    def _takes(self) -> int | None:
        """Images that the encoder takes; None where any number goes."""
        takes = self.encoder.contract.inputs[0].shape[0]
        return takes if isinstance(takes, int) else None

    def _slot(self, rows: int) -> SamSlot:
        """A slot of at least so many rows."""
        prompts = [port for port in self.decoder.contract.inputs if port.name in ("image_index", "boxes")]
        rows = self._takes() or rows
        sizes = dict.fromkeys((*self.encoder.contract.free, *self.decoder.contract.free), rows)
        slot = SamSlot((*self.encoder.contract.inputs, *prompts), sizes, self._compute)
        # One box per image, in the order of the images.
        torch.arange(rows, out=slot.host["image_index"])
        return slot

    def _place(self, slot: SamSlot, row: int, pixels: UInt8, threads: int) -> None:
        slot.place(row, pixels, transform.resized_size(pixels.shape[0], pixels.shape[1], self.side), threads)

    def _none(self, height: int, width: int) -> Segments:
        masks = self.decoder.contract.outputs[1].shape[1]
        assert isinstance(masks, int)
        nothing = np.zeros((0, masks), np.float32)
        return Segments(np.zeros((0, masks, height, width), bool), nothing, nothing)
