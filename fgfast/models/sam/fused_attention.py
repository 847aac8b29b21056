"""Attention with decomposed relative positions as one fused Triton kernel, for GPUs.

`folded` (attention.py) has PyTorch's flash attention compute heads of D + 2S (+ padding) columns: 192 for D = 64 and
S = 64, three times the arithmetic, on copies of q, k and v that are three times as wide. Here heads stay D wide:

* A small kernel computes both biases. The queries of one row (one column) share the S rows of the table that they need,
  so that each bias is a plain matrix product per row (column) of the square, without a gather.
* The attention kernel works as flash attention does: it takes a block of queries through all keys and keeps the running
  maximum, sum and output. A block of keys is one row of the square (or several), padded to a power of two columns. The
  bias of the key's column is then the same tile for all blocks of keys: it is loaded once and stays in registers. The
  bias of the key's row is one number per query and block of keys, added to the running maximum instead of the scores.
* Logits are in units of log2(e), because GPUs compute powers of two. The biases are stored in float32, and so are all
  sums; only the probabilities are rounded to the dtype of the values before the last product, as in PyTorch's kernels.
  Biases in half precision would save 34 of 118 MB per image and global block of ViT-L; the error of the result would be
  1.8 times as large in bfloat16 and 4.3 times in float16 (interpreted, 8 x 8 tokens, biases of a spread of 16).

A head size that is no power of two (80 in ViT-H) is split into two (64 + 16), not padded to the next (128).

The kernels are one custom operator, so that torch.compile keeps it as one node; the compiled kernels of eager,
compiled and recorded graphs are the same. Tiles are fixed, not found by autotuning, which would have to synchronise
with the host. The first call for a shape compiles; before a recording that is the warm-up.

FlexAttention with a `score_mod` computes the same, but it reads both biases from memory once per score, needs
torch.compile even where the model runs eagerly, and compiles for each shape.

Letters in shapes: G windows (or images), H heads, S side of the square, N = S * S tokens, D head size.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

# tl.dot multiplies at least 16 by 16 by 16.
_LEAST = 16
_LOG2_E = math.log2(math.e)


class Tiles(NamedTuple):
    """How one program of the attention kernel works.

    Attributes:
        queries: it takes.
        rows: of the square whose keys it takes at a time.
        warps: it consists of.
        stages: of keys and values that are on their way to it at a time.
    """

    queries: int
    rows: int
    warps: int
    stages: int


def tiles(side: int) -> Tiles:
    """Return the tiles for a square of `side`, the same on all GPUs: tests compile them for each, nothing is spilled.

    Other tiles may be faster on some GPU; none of them is measured.
    """
    if side <= 2 * _LEAST:
        return Tiles(64, 2, 4, 2)
    # Half the queries would read keys and values twice as often, 1 GB per image and block of ViT-L from the L2
    # cache. Twice the keys would not fit into registers.
    return Tiles(128, 1, 8, 3)


def split(size: int) -> tuple[int, int]:
    """Return a head size as the sum of a power of two and a smaller one, or 0.

    Raises:
        ValueError: it is no such sum, or one of the two is below 16.
    """
    main = 1 << (size.bit_length() - 1)
    rest = size - main
    if main < _LEAST or (rest and (rest < _LEAST or rest & (rest - 1))):
        raise ValueError(
            f"the fused attention cannot split heads of {size}; it takes powers of two from {_LEAST}, and sums of two"
        )
    return main, rest


def fits(size: int) -> bool:
    """Return whether the kernels take heads of `size`."""
    try:
        return bool(split(size))
    except ValueError:
        return False


def fused(q: Tensor, k: Tensor, v: Tensor, rel_pos_h: Tensor, rel_pos_w: Tensor) -> Tensor:
    """Compute `attend` with the kernels of this module. Arguments as for attention.attend; it has no gradient.

    Returns:
        (G, H, N, D) of q's dtype, in memory by (G, N, H, D).

    Raises:
        ValueError: the head size cannot be split, or dtypes differ.
    """
    mixed: Tensor = _operator(q, k, v, rel_pos_h, rel_pos_w)
    return mixed.transpose(1, 2)


@torch.library.custom_op("fgfast::fused_attention", mutates_args=())
def _operator(q: Tensor, k: Tensor, v: Tensor, rel_pos_h: Tensor, rel_pos_w: Tensor) -> Tensor:
    """Return (G, N, H, D); see `fused`."""
    if not q.dtype == k.dtype == v.dtype:
        raise ValueError(f"q, k and v must be of one dtype, not {q.dtype}, {k.dtype}, {v.dtype}; convert them")
    groups, heads, tokens, size = q.shape
    q, k, v = (part if part.stride(3) == 1 else part.contiguous() for part in (q, k, v))
    side = math.isqrt(tokens)
    out = q.new_empty(groups, tokens, heads, size)
    bias_h = q.new_empty(groups * heads, side, tokens, dtype=torch.float32)
    bias_w = q.new_empty(groups * heads, tokens, side, dtype=torch.float32)
    chosen = tiles(side)
    shape = shape_of(side, size)
    tables = rel_pos_h.contiguous(), rel_pos_w.contiguous()
    # Triton launches on the current device.
    with torch.cuda.device(q.device) if q.is_cuda else nullcontext():
        bias_kernel[(side * groups * heads,)](q, *tables, bias_h, bias_w, heads, *q.stride()[:3], **shape)
        attention_kernel[(triton.cdiv(tokens, chosen.queries) * groups * heads,)](
            *(q, k, v, bias_h, bias_w, out, heads),
            *(*q.stride()[:3], *k.stride()[:3], *v.stride()[:3]),
            _LOG2_E / math.sqrt(size),
            **shape,
            queries=chosen.queries,
            rows=chosen.rows,
            num_warps=chosen.warps,
            num_stages=chosen.stages,
        )
    return out


@_operator.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, rel_pos_h: Tensor, rel_pos_w: Tensor) -> Tensor:
    groups, heads, tokens, size = q.shape
    return q.new_empty(groups, tokens, heads, size)


def shape_of(side: int, size: int) -> dict[str, int]:
    """Return the constants of both kernels: the side, the columns that it is padded to, and the parts of a head."""
    main, rest = split(size)
    return {"side": side, "width": max(_LEAST, triton.next_power_of_2(side)), "main": main, "rest": rest}


# The number of heads is not compiled in, so that the kernel of two heads, which is tried first, is that of all.
@triton.jit(do_not_specialize=["heads"])
def bias_kernel(  # type: ignore[no-untyped-def]
    q, rel_pos_h, rel_pos_w, bias_h, bias_w, heads, q_group, q_head, q_token,
    side: tl.constexpr, width: tl.constexpr, main: tl.constexpr, rest: tl.constexpr,
):  # fmt: skip
    """Compute the biases, in units of log2(e), of the queries of one row and of those of one column.

    Writes bias_h (G * H, S, N) by (key's row, query) and bias_w (G * H, N, S) by (query, key's column), float32.
    """
    line = tl.program_id(0) % side
    pair = (tl.program_id(0) // side).to(tl.int64)
    q += pair // heads * q_group + pair % heads * q_head
    to = tl.arange(0, width)
    # Beyond the last, programs read real memory again; nothing is written.
    place = tl.minimum(to, side - 1)
    inside = (to < side)[:, None] & (to < side)[None, :]
    # The table's row of each key's row (or column) as seen from this line.
    offset = (line - place + side - 1) * (main + rest)
    along, across = line * side + place, place * side + line
    by_row = _product(q + along * q_token, rel_pos_h + offset, main, rest)
    tl.store(bias_h + (pair * side + place[None, :]) * (side * side) + along[:, None], by_row, mask=inside)
    by_column = _product(q + across * q_token, rel_pos_w + offset, main, rest)
    tl.store(bias_w + (pair * side * side + across[:, None]) * side + place[None, :], by_column, mask=inside)


@triton.jit
def _product(at_q, at_table, main: tl.constexpr, rest: tl.constexpr):  # type: ignore[no-untyped-def]
    """Multiply rows of q by rows of a table, and by log2(e)."""
    first = tl.arange(0, main)
    part = tl.load(at_q[:, None] + first[None, :])
    found = tl.dot(part, tl.load(at_table[None, :] + first[:, None]).to(part.dtype), input_precision="ieee")
    if rest > 0:
        second = main + tl.arange(0, rest)
        part = tl.load(at_q[:, None] + second[None, :])
        table = tl.load(at_table[None, :] + second[:, None]).to(part.dtype)
        found = tl.dot(part, table, found, input_precision="ieee")
    return found * 1.4426950408889634


@triton.jit(do_not_specialize=["heads"])
def attention_kernel(  # type: ignore[no-untyped-def]
    q, k, v, bias_h, bias_w, out, heads,
    q_group, q_head, q_token, k_group, k_head, k_token, v_group, v_head, v_token,
    scale,
    side: tl.constexpr, width: tl.constexpr, main: tl.constexpr, rest: tl.constexpr,
    queries: tl.constexpr, rows: tl.constexpr,
):  # fmt: skip
    """Attend with `queries` queries of one head: out (G, N, H, D). The strides of q, k, v are in elements."""
    tokens: tl.constexpr = side * side
    size: tl.constexpr = main + rest
    # One axis, because the others end at 65535; neighbours share keys and values.
    blocks: tl.constexpr = (tokens + queries - 1) // queries
    pair = (tl.program_id(0) // blocks).to(tl.int64)
    group, head = pair // heads, pair % heads
    place = tl.program_id(0) % blocks * queries + tl.arange(0, queries)
    # Beyond the last token, and beyond the last column of a row, programs read real memory again; nothing is written.
    query = tl.minimum(place, tokens - 1)
    first, second = tl.arange(0, main), main + tl.arange(0, rest if rest > 0 else 1)
    row, column = tl.arange(0, rows * width) // width, tl.arange(0, rows * width) % width

    at_q = q + group * q_group + head * q_head + query[:, None] * q_token
    k += group * k_group + head * k_head
    v += group * v_group + head * v_head
    q_first = tl.load(at_q + first[None, :])
    if rest > 0:
        q_second = tl.load(at_q + second[None, :])
    at_w = bias_w + (pair * tokens + query[:, None]) * side + column[None, :]
    # Minus infinity takes the padding columns out of the softmax.
    by_column = tl.load(at_w) if width == side else tl.load(at_w, mask=column[None, :] < side, other=float("-inf"))
    at_h = bias_h + pair * side * tokens + query

    top = tl.full([queries], float("-inf"), tl.float32)
    total = tl.zeros([queries], tl.float32)
    mixed_first = tl.zeros([queries, main], tl.float32)
    if rest > 0:
        mixed_second = tl.zeros([queries, rest], tl.float32)
    for y in range(0, side, rows):
        key = tl.minimum((y + row) * side + column, tokens - 1)
        scores = tl.dot(q_first, tl.load(k + key[None, :] * k_token + first[:, None]), input_precision="ieee")
        if rest > 0:
            k_second = tl.load(k + key[None, :] * k_token + second[:, None])
            scores = tl.dot(q_second, k_second, scores, input_precision="ieee")
        scores = scores * scale + by_column
        if rows == 1:
            by_row = tl.load(at_h + y * tokens)
            higher = tl.maximum(top, tl.max(scores, 1) + by_row)
            weight = tl.exp2(scores + (by_row - higher)[:, None])
        else:
            for r in tl.static_range(rows):
                by_row = tl.load(at_h + tl.minimum(y + r, side - 1) * tokens)
                by_row = tl.where(y + r < side, by_row, float("-inf"))
                scores = tl.where(row[None, :] == r, scores + by_row[:, None], scores)
            higher = tl.maximum(top, tl.max(scores, 1))
            weight = tl.exp2(scores - higher[:, None])
        shrink = tl.exp2(top - higher)
        top = higher
        total = total * shrink + tl.sum(weight, 1)
        weight = weight.to(v.dtype.element_ty)
        at_v = v + key[:, None] * v_token
        mixed_first = tl.dot(
            weight, tl.load(at_v + first[None, :]), mixed_first * shrink[:, None], input_precision="ieee"
        )
        if rest > 0:
            v_second = tl.load(at_v + second[None, :])
            mixed_second = tl.dot(weight, v_second, mixed_second * shrink[:, None], input_precision="ieee")
    inside = (place < tokens)[:, None]
    at_out = out + ((group * tokens + query[:, None]) * heads + head) * size
    tl.store(at_out + first[None, :], (mixed_first / total[:, None]).to(out.dtype.element_ty), mask=inside)
    if rest > 0:
        tl.store(at_out + second[None, :], (mixed_second / total[:, None]).to(out.dtype.element_ty), mask=inside)
