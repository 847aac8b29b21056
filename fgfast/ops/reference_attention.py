"""The oracle of `attention`, in NumPy."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fgfast.records import Float32

Bf16: TypeAlias = NDArray[np.uint16]
"""Numbers in bfloat16, as the upper halves of the bits of float32."""
FloatOrBf16: TypeAlias = NDArray[np.float32] | Bf16


def attention(
    q: FloatOrBf16,
    k: FloatOrBf16,
    v: FloatOrBf16,
    rel_pos: tuple[Float32, Float32],
    token_at: NDArray[np.int64],
    padding: tuple[FloatOrBf16, FloatOrBf16],
    threads: int = 1,
) -> FloatOrBf16:
    """Compute fgfast.ops.attention, on one thread; of bfloat16 in float32, and only the result is rounded."""
    no_key, no_value = padding
    if q.dtype == np.uint16:
        blank = bf16_to_float(no_key), bf16_to_float(no_value)
        return float_to_bf16(_attention(bf16_to_float(q), bf16_to_float(k), bf16_to_float(v), rel_pos, token_at, blank))
    return _attention(q, k, v, rel_pos, token_at, (no_key, no_value))  # type: ignore[arg-type]


def window_attention(qkv: Bf16, bias: Float32, mask: Float32 | None = None, threads: int = 1) -> Bf16:
    """Compute fgfast.ops.window_attention, on one thread, in float32; only the result is rounded."""
    q, k, v = np.moveaxis(bf16_to_float(qkv), 2, 0)
    logits = np.einsum("nqhd,nkhd->nhqk", q, k) / np.float32(math.sqrt(qkv.shape[4])) + bias
    if mask is not None:
        logits += mask[:, None]
    weights = np.exp(logits - logits.max(-1, keepdims=True, initial=-np.inf))
    weights /= weights.sum(-1, keepdims=True)
    return float_to_bf16(np.einsum("nhqk,nkhd->nqhd", weights, v))


def bf16_to_float(bits: FloatOrBf16) -> Float32:
    """Return the numbers whose upper halves these are, exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def float_to_bf16(values: Float32) -> Bf16:
    """Round numbers to the nearest bfloat16, a tie to the even one; return their upper halves."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def _attention(
    q: Float32,
    k: Float32,
    v: Float32,
    rel_pos: tuple[Float32, Float32],
    token_at: NDArray[np.int64],
    padding: tuple[Float32, Float32],
) -> Float32:
    side = math.isqrt(token_at.shape[1])
    y, x = np.divmod(np.arange(side * side), side)
    biases = rel_pos[0][y[:, None] - y + side - 1] + rel_pos[1][x[:, None] - x + side - 1]
    lines = [(len(q), 1, *row.shape) for row in padding]
    keys, values = (
        np.concatenate([array, np.broadcast_to(row, line)], 1)
        for array, row, line in zip((k, v), padding, lines, strict=True)
    )
    out = np.empty_like(q)
    for tokens in token_at:
        real = tokens < q.shape[1]
        queries = q[:, tokens[real]]
        scores = np.einsum("bqhd,bkhd->bhqk", queries, keys[:, tokens]) / math.sqrt(q.shape[3])
        scores += np.einsum("bqhd,qkd->bhqk", queries, biases[real])
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        out[:, tokens[real]] = np.einsum("bhqk,bkhd->bqhd", weights, values[:, tokens])
    return out
