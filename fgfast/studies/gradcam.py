"""Where a classifier looks: raw Grad-CAM maps and input gradients, and how much of them lies on the subject.

The maps of pytorch-grad-cam have their minimum subtracted and are stretched to 1, which moves energy; these are raw.
Late masking after the last stage puts every map inside the mask by construction: `Looks.by_construction` says so.

Import this module only where a model is at hand: it imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from fgfast.studies import masking
from fgfast.studies.layers import as_map, check_gradient, target_layer

if TYPE_CHECKING:
    from torch import Tensor

    from fgfast.studies.cell import Strategy
    from fgfast.studies.models import Backbone


@dataclass(frozen=True, slots=True)
class Looks:
    """Where maps of a batch lie; tensors have one value per sample.

    Attributes:
        inside: share of a map's energy inside the mask, 0..1; NaN where the map is zero everywhere.
        area: share of the image that the mask covers: what `inside` would be by chance.
        evidence: whether the map is above zero anywhere.
        hit: whether its highest pixel is inside the mask (the pointing game); false without evidence.
        by_construction: whether masking alone puts the maps inside.
    """

    inside: Tensor
    area: Tensor
    evidence: Tensor
    hit: Tensor
    by_construction: bool

    @property
    def without_evidence(self) -> float:
        """The share of samples without positive evidence; NaN without samples."""
        return float((~self.evidence).double().mean())


def by_construction(backbone: Backbone, strategy: Strategy) -> bool:
    """Whether the strategy alone puts Grad-CAM's map inside the mask: the target layer's output is what it masks."""
    name, _ = target_layer(backbone, strategy.pooling)
    return strategy.late and strategy.stage == "last" and not name.endswith("norm1")


def maps(backbone: Backbone, x: Tensor, mask: Tensor, classes: Tensor, strategy: Strategy) -> Tensor:
    """Return raw Grad-CAM maps in the target layer's cells, (B, h, w), not negative.

    Args:
        backbone: in evaluation mode; its parameters and their gradients stay as they are.
        x: (B, 3, H, W) float, normalised.
        mask: (B, 1, H, W), subject 1.
        classes: (B,) int64, whose logits are explained.
        strategy: of the training.

    Raises:
        UsageError: the gradient at the target layer is zero everywhere.
    """
    name, layer = target_layer(backbone, strategy.pooling)
    outputs: list[Tensor] = []

    def keep_output(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        # Where nothing before the layer needs a gradient (frozen weights), the layer's output does.
        outputs.append(output if output.requires_grad else output.requires_grad_())
        return outputs[-1]

    hook = layer.register_forward_hook(keep_output)
    try:
        with torch.enable_grad():
            score = backbone(x, mask, strategy).gather(1, classes[:, None]).sum()
            (gradient,) = torch.autograd.grad(score, outputs[-1])
    finally:
        hook.remove()
    size = (x.shape[2], x.shape[3])
    values, gradient = as_map(backbone, outputs[-1].detach(), size), as_map(backbone, gradient, size)
    # A subject outside the crop is masked to nothing: a zero there says nothing of the layer.
    judged = mask.flatten(1).any(1) if strategy.late else mask.new_ones(len(mask), dtype=torch.bool)
    if bool(judged.any()):
        check_gradient(gradient[judged], name)
    if by_construction(backbone, strategy):
        values = values * masking.cells(mask, (values.shape[2], values.shape[3]), strategy.share)
    return functional.relu((gradient.mean((2, 3), keepdim=True) * values).sum(1))


def input_gradients(backbone: Backbone, x: Tensor, mask: Tensor, classes: Tensor, strategy: Strategy) -> Tensor:
    """Return |gradient| of each class's logit, less the mean logit, in the pixels, summed over channels, (B, H, W).

    Args:
        backbone: in evaluation mode.
        x: (B, 3, H, W) float, normalised; masked already where the strategy masks pixels.
        mask: (B, 1, H, W), the share of subject in each pixel.
        classes: (B,) int64, whose logits are explained.
        strategy: of the training. Where it masks pixels, a pixel counts by its share of subject: what was written
            over the background does not depend on it.
    """
    with torch.enable_grad():
        pixels = x.detach().clone().requires_grad_()
        logits = backbone(pixels, mask, strategy.within)
        score = (logits - logits.mean(1, keepdim=True)).gather(1, classes[:, None]).sum()
        (gradient,) = torch.autograd.grad(score, pixels)
    found = gradient.abs().sum(1)
    return found * mask[:, 0] if strategy.early else found


def looks(found: Tensor, mask: Tensor, constructed: bool = False) -> Looks:
    """Return where maps lie.

    Args:
        found: (B, h, w), not negative; brought to the mask's size, bilinear.
        mask: (B, 1, H, W), subject 1.
        constructed: see `by_construction`.
    """
    large = functional.interpolate(found[:, None].double(), mask.shape[-2:], mode="bilinear")[:, 0].flatten(1)
    subject = mask[:, 0].double().flatten(1)
    energy = large.sum(1)
    evidence = energy > 0
    inside = (large * subject).sum(1) / torch.where(evidence, energy, torch.nan)
    hit = (subject.gather(1, large.argmax(1, keepdim=True))[:, 0] > 0.5) & evidence
    return Looks(inside, subject.mean(1), evidence, hit, constructed)


@torch.no_grad()
def probabilities(backbone: Backbone, x: Tensor, mask: Tensor, strategy: Strategy) -> Tensor:
    """Return the probability of each class, (B, classes), 0..1; arguments as of `maps`."""
    found: Tensor = backbone(x, mask, strategy).double().softmax(1)
    return found
