"""Attention within Swin's windows by the engine, on CPUs that multiply bfloat16 (engine/src/window_attention.cc).

It reads queries, keys and values where the linear layer has written them, and writes what the next one reads; PyTorch's
attention wants them by head. Biases stay float32, where PyTorch's mask has the dtype of the queries.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fgfast import ops
from fgfast.models.bits import bits_of, tensor_of


def is_native(qkv: Tensor) -> bool:
    """Return whether `native` can be used. It has no gradient."""
    if qkv.dtype != torch.bfloat16 or qkv.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return not (torch.is_grad_enabled() and qkv.requires_grad) and ops.attends(qkv.shape[-1], bf16=True)


def native(qkv: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
    """Attend within windows.

    Args:
        qkv: (n, 49, 3, heads, D) bfloat16.
        bias: (1, heads, 49, 49) float32, added to the logits.
        mask: (n, 1, 49, 49) float32, added as well, or None.

    Returns:
        (n, 49, heads, D) bfloat16.
    """
    limits = None if mask is None else mask[:, 0].numpy()
    mixed = ops.window_attention(bits_of(qkv), bias[0].detach().numpy(), limits, torch.get_num_threads())
    return tensor_of(mixed)
