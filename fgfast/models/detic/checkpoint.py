"""Loading the official checkpoint's keys, strictly."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fgfast.errors import WeightsError
from fgfast.models.files.states import check_state

# Trained but unused: the masks are SAM's, and the vocabulary is an input.
IGNORED = (
    r"roi_heads\.mask_head\.(mask_fcn[1-4]|deconv|predictor)\.(weight|bias)"
    r"|roi_heads\.box_predictor\.[0-2]\.cls_score\.zs_weight"
)
# Follows from the architecture: a file may lack it, but must agree where it contains it.
CONSTANT = re.compile(r"backbone\.bottom_up\.layers\.\d\.blocks\.\d+\.attn\.relative_position_index")


def load(model: nn.Module, state: Mapping[str, Tensor], source: object = "the checkpoint") -> None:
    """Copy a checkpoint into the model.

    Args:
        model: a Detic.
        state: key -> tensor, as torch.load(..., weights_only=True)["model"] of the official file.
        source: of the state, for messages.

    Raises:
        WeightsError: a key is missing or unknown, has another shape, or a constant differs; the message names the
            first ones.
    """
    own = model.state_dict()
    wanted = {key: value for key, value in own.items() if key in state or not CONSTANT.fullmatch(key)}
    used = check_state(state, wanted, IGNORED, source)
    for key in filter(CONSTANT.fullmatch, used):
        if not torch.equal(used[key].to(own[key].device), own[key]):
            raise WeightsError(str(source), f"{key} contains other numbers than the architecture defines.")
    model.load_state_dict(used, strict=False)
