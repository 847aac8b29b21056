"""Detic as graphs with the contracts of fgfast.graphs: they take and return plain tensors and never use the host."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fgfast.models.detic.canvas import needs_masking, own_canvas
from fgfast.models.detic.cascade import combine
from fgfast.models.detic.model import Detic
from fgfast.models.serving.pixels import NormalisedImages
from fgfast.records import Size


class DetectorGraph(nn.Module):
    """`detic_detector`: from pixels to scored boxes, suppression of proposals included.

    Args:
        model: shared, not copied.
    """

    def __init__(self, model: Detic) -> None:
        super().__init__()
        self.model = model
        self.images = NormalisedImages(model.device)

    def forward(self, pixels: Tensor, sizes: Tensor, vocabulary: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes and scores of the proposals.

        Args:
            pixels: (B, H, W, 3) uint8 RGB; H and W multiples of 32; pixels beyond each size are ignored.
            sizes: (B, 2) int64, height and width of each resized image.
            vocabulary: (512, C + 1) float32, from vocabulary.classifier.

        Returns:
            (B, 256, 4) float32 pixels, and (B, 256, C + 1) float32; see Detic.forward.
        """
        masked, sizes = is_masked(pixels, sizes), sizes.to(torch.float32)
        boxes, scores = self.model(self.images(pixels, sizes).contiguous(), sizes, vocabulary, masked)
        return boxes, scores


class BackboneGraph(nn.Module):
    """`detic_backbone`: from pixels to pyramid and candidates.

    Args:
        model: shared, not copied.
    """

    def __init__(self, model: Detic) -> None:
        super().__init__()
        self.model = model
        self.images = NormalisedImages(model.device)

    def forward(self, pixels: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return p3, p4, p5 (B, C, h, w), candidates (B, K, 4) and their scores (B, K); see DetectorGraph."""
        masked, sizes = is_masked(pixels, sizes), sizes.to(torch.float32)
        valid = own_canvas(sizes) if masked else None
        p3, p4, p5, *coarse = self.model.backbone(self.images(pixels, sizes).contiguous(), valid)
        found = self.model.proposal_generator.candidates([p3, p4, p5, *coarse], valid)
        return p3, p4, p5, found.boxes, found.scores


class HeadsGraph(nn.Module):
    """`detic_heads`: the cascade on proposals.

    Args:
        model: shared, not copied.
    """

    def __init__(self, model: Detic) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        p3: Tensor,
        p4: Tensor,
        p5: Tensor,
        proposals: Tensor,
        proposal_scores: Tensor,
        sizes: Tensor,
        vocabulary: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return boxes and scores as DetectorGraph does, from maps (B, C, h, w) and proposals (B, N, 4), (B, N)."""
        sizes = sizes.to(torch.float32)
        stages = self.model.roi_heads([p3, p4, p5], proposals, sizes, own_canvas(sizes))
        boxes, scores = combine(stages, proposal_scores, vocabulary)
        return boxes, scores


def is_masked(pixels: Tensor, sizes: Tensor) -> bool:
    """Return whether padding must be masked: always in graphs and on GPUs, on the CPU only where there is any."""
    if torch.compiler.is_compiling() or not sizes.is_cpu:
        return True
    return needs_masking([Size(int(h), int(w)) for h, w in sizes], Size(pixels.shape[1], pixels.shape[2]))
