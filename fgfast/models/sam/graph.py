"""SAM as two graphs with the contracts of fgfast.graphs: they take and return plain tensors and never use the host."""

from __future__ import annotations

from torch import Tensor, nn

from fgfast.models.sam import transform
from fgfast.models.sam.model import Sam
from fgfast.models.serving.pixels import NormalisedImages


class ImageEncoderGraph(nn.Module):
    """`sam_image_encoder`: normalisation, padding, encoder.

    Args:
        sam: the model; shared, not copied.
    """

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.images, self.encoder = NormalisedImages(sam.device), sam.image_encoder

    def forward(self, pixels: Tensor, sizes: Tensor) -> Tensor:
        """Embeddings of resized images.

        Args:
            pixels: (B, side, side, 3) uint8 RGB; pixels beyond each image's size are ignored.
            sizes: (B, 2) int64, height and width of each image.

        Returns:
            (B, 256, side / 16, side / 16) float32.
        """
        return self.encoder(self.images(pixels, sizes))


class MaskDecoderGraph(nn.Module):
    """`sam_mask_decoder`: prompt encoder, mask decoder, stability.

    Args:
        sam: the model; shared, not copied.
        multimask: return three masks per box instead of one.
    """

    def __init__(self, sam: Sam, multimask: bool = False) -> None:
        super().__init__()
        self.prompts, self.decoder, self.multimask = sam.prompt_encoder, sam.mask_decoder, multimask

    def forward(self, embeddings: Tensor, image_index: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Decode N (image, box) pairs.

        Args:
            embeddings: (E, 256, g, g) float32.
            image_index: (N,) int64, the embedding of each box.
            boxes: (N, 4) float32, x0 y0 x1 y1 in pixels of the resized image.

        Returns:
            Logits (N, M, 4g, 4g), estimated IoU (N, M), stability of the logits (N, M), all float32.
        """
        prompts = self.prompts
        logits, quality = self.decoder(
            embeddings, image_index, prompts(boxes), prompts.dense_pe, prompts.no_mask, self.multimask
        )
        return logits, quality, transform.stability(logits)
