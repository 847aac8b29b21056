"""Detic as graphs with the contracts of fgfast.graphs: plain tensors in, plain tensors out, nothing on the host."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fgfast.models.detic.canvas import inside, needs_masking, own_canvas
from fgfast.models.detic.cascade import combine
from fgfast.models.detic.model import Detic
from fgfast.models.detic.proposals import Candidates
from fgfast.models.detic.transform import PIXEL_MEAN, PIXEL_STD
from fgfast.records import Size


class _Images(nn.Module):
    """Resized images to what the network takes.

    Args:
        device: where the constants are to lie.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        for name, values in (("mean", PIXEL_MEAN), ("std", PIXEL_STD)):
            self.register_buffer(name, torch.tensor(values, device=device), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, pixels: Tensor, sizes: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 and (B, 2) -> (B, 3, H, W) float32, normalised, zero beyond each size."""
        here = inside(sizes, pixels.shape[1], pixels.shape[2])
        normalised = (pixels.to(torch.float32) - self.mean) / self.std
        return torch.where(here[..., None], normalised, 0.0).permute(0, 3, 1, 2).contiguous()


class DetectorGraph(nn.Module):
    """`detic_detector`: from pixels to scored boxes, suppression of proposals included.

    Args:
        model: shared, not copied.
    """

    def __init__(self, model: Detic) -> None:
        super().__init__()
        self.model = model
        self.images = _Images(model.device)

    def forward(self, pixels: Tensor, sizes: Tensor, vocabulary: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes and scores of the proposals.

        Args:
            pixels: (B, H, W, 3) uint8 RGB; H and W multiples of 32; what lies beyond each size does not matter.
            sizes: (B, 2) int64, height and width of each resized image.
            vocabulary: (512, C + 1) float32, from vocabulary.classifier.

        Returns:
            (B, 256, 4) float32 pixels, and (B, 256, C + 1) float32; as Detic.forward.
        """
        masked, sizes = is_masked(pixels, sizes), sizes.to(torch.float32)
        boxes, scores = self.model(self.images(pixels, sizes), sizes, vocabulary, masked)
        return boxes, scores


class BackboneGraph(nn.Module):
    """`detic_backbone`: from pixels to pyramid and candidates.

    Args:
        model: shared, not copied.
    """

    def __init__(self, model: Detic) -> None:
        super().__init__()
        self.model = model
        self.images = _Images(model.device)

    def forward(self, pixels: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Arguments as DetectorGraph's -> p3, p4, p5 (B, C, h, w), candidates (B, K, 4) and their scores (B, K)."""
        masked, sizes = is_masked(pixels, sizes), sizes.to(torch.float32)
        valid = own_canvas(sizes) if masked else None
        p3, p4, p5, *coarse = self.model.backbone(self.images(pixels, sizes), valid)
        found = self.model.proposal_generator.candidates([p3, p4, p5, *coarse], valid)
        return p3, p4, p5, found.boxes, found.scores


class HeadsGraph(nn.Module):
    """`detic_heads`: the cascade on proposals.

    Args:
        model: shared, not copied.
        masked: the canvas may be larger than the images' own.
    """

    def __init__(self, model: Detic, masked: bool = True) -> None:
        super().__init__()
        self.model, self.masked = model, masked

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
        """Maps (B, C, h, w), proposals (B, N, 4) and (B, N); the rest and the result as DetectorGraph's."""
        sizes = sizes.to(torch.float32)
        valid = own_canvas(sizes) if self.masked else None
        stages = self.model.roi_heads([p3, p4, p5], proposals, sizes, valid)
        boxes, scores = combine(stages, proposal_scores, vocabulary)
        return boxes, scores


def best_proposals(model: Detic, candidates: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """What happens between backbone and heads: (B, K, 4) and (B, K) -> (B, N, 4) and (B, N), float32."""
    best = model.proposal_generator.best(Candidates(candidates, scores))
    return best.boxes, best.scores


def is_masked(pixels: Tensor, sizes: Tensor) -> bool:
    """Whether padding must be kept out of the results: always in graphs, on the CPU only where there is any."""
    if torch.compiler.is_compiling() or not sizes.is_cpu:
        return True
    return needs_masking([Size(int(h), int(w)) for h, w in sizes], Size(pixels.shape[1], pixels.shape[2]))
