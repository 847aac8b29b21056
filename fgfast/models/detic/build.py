"""Detic by name: architecture, weights, precision, device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fgfast.methods import ModelSpec
from fgfast.models.files import checkpoints, states

if TYPE_CHECKING:
    from fgfast.models.detic.model import Detic

# In Detic's checkpoint, trained but not used here: masks are SAM's, the vocabulary is an input.
_UNUSED = ("roi_heads.mask_head.", *(f"roi_heads.box_predictor.{i}.cls_score.zs_weight" for i in range(3)))


def build_detic(spec: ModelSpec) -> Detic:
    """A Detic for inference in PyTorch. The vocabulary is another matter: fgfast.models.vocabulary.

    Args:
        spec: "detic", the only one with official weights; "detic_swint" and "detic_nano" are for tests. The precision
            is that of matrix products and convolutions.

    Raises:
        UnknownNameError: for the name or the precision.
        ModelNotCachedError: the official weights are not on this machine; the message says what to type.
        WeightsError: the file is damaged or of another model.
    """
    from fgfast.models.detic import config

    configs = {"detic": config.SWIN_B, "detic_swint": config.SWIN_T, "detic_nano": config.NANO}
    checkpoints.check_spec(spec, tuple(configs))
    from fgfast.models.detic import checkpoint
    from fgfast.models.detic.model import Detic

    model = Detic(configs[spec.name])
    state = checkpoints.state_for(model, spec.weights, "detic" if spec.name == "detic" else None)
    # What follows from the architecture may be missing; `load` compares it where it is there.
    shapes = {
        key: tuple(value.shape)
        for key, value in model.state_dict().items()
        if key in state or not checkpoint.CONSTANT.fullmatch(key)
    }
    source = checkpoints.source_of(spec.name, spec.weights)
    checkpoint.load(model, states.check_state(state, shapes, _UNUSED, source))
    model.set_precision(spec.precision).to(spec.device)
    return model
