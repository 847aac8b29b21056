"""SAM as two graphs with the contracts of fgfast.graphs: plain tensors in, plain tensors out, nothing on the host."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fgfast.models.sam import transform
from fgfast.models.sam.model import Sam


class ImageEncoderGraph(nn.Module):
    """`sam_image_encoder`: normalisation, padding, encoder.

    Args:
        sam: the model; shared, not copied.
    """

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.encoder = sam.image_encoder
        for name, values in (("mean", transform.MEAN), ("std", transform.STD)):
            self.register_buffer(name, torch.tensor(values, device=sam.device), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, pixels: Tensor, sizes: Tensor) -> Tensor:
        """Embeddings of resized images.

        Args:
            pixels: (B, side, side, 3) uint8 RGB; what lies beyond each image's size does not matter.
            sizes: (B, 2) int64, height and width of each.

        Returns:
            (B, 256, side / 16, side / 16) float32.
        """
        embeddings: Tensor = self.encoder(self.square(pixels, sizes))
        return embeddings

    def square(self, pixels: Tensor, sizes: Tensor) -> Tensor:
        """What the encoder itself takes: (B, 3, side, side) float32, normalised, zero beyond each size."""
        at = torch.arange(pixels.shape[1], device=pixels.device)
        inside = (at < sizes[:, :1])[:, :, None] & (at < sizes[:, 1:])[:, None, :]
        normalised = (pixels.to(torch.float32) - self.mean) / self.std
        return torch.where(inside[..., None], normalised, 0.0).permute(0, 3, 1, 2)


class MaskDecoderGraph(nn.Module):
    """`sam_mask_decoder`: prompt encoder, mask decoder, stability.

    Args:
        sam: the model; shared, not copied.
        multimask: three masks a box instead of one.
    """

    def __init__(self, sam: Sam, multimask: bool = False) -> None:
        super().__init__()
        self.prompts, self.decoder, self.multimask = sam.prompt_encoder, sam.mask_decoder, multimask

    def forward(self, embeddings: Tensor, image_index: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Decode N (image, box) pairs.

        Args:
            embeddings: (E, 256, g, g) float32.
            image_index: (N,) int64, the embedding each box belongs to.
            boxes: (N, 4) float32, x0 y0 x1 y1 in pixels of the resized image.

        Returns:
            Logits (N, M, 4g, 4g), estimated IoU (N, M), stability of the logits (N, M), all float32.
        """
        prompts = self.prompts
        logits, quality = self.decoder(
            embeddings, image_index, prompts(boxes), prompts.dense_pe, prompts.no_mask, self.multimask
        )
        return logits, quality, _stability(logits)


def _stability(logits: Tensor) -> Tensor:
    """transform.stability, counted in float32: graphs are held to calculate with no integers.

    The counts are exact, for low-resolution logits are far from 2 to the 24 pixels.
    """
    limits = (transform.THRESHOLD + sign * transform._STABILITY_OFFSET for sign in (1, -1))
    surely, perhaps = ((logits > limit).sum((-1, -2), dtype=torch.float32) for limit in limits)
    return surely / perhaps
