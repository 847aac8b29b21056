"""Cases of the fused attention in Triton's interpreter, run by test_sam_fused.py in a process of its own.

The interpreter is chosen when triton is imported, and a process that interprets cannot compile. Prints JSON: lists
of [name, largest difference, rms], from the definition in float64 where nothing else is said.
"""

from __future__ import annotations

import json
import logging
import math
import os
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import torch
import triton.language as tl
from torch import Tensor
from triton.runtime import interpreter

from fgfast.models.sam import attention, fused_attention
from fgfast.models.sam.image_encoder import Attention, WindowAttention


def multiply_bfloat16(self: Any, a: Any, b: Any, d: Any, *_: Any) -> Any:
    """`tl.dot` for the interpreter, whose own multiplies bfloat16 as if it were uint16 (Triton 3.7)."""

    def wide(x: Any) -> Any:
        return (x.data.astype(np.uint32) << 16).view(np.float32) if x.dtype.scalar == tl.bfloat16 else x.data

    product = np.matmul(wide(a), wide(b), dtype=d.data.dtype) + d.data
    return interpreter.TensorHandle(product, d.dtype.scalar)


interpreter.InterpreterBuilder.create_dot = multiply_bfloat16


class FirstPrograms:
    """A kernel of which only the first programs run: whole squares of 64 take the interpreter minutes."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return self.kernel[(1,) * len(grid)]


def drawn(side: int, heads: int, size: int, dtype: torch.dtype, gain: float, groups: int) -> list[Tensor]:
    """Return q, k, v, strided as image_encoder.Attention's, and two tables."""
    torch.manual_seed(0)
    qkv = (torch.randn(groups, side**2, 3 * heads * size) * gain).to(dtype)
    parts = [part.unflatten(2, (heads, -1)).transpose(1, 2) for part in qkv.chunk(3, -1)]
    return parts + list(torch.randn(2, 2 * side - 1, size).div(4).to(dtype).float())


def biases(q: Tensor, tables: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return (G, H, N, S) by the key's row, and by its column."""
    side = math.isqrt(q.shape[2])
    at, line = torch.arange(side**2), torch.arange(side)
    by_row, by_column = (
        torch.einsum("ghqd,qkd->ghqk", q, table.to(q.dtype)[mine[:, None] - line + side - 1])
        for table, mine in zip(tables, (at // side, at % side), strict=True)
    )
    return by_row, by_column


def definition(q: Tensor, k: Tensor, v: Tensor, *tables: Tensor, queries: int | None = None) -> Tensor:
    q, k, v = (part.double() for part in (q, k, v))
    by_row, by_column = (bias[:, :, :queries] for bias in biases(q, list(tables)))
    q = q[:, :, :queries]
    bias = (by_row[..., :, None] + by_column[..., None, :]).flatten(-2)
    return (q @ k.mT / math.sqrt(q.shape[-1]) + bias).softmax(-1) @ v


def off(name: str, found: Tensor, wanted: Tensor) -> list[Any]:
    difference = (found.double() - wanted.double()).flatten()
    return [name, float(difference.abs().max()), float(difference.square().mean().sqrt())]


def windows() -> list[Any]:
    """Whole operators on squares that fill no block: several windows and heads, a head of two parts, sides 5 to 14."""
    found = []
    for side, groups, heads, size, dtype, gain in (
        (14, 1, 1, 64, torch.bfloat16, 1),
        (7, 2, 2, 48, torch.float16, 1),
        (5, 2, 3, 16, torch.float32, 1),
        (5, 1, 1, 80, torch.bfloat16, 1),
        (5, 1, 2, 32, torch.float16, 60),
    ):
        given = drawn(side, heads, size, dtype, gain, groups)
        made, wanted = fused_attention.fused(*given), definition(*given)
        # Of values that are `gain` times as large.
        found.append(off(f"{str(dtype)[6:]} {side} {size} {gain}", made / gain, wanted / gain))
    return found


def whole_image() -> list[Any]:
    """The first 128 queries over 64 x 64 tokens, and the biases of the first row and column."""
    kernels = fused_attention.bias_kernel, fused_attention.attention_kernel
    side, found = 64, []

    class ByTorch(FirstPrograms):
        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            def launch(q: Tensor, h: Tensor, w: Tensor, to_h: Tensor, to_w: Tensor, *rest: Any, **shape: int) -> None:
                super(ByTorch, self).__getitem__(grid)(q, h, w, to_h, to_w, *rest, **shape)
                by_row, by_column = (bias[0, 0] * math.log2(math.e) for bias in biases(q.float(), [h, w]))
                found.append(off(f"{str(q.dtype)[6:]} bias_h", to_h[0][:, :side], by_row[:side].T))
                found.append(off(f"{str(q.dtype)[6:]} bias_w", to_w[0][::side], by_column[::side]))
                to_h[0], to_w[0] = by_row.T, by_column

            return launch

    fused_attention.bias_kernel = ByTorch(kernels[0])
    fused_attention.attention_kernel = FirstPrograms(kernels[1])
    given = drawn(side, 1, 80, torch.bfloat16, 1, 1)
    made = fused_attention.fused(*given)[:, :, :128]
    found.append(off("bfloat16 64 80", made, definition(*given, queries=128)))
    fused_attention.bias_kernel, fused_attention.attention_kernel = kernels
    return found


def modules() -> list[Any]:
    """The encoder's two kinds of attention, `fused` against `folded`: their strides, and windows with padding."""
    found = []
    for kind, attend in (("whole", Attention(32, 2, 4)), ("windows", WindowAttention(32, 2, 4, 3))):
        torch.manual_seed(0)
        for parameter in attend.parameters():
            parameter.copy_(torch.randn(parameter.shape) / 2)
        attend.qkv.half()
        tokens, made = torch.randn(2, 16, 32), {}
        for attend.implementation in ("fused", "folded"):
            made[attend.implementation] = attend.by_torch(tokens)
        found.append(off(f"float16 {kind}", made["fused"], made["folded"]))
    return found


def compiled() -> float:
    """Return how far a graph in torch.compile is from the eager one; it must be one graph."""
    given = drawn(4, 2, 16, torch.float16, 1, 1)

    def twice(*given: Tensor) -> Tensor:
        mixed = attention.attend(*given, implementation="fused")
        return mixed.transpose(1, 2).flatten(2) * 2

    together = torch.compile(twice, fullgraph=True, dynamic=False, backend="aot_eager")
    return float((together(*given) - twice(*given)).abs().max())


def main() -> None:
    logging.disable()
    torch.set_num_threads(1)  # the squares are small
    names = ["test_schema", "test_faketensor"]
    torch.library.opcheck(fused_attention._operator, drawn(4, 2, 16, torch.float16, 1, 1), test_utils=names)
    print(
        json.dumps({"windows": windows(), "whole image": whole_image(), "modules": modules(), "compiled": compiled()})
    )


if __name__ == "__main__":
    with torch.inference_mode():
        main()
