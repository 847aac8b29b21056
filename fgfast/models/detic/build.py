"""Builds Detic from a ModelSpec."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fgfast.methods import ModelSpec
from fgfast.models.files import checkpoints

if TYPE_CHECKING:
    from fgfast.models.detic.model import Detic


def build_detic(spec: ModelSpec) -> Detic:
    """Return a Detic for inference in PyTorch; for its vocabulary see fgfast.models.vocabulary.

    Args:
        spec: "detic", the only one with official weights; "detic_swint" and "detic_nano" are for tests. The precision
            is that of matrix products and convolutions.

    Raises:
        UnknownNameError: for the name or the precision.
        ModelNotCachedError: the official weights are not on this machine; the message gives the command to type.
        WeightsError: the file is damaged or belongs to another model.
    """
    from fgfast.models.detic import config

    configs = {"detic": config.SWIN_B, "detic_swint": config.SWIN_T, "detic_nano": config.NANO}
    checkpoints.check_spec(spec, tuple(configs))
    from fgfast.models.detic import checkpoint
    from fgfast.models.detic.model import Detic

    model = Detic(configs[spec.name])
    checkpoint.load(model, checkpoints.state_for(model, spec), checkpoints.source_of(spec))
    return model.set_precision(spec.precision).to(spec.device)
