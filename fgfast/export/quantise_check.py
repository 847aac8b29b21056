"""The parity check of a quantised encoder: its masks against those of the encoder in float32, on held-out images.

Embeddings are not compared: rounding to 8 bits moves them by more than any tolerance of the other precisions, and only
the masks tell whether that matters.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fgfast.errors import ParityError
from fgfast.export.check import Cases, Run
from fgfast.export.quantise_sample import PromptedImage, encoder_inputs
from fgfast.graphs import Contract
from fgfast.models.sam.segmenter import LowRes, finish
from fgfast.records import Bool
from fgfast.tolerances import QUANTISED_LEAST_IOU, QUANTISED_MASK_IOU, Tolerance

log = logging.getLogger("fgfast")

# The images named in an error.
_NAMED = 3


class MaskCheck:
    """Compares the masks of two encoders; its `cases` and `compare` are those of a Part.

    Args:
        images: held out from the calibration.
        decoder: MaskDecoderGraph in float32; both encoders share it.
        batch: images per call of the encoder.
    """

    def __init__(self, images: Sequence[PromptedImage], decoder: nn.Module, batch: int) -> None:
        self.images, self.decoder, self.batch = images, decoder, batch

    def cases(self) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        """Yield the encoder's inputs, batch by batch."""
        for number, inputs in enumerate(encoder_inputs(self.images, self.batch)):
            yield f"held-out batch {number + 1}", inputs

    def compare(
        self, contract: Contract, exported: Run, reference: Run, cases: Cases, tolerances: Mapping[str, Tolerance]
    ) -> list[dict[str, Any]]:
        """Compare the masks of all images; see check.compare.

        Returns:
            A record per image: case, output, IoU. Images are counted, because a manifest may go to others. An image
            without a mask in float32 counts only if there is one in 8 bits.

        Raises:
            ParityError: the mean or the least IoU is too low, or too few images have a mask to compare; the message
                names the worst images.
        """
        found: list[tuple[float, int]] = []
        names: dict[int, str] = {}
        starts = range(0, len(self.images), self.batch)
        for start, (case, inputs) in zip(starts, cases, strict=True):
            ours, theirs = (run(inputs)["embeddings"].float().cpu() for run in (exported, reference))
            for row, image in enumerate(self.images[start : start + self.batch]):
                overlap = self._overlap(ours[row], theirs[row], image)
                if overlap is not None:
                    found.append((overlap, start + row))
                    names[start + row] = f"{case}, image {row + 1}"
        self._judge(found)
        return [{"case": names[n], "output": "mask", "iou": round(iou, 5)} for iou, n in found]

    def _overlap(self, ours: Tensor, theirs: Tensor, image: PromptedImage) -> float | None:
        """The IoU of the masks of two embeddings (256, g, g); 0 where one is not finite, None where both are empty."""
        if not torch.isfinite(ours).all():
            return 0.0
        a, b = self._mask(ours, image), self._mask(theirs, image)
        union = np.count_nonzero(a | b)
        return np.count_nonzero(a & b) / union if union else None

    def _mask(self, embedding: Tensor, image: PromptedImage) -> Bool:
        with torch.inference_mode():
            boxes = torch.from_numpy(image.box[None])
            logits, quality, _ = self.decoder(embedding[None], torch.zeros(1, dtype=torch.int64), boxes)
        return finish(LowRes(logits[0].numpy(), quality[0].numpy()), *image.stored).bits

    def _judge(self, found: list[tuple[float, int]]) -> None:
        if 2 * len(found) < len(self.images):
            raise ParityError(
                f"{len(found)} of {len(self.images)} held-out images have a mask, too few to compare the quantised "
                "encoder by: calibrate on a data set with boxes, or use --precision fp16"
            )
        mean, least = summary(iou for iou, _ in found).values()
        if mean >= QUANTISED_MASK_IOU and least >= QUANTISED_LEAST_IOU:
            return
        worst = ", ".join(f"{self.images[n].key} ({iou:.3f})" for iou, n in sorted(found)[:_NAMED])
        raise ParityError(
            f"masks of the quantised encoder have a mean IoU of {mean:.4f} and a least one of {least:.4f} with those "
            f"in float32 on {len(found)} held-out images; {QUANTISED_MASK_IOU} and {QUANTISED_LEAST_IOU} are needed. "
            f"Worst: {worst}. It is refused: use --precision fp16, or calibrate on more images (--images)"
        )


def summary(overlaps: Any) -> dict[str, float]:
    """The mean and the least of IoUs."""
    values = list(overlaps)
    return {"mean": float(np.mean(values)), "least": float(min(values))}
