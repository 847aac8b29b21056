"""Half precision for transformers' Grounding DINO: which modules are rounded and which stay float32."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fgfast.backends.session import DTYPES
from fgfast.methods import Precision

# These determine coordinates and scores, and cost little: float32 in every precision.
FLOAT32_MODULES = re.compile(r"(bbox_embed|class_embed)(\.\d+)?$|(reference_points_head|sampling_offsets)$")


def float32_modules(model: nn.Module) -> list[nn.Module]:
    """Return the modules that match FLOAT32_MODULES."""
    return [m for name, m in model.named_modules() if FLOAT32_MODULES.search(name) and not isinstance(m, nn.ModuleList)]


def float32_layers(model: nn.Module) -> set[int]:
    """Return the id of each of these modules and of all modules within them."""
    return {id(layer) for module in float32_modules(model) for layer in module.modules()}


def with_precision(model: Any, precision: Precision) -> Any:
    """Prepare `model` for autocast: weights of matrix products in half precision, all else in float32."""
    model.requires_grad_(False).eval()
    if precision == "fp32":
        return model
    kept = float32_layers(model)
    for layer in model.modules():
        if isinstance(layer, (nn.LayerNorm, nn.GroupNorm)):
            layer.register_forward_pre_hook(lambda _, inputs: tuple(x.float() for x in inputs))
        elif isinstance(layer, (nn.Linear, nn.Conv2d)) and id(layer) not in kept:
            layer.to(DTYPES[precision])
    for module in float32_modules(model):
        module.forward = _in_float32(module.forward, model.device.type)
    return model


def _in_float32(forward: Callable[..., Any], device: str) -> Callable[..., Any]:
    """Wrap `forward` to run outside autocast with its floating-point inputs in float32."""

    def exact(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device, enabled=False):
            return forward(
                *(x.float() if x.is_floating_point() else x for x in args),
                **{name: x.float() if x.is_floating_point() else x for name, x in kwargs.items()},
            )

    return exact
