"""Attention with decomposed relative positions, without the heads x tokens x tokens bias of the reference.

The reference computes softmax(q.k / sqrt(D) + bias_h + bias_w) v, where bias_h depends on the query and on the key's
row, bias_w on the query and on the key's column. Four implementations compute exactly this:

* `native`: engine/src/attention.cc (float32, AVX-512) and attention_bf16.cc (bfloat16, AMX or AVX-512 BF16) add the
  biases to the scores where they are computed, and read the tokens of windows in place. In ViT-B, float32, it takes
  0.64 (whole image) and 0.5 (windows) of the time of `masked` including the partition into windows and back. In
  bfloat16 by AVX-512 a block, products included, takes 0.2 (whole image) and 0.67 (windows) of that of `folded`, and
  its error against float32 is smaller: biases are not rounded.
* `fused`: a Triton kernel (fused_attention.py). For half precision on GPUs of compute capability 8.0 and later; where
  it does not work, the log says why, and `folded` takes its place.
* `folded`: the biases become extra columns of the query, multiplied by one-hot columns of the key, so that one fused
  attention over longer heads computes everything. For half precision elsewhere, and in exported graphs.
* `masked`: the bias is computed for a few queries at a time, small enough for the cache, and passed as an additive
  mask. For float32 on other CPUs, where longer heads cost more than the addition.

Letters in shapes: G windows (or images), H heads, S side of the square, N = S * S tokens, D head size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fgfast import ops
from fgfast.models.bits import bits_of, tensor_of

# Elements of one piece of the mask: 1 Mi of float32 are 4 MiB, the fastest of 1 to 16 Mi with 2 MiB of L2 a core.
_PIECE = 1 << 20
# Folded heads are padded to a multiple of this: AMX multiplies 32 bf16 at once, GPU kernels want multiples of 8.
_ALIGN = 32


def is_native(x: Tensor, weight: Tensor, size: int) -> bool:
    """Return whether `native` can be used for `x` times `weight` with heads of `size`. It has no gradient."""
    if x.device.type != "cpu" or weight.dtype not in (torch.float32, torch.bfloat16) or torch.compiler.is_compiling():
        return False
    learns = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    return not learns and ops.attends(size, weight.dtype == torch.bfloat16)


def native(q: Tensor, k: Tensor, v: Tensor, tables: tuple[Tensor, Tensor], at: Tensor, bias: Tensor) -> Tensor:
    """Attend within windows, reading the tokens in place.

    Args:
        q: (B, T, H, D) float32 or bfloat16, unscaled queries; likewise k and v.
        k: keys.
        v: values.
        tables: rel_pos_h and rel_pos_w as for `attend`.
        at: (W, N) int64, the token at each place of each window; T where there is none.
        bias: (3 * H * D,) of q's dtype: query, key and value where there is no token.

    Returns:
        (B, T, H, D) of q's dtype.
    """
    rel_pos = tables[0].detach().numpy(), tables[1].detach().numpy()
    _, no_key, no_value = _array(bias.detach().view(3, *q.shape[2:]))
    mixed: Any = ops.attention(
        _array(q), _array(k), _array(v), rel_pos, at.numpy(), (no_key, no_value), torch.get_num_threads()
    )
    return tensor_of(mixed) if q.dtype == torch.bfloat16 else torch.from_numpy(mixed)


def _array(tensor: Tensor) -> ops.FloatOrBf16:
    return bits_of(tensor) if tensor.dtype == torch.bfloat16 else tensor.numpy()


def attend(
    q: Tensor, k: Tensor, v: Tensor, rel_pos_h: Tensor, rel_pos_w: Tensor, implementation: str | None = None
) -> Tensor:
    """Attend over a square of tokens, with PyTorch's or Triton's fastest implementation on this device.

    Args:
        q: (G, H, N, D) float32 or half, unscaled queries; likewise k and v. N is a square number, row by row.
        k: keys.
        v: values.
        rel_pos_h: (2S - 1, D) float32, row r belongs to "query's row - key's row = r - (S - 1)".
        rel_pos_w: (2S - 1, D) float32, the same for columns.
        implementation: one of IMPLEMENTATIONS, for comparisons; None chooses.

    Returns:
        (G, H, N, D) of q's dtype; any strides.
    """
    if implementation is None:
        learns = torch.is_grad_enabled() and any(part.requires_grad for part in (q, k, v, rel_pos_h, rel_pos_w))
        implementation = _fastest(q, learns)
    return IMPLEMENTATIONS[implementation](q, k, v, rel_pos_h, rel_pos_w)


def _fastest(q: Tensor, learns: bool) -> str:
    if torch.compiler.is_exporting():
        return "folded"
    if q.device.type == "cpu":
        return "masked" if q.dtype == torch.float32 else "folded"
    # By arithmetic, not measured: ViT-L on an H200, per image, with 4.0 TB/s and 320 TFLOP/s in attention. The four
    # global blocks take 0.9 ms in `fused` and 2.6 ms in `folded`, whose heads are three times as wide. In the other 20
    # the 25 windows move 78 MB a block in `fused` and 216 MB in `folded` (copies to heads of 96): 0.4 and 1.1 ms in
    # all. Their arithmetic is 6 and 10 GFLOP a block; if the kernel's smaller tiles reach 150 TFLOP/s, windows take
    # 1.2 and 1.7 ms in all, so that `fused` is used for them, too.
    return "fused" if q.device.type == "cuda" and not learns and _is_fused(q) else "folded"


def _is_fused(q: Tensor) -> bool:
    # Here, not above: what it imports of torch's compiler takes a second, which a CPU never needs.
    from fgfast.models.sam.fused_trial import DTYPES, works

    dtype = str(q.dtype)
    return dtype in DTYPES and works(q.device.index or 0, math.isqrt(q.shape[2]), q.shape[3], dtype, folded)


def fused(q: Tensor, k: Tensor, v: Tensor, rel_pos_h: Tensor, rel_pos_w: Tensor) -> Tensor:
    """Compute `attend` in Triton; raises ImportError where it is not installed."""
    from fgfast.models.sam import fused_attention

    return fused_attention.fused(q, k, v, rel_pos_h, rel_pos_w)


def folded(q: Tensor, k: Tensor, v: Tensor, rel_pos_h: Tensor, rel_pos_w: Tensor) -> Tensor:
    """Compute `attend` as one fused attention: [q, bias_h, bias_w] . [k, one-hot row, one-hot column]."""
    size = q.shape[-1]
    side = math.isqrt(q.shape[-2])
    padding = -(size + 2 * side) % _ALIGN
    # The fused attention divides everything by sqrt(D); the tables are multiplied by it beforehand, in float32.
    gain = math.sqrt(size)
    squares = q.unflatten(2, (side, side)).contiguous()
    bias_h, bias_w = relative_bias(squares, rel_pos_h * gain, rel_pos_w * gain)
    no_columns = q.new_zeros(1).expand(*squares.shape[:-1], padding)
    long_q = torch.cat([squares, bias_h, bias_w, no_columns], -1).flatten(2, 3)
    long_k = torch.cat([k, one_hot_positions(side, padding, k).expand(*k.shape[:-1], -1)], -1)
    long_v = functional.pad(v, (0, 2 * side + padding))
    return functional.scaled_dot_product_attention(long_q, long_k, long_v, scale=1 / gain)[..., :size]


def masked(q: Tensor, k: Tensor, v: Tensor, rel_pos_h: Tensor, rel_pos_w: Tensor) -> Tensor:
    """Compute `attend` in pieces, each with an additive mask of `_PIECE` elements (but at least one row of tokens).

    All pieces use the same memory for their mask: fresh pages cost more than the computation in them.
    """
    groups, heads, tokens, size = q.shape
    side = math.isqrt(tokens)
    squares = q.unflatten(2, (side, side)).contiguous()
    bias_h, bias_w = relative_bias(squares, rel_pos_h, rel_pos_w)
    group_step = _clamp(_PIECE // (heads * tokens**2), groups)
    head_step = _clamp(_PIECE // tokens**2, heads)
    row_step = _clamp(_PIECE // (side * tokens), side)
    if row_step < side:
        # Read once per piece, and faster where each head is contiguous.
        k, v = k.contiguous(), v.contiguous()
    memory = q.new_empty(group_step, head_step, row_step, side, side, side)
    out = q.new_empty(groups, side, side, heads, size).permute(0, 3, 1, 2, 4)
    for g, h, y in product(range(0, groups, group_step), range(0, heads, head_step), range(0, side, row_step)):
        whole = slice(g, g + group_step), slice(h, h + head_step)
        piece = *whole, slice(y, y + row_step)
        part_q, part_h, part_w = squares[piece], bias_h[piece], bias_w[piece]
        mask = memory[: part_q.shape[0], : part_q.shape[1], : part_q.shape[2]]
        torch.add(part_h[..., :, None], part_w[..., None, :], out=mask)
        mixed = functional.scaled_dot_product_attention(
            part_q.flatten(2, 3), k[whole], v[whole], attn_mask=mask.flatten(4, 5).flatten(2, 3)
        )
        out[piece] = mixed.view_as(part_q)
    return out.flatten(2, 3)


IMPLEMENTATIONS: dict[str, Callable[..., Tensor]] = {"fused": fused, "folded": folded, "masked": masked}


def relative_bias(q: Tensor, rel_pos_h: Tensor, rel_pos_w: Tensor) -> tuple[Tensor, Tensor]:
    """Compute q . rel_pos_h[y - y' + S - 1] for every key row y', and the same for columns.

    Each table is multiplied with all queries in one product; the part that belongs to a query is then a window that
    slides by one from row to row (column to column), selected by dropping one element per row: views, no gather.

    Args:
        q: (G, H, S, S, D), contiguous queries by row y and column x.
        rel_pos_h: (2S - 1, D) float32.
        rel_pos_w: (2S - 1, D) float32.

    Returns:
        (G, H, S, S, S) of q's dtype by (y, x, y'), and by (y, x, x').
    """
    groups, heads, side, _, _ = q.shape
    offsets = 2 * side - 1
    h = functional.linear(q, rel_pos_h.flip(0).to(q.dtype))
    h = functional.pad(h.reshape(groups, heads, side, side * offsets), (0, 1)).flatten(2)
    h = h[:, :, side - 1 : side - 1 + side * side * offsets].view(groups, heads, side, side, offsets)
    w = functional.linear(q, rel_pos_w.flip(0).to(q.dtype)).flatten(3)
    w = w[:, :, :, side - 1 : side - 1 + side * (offsets - 1)].unflatten(3, (side, offsets - 1))
    return h[..., :side], w[..., :side]


def one_hot_positions(side: int, padding: int, like: Tensor) -> Tensor:
    """Return (N, 2S + padding) of `like`'s dtype: the token's row one-hot, its column one-hot, zeros."""
    eye = torch.eye(side, dtype=like.dtype, device=like.device)
    columns = [eye.repeat_interleave(side, 0), eye.repeat(side, 1), eye.new_zeros(side * side, padding)]
    return torch.cat(columns, 1)


def _clamp(wanted: int, most: int) -> int:
    return max(1, min(wanted, most))
