"""SAM as two graphs with the contracts of fgfast.graphs: they take and return plain tensors and never use the host."""

from __future__ import annotations

from torch import Tensor, nn

from fgfast.models.sam import transform
from fgfast.models.sam.architecture import MASK_TOKENS
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


class PromptDecoderGraph(nn.Module):
    """`sam_prompt_decoder`: prompt encoder, mask decoder with all its masks, stability.

    Args:
        sam: the model; shared, not copied.
    """

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.prompts, self.decoder = sam.prompt_encoder, sam.mask_decoder

    def forward(
        self, embeddings: Tensor, image_index: Tensor, points: Tensor, kinds: Tensor, masks: Tensor, has_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decode N (image, prompt) pairs of P points each.

        Args:
            embeddings: (E, 256, g, g) float32.
            image_index: (N,) int64.
            points: (N, P, 2) float32, x y in pixels of the resized image.
            kinds: (N, P) int64, see `PromptEncoder.points`.
            masks: (N, 4g, 4g) float32, logits of an earlier mask.
            has_mask: (N,) float32, 1 or 0.

        Returns:
            Logits (N, 4, 4g, 4g), estimated IoU (N, 4), stability of the logits (N, 4), all float32: of the single
            mask, then of whole, part and subpart.
        """
        prompts, grid = self.prompts, embeddings.shape[-1]
        image = embeddings.flatten(2).transpose(1, 2).index_select(0, image_index) + prompts.dense(masks, has_mask)
        tokens = prompts.points(points, kinds)
        logits, quality = self.decoder.decode(image, None, tokens, prompts.dense_pe, grid, range(MASK_TOKENS))
        return logits, quality, transform.stability(logits)
