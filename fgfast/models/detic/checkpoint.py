"""Loading the official checkpoint's keys, strictly."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fgfast.errors import WeightsError

# Trained but not used: the masks are SAM's, the vocabulary is an input.
IGNORED = re.compile(
    r"roi_heads\.mask_head\.(mask_fcn[1-4]|deconv|predictor)\.(weight|bias)"
    r"|roi_heads\.box_predictor\.[0-2]\.cls_score\.zs_weight"
)
# Follows from the architecture; a file may lack it, but what it holds must agree.
CONSTANT = re.compile(r"backbone\.bottom_up\.layers\.\d\.blocks\.\d+\.attn\.relative_position_index")
_SHOWN = 5


def load(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy a checkpoint into the model.

    Args:
        model: a Detic.
        state: key -> tensor, as torch.load(..., weights_only=True)["model"] of the official file.

    Raises:
        WeightsError: a key is missing, unknown, of another shape, or a constant differs; names
            the first ones.
    """
    own = model.state_dict()
    offered = {key: value for key, value in state.items() if not IGNORED.fullmatch(key)}
    problems = [f"missing {key}" for key in own if key not in offered and not CONSTANT.fullmatch(key)]
    for key, value in offered.items():
        if key not in own:
            problems.append(f"unknown {key}")
        elif value.shape != own[key].shape:
            problems.append(f"{key} is {tuple(value.shape)}, not {tuple(own[key].shape)}")
        elif CONSTANT.fullmatch(key) and not torch.equal(value.to(own[key].device), own[key]):
            problems.append(f"{key} holds other numbers than the architecture gives")
    if problems:
        more = f", and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise WeightsError(
            "the checkpoint",
            f"does not fit {model._get_name()}: {'; '.join(problems[:_SHOWN])}{more}. "
            "Check that the file and the model's size belong together.",
        )
    model.load_state_dict(offered, strict=False)
