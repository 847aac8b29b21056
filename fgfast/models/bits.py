"""Tensors in bfloat16 as the arrays that fgfast.ops takes, on the same memory: NumPy has no such dtype."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fgfast.ops import Bf16


def bits_of(tensor: Tensor) -> Bf16:
    """Return the memory of a bfloat16 tensor on the CPU as uint16."""
    found: Bf16 = tensor.view(torch.int16).numpy().view(np.uint16)
    return found


def tensor_of(bits: Bf16) -> Tensor:
    """Return the memory of an array of `bits_of` as a bfloat16 tensor."""
    return torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16)
