"""Pictures and boxes to masks, through whatever computes SAM's two graphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fgfast import ops
from fgfast.backends.session import Session
from fgfast.models.sam import transform
from fgfast.records import Bool, Float32, UInt8


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """The masks of one picture, one row for each of its N boxes; M is 3 with multimask, else 1.

    Attributes:
        bits: (N, M, H, W) bool at the size of the stored picture; True is subject.
        quality: (N, M) float32, SAM's estimate of each mask's IoU; not confined to 0..1.
        stability: (N, M) float32 in 0..1, how little the mask depends on the threshold; NaN for no mask at all.
    """

    bits: Bool
    quality: Float32
    stability: Float32


class SamSegmenter:
    """SAM for stored pictures.

    Args:
        encoder: a session of `sam_image_encoder`.
        decoder: a session of `sam_mask_decoder`, on the same device.
    """

    def __init__(self, encoder: Session, decoder: Session) -> None:
        self.encoder, self.decoder = encoder, decoder
        batch, side = encoder.contract.inputs[0].shape[:2]
        assert isinstance(side, int)
        self.side = side
        # Pictures a call; None where any number goes.
        self.batch = batch if isinstance(batch, int) else None

    def segment(self, images: Sequence[UInt8], boxes: Sequence[Float32]) -> list[Segments]:
        """Masks for boxes, at full size.

        Args:
            images: (H, W, 3) uint8 RGB each.
            boxes: (N, 4) float32 for each picture, in its stored pixels; N may be 0.
        """
        step = self.batch or max(1, len(images))
        done: list[Segments] = []
        for start in range(0, len(images), step):
            done += self._segment(images[start : start + step], boxes[start : start + step])
        return done

    @torch.inference_mode()
    def _segment(self, images: Sequence[UInt8], boxes: Sequence[Float32]) -> list[Segments]:
        """As `segment`, at most `batch` pictures."""
        stored = [(image.shape[0], image.shape[1]) for image in images]
        pixels, sizes = self._square(images)
        scaled = [transform.scale_boxes(b, h, w, self.side) for b, (h, w) in zip(boxes, stored, strict=True)]
        counts = [len(b) for b in scaled]
        device = self.encoder.device
        (embeddings,) = self.encoder.run({"pixels": pixels.to(device), "sizes": sizes.to(device)}).values()
        index = torch.arange(len(images)).repeat_interleave(torch.tensor(counts))
        corners = torch.from_numpy(np.concatenate(scaled)).reshape(-1, 4)
        if not len(index):
            return [self._none(*size) for size in stored]
        found = self.decoder.run(
            {"embeddings": embeddings, "image_index": index.to(device), "boxes": corners.to(device)}
        )
        pictures = zip(found["logits"].split(counts), found["quality"].split(counts), stored, strict=True)
        return [self._full_size(logits, quality, *size) for logits, quality, size in pictures]

    def _square(self, images: Sequence[UInt8]) -> tuple[Tensor, Tensor]:
        """Pictures resized as the encoder takes them; a batch that must be full is filled up with nothing."""
        count = self.batch or len(images)
        pixels = torch.zeros(count, self.side, self.side, 3, dtype=torch.uint8)
        sizes = torch.zeros(count, 2, dtype=torch.int64)
        for square, size, image in zip(pixels, sizes, images, strict=False):
            height, width = transform.resized_size(image.shape[0], image.shape[1], self.side)
            if ops.engine() == "native":
                ops.resize(image, (height, width), square[:height, :width].numpy(), torch.get_num_threads())
            else:
                square[:height, :width] = torch.tensor(transform.resize(image, self.side))
            size[0], size[1] = height, width
        return pixels, sizes

    def _full_size(self, low_res: Tensor, quality: Tensor, height: int, width: int) -> Segments:
        """Masks of one picture; on the CPU by the native op, which makes the same bits without the logits between."""
        if low_res.device.type == "cpu" and ops.engine() == "native":
            resized = transform.resized_size(height, width, self.side)
            threads = torch.get_num_threads()
            made = ops.mask_post(low_res.float().numpy(), (height, width), resized, self.side, threads)
            return Segments(made.bits, quality.numpy(), made.stability)
        logits = transform.to_stored_size(low_res, height, width, self.side)
        bits = logits > transform.THRESHOLD
        return Segments(bits.cpu().numpy(), quality.cpu().numpy(), transform.stability(logits).cpu().numpy())

    def _none(self, height: int, width: int) -> Segments:
        masks = self.decoder.contract.outputs[1].shape[1]
        assert isinstance(masks, int)
        nothing = np.zeros((0, masks), np.float32)
        return Segments(np.zeros((0, masks, height, width), bool), nothing, nothing)
