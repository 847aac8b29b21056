"""Builds SAM from a ModelSpec."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fgfast.methods import ModelSpec
from fgfast.models.files import checkpoints, states
from fgfast.models.sam.architecture import ARCHITECTURES

if TYPE_CHECKING:
    from torch import Tensor

    from fgfast.models.sam.model import Sam


def build_sam(spec: ModelSpec) -> Sam:
    """Return a SAM for inference in PyTorch.

    Args:
        spec: "sam_vit_b", "sam_vit_l" or "sam_vit_h"; the tests' tiny ones have no official weights.

    Raises:
        UnknownNameError: for the name or the precision.
        ModelNotCachedError: the official weights are not on this machine; the message gives the command to type.
        WeightsError: the file is damaged or belongs to another model.
    """
    state = sam_state(spec)
    from fgfast.models.sam.model import Sam

    return Sam.build(spec.name.removeprefix("sam_"), state, spec.precision).to(spec.device)


def sam_state(spec: ModelSpec) -> dict[str, Tensor]:
    """Return the checked weights of a SAM by segment-anything's keys; raises the errors of `build_sam`."""
    checkpoints.check_spec(spec, tuple(f"sam_{name}" for name in ARCHITECTURES))
    import torch

    from fgfast.models.sam.model import Sam

    name = spec.name.removeprefix("sam_")
    with torch.device("meta"):
        empty = Sam(name)
    state = checkpoints.state_for(empty, spec)
    return states.check_state(state, empty.state_dict(), source=checkpoints.source_of(spec))
