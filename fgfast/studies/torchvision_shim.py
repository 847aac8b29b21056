"""Lets torchvision's wheel be imported beside a torch built without its compiled operators (CPU torch from elsewhere).

torchvision registers fake kernels for two operators when imported and fails where they were never declared. Beside a
matching torch nothing is declared here: its own library is.
"""

from __future__ import annotations

import contextlib
import importlib.util
from pathlib import Path

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
# Declarations live as long as this object.
_library = torch.library.Library("torchvision", "FRAGMENT")


def declare() -> None:
    """Declare the operators unless torchvision's own library, or an earlier call, has."""
    _load_own()
    for schema in _SCHEMAS:
        if not hasattr(torch.ops.torchvision, schema.partition("(")[0]):
            _library.define(schema)


def _load_own() -> None:
    """Load torchvision's own library where it fits this torch. Were it loaded after ours, it would end the process."""
    spec = importlib.util.find_spec("torchvision")
    for folder in (spec and spec.submodule_search_locations) or ():
        for library in Path(folder).glob("_C*.so"):
            with contextlib.suppress(OSError):
                torch.ops.load_library(str(library))
