"""Lets torchvision's wheel be imported beside a torch built without its compiled operators (CPU torch from elsewhere).

torchvision registers fake kernels for two operators when imported and fails where they were never declared.
"""

from __future__ import annotations

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
# Declarations live as long as this object.
_library = torch.library.Library("torchvision", "FRAGMENT")


def declare() -> None:
    """Declare the operators unless torchvision's own library, or an earlier call, has."""
    for schema in _SCHEMAS:
        if not hasattr(torch.ops.torchvision, schema.partition("(")[0]):
            _library.define(schema)
