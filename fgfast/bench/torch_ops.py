"""The ops in PyTorch, as a user of PyTorch alone would write them, for `fgfast bench ops`.

They take and return arrays, as the native ops do; converting between arrays and tensors copies nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fgfast.models.bits import bits_of, tensor_of
from fgfast.models.detic import suppression
from fgfast.models.sam import attention as sam_attention
from fgfast.models.sam import transform
from fgfast.ops import Bf16, FloatOrBf16
from fgfast.ops.reference_masks import Masks
from fgfast.records import Bool, Float32, UInt8


@torch.inference_mode()
def mask_post(logits: Float32, size: tuple[int, int], side: int) -> Masks:
    """Arguments and result are those of fgfast.ops.mask_post.

    The masks are in the batch dimension, for which PyTorch has the faster kernel: with one thread and three masks it is
    four times as fast as with the masks in the channel dimension.
    """
    count, masks, low, _ = logits.shape
    full = transform.to_stored_size(torch.from_numpy(logits).view(-1, 1, low, low), *size, side)[:, 0]
    bits = full > transform.THRESHOLD
    areas = bits.sum((-1, -2))
    rows, columns = bits.any(-1), bits.any(-2)
    ends = [_first(columns), _first(rows), size[1] - _first(columns.flip(-1)), size[0] - _first(rows.flip(-1))]
    boxes = torch.stack(ends, -1) * (areas > 0)[:, None]
    borders = torch.stack([columns[:, 0], rows[:, 0], columns[:, -1], rows[:, -1]], -1)
    shape = (count, masks)
    return Masks(
        bits.view(*shape, *size).numpy(),
        boxes.to(torch.float32).view(*shape, 4).numpy(),
        areas.view(shape).numpy(),
        transform.stability(full).view(shape).numpy(),
        borders.view(*shape, 4).numpy(),
    )


def _first(flags: Tensor) -> Tensor:
    """The index of the first True in each row of (N, L) bool: (N,) int64."""
    return flags.to(torch.uint8).argmax(-1)


@torch.inference_mode()
def composite(pixels: UInt8, bits: Bool, colour: UInt8) -> UInt8:
    """Put the subject on a colour: (H, W, 3) uint8."""
    kept = torch.where(torch.from_numpy(bits)[..., None], torch.from_numpy(pixels), torch.from_numpy(colour))
    return np.asarray(kept.numpy())


@torch.inference_mode()
def resize(pixels: UInt8, size: tuple[int, int]) -> UInt8:
    """Resize (H, W, 3) uint8 to (h, w, 3) uint8 with PyTorch's antialiased bilinear filter. It rounds differently."""
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    resized = functional.interpolate(planes, size, mode="bilinear", antialias=True, align_corners=False)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


@torch.inference_mode()
def nms(boxes: Float32, scores: Float32, threshold: float, limit: int) -> Any:
    """Arguments and result are those of fgfast.ops.nms; fgfast's form in PyTorch takes the scores in float64."""
    return suppression.nms(torch.from_numpy(boxes), torch.from_numpy(scores).double(), threshold, limit).numpy()


def torchvision_nms() -> Callable[..., Any] | None:
    """Return torchvision's compiled op with the arguments of fgfast.ops.nms, or None if it does not load here.

    The op itself has no limit.
    """
    try:
        compiled = importlib.import_module("torchvision.ops").nms
        compiled(torch.zeros(0, 4), torch.zeros(0), 0.5)
    except (ImportError, RuntimeError, AttributeError):
        return None

    @torch.inference_mode()
    def suppress(boxes: Float32, scores: Float32, threshold: float, limit: int) -> Any:
        return compiled(torch.from_numpy(boxes), torch.from_numpy(scores), threshold)[:limit].numpy()

    return suppress


@torch.inference_mode()
def attention(
    q: FloatOrBf16,
    k: FloatOrBf16,
    v: FloatOrBf16,
    rel_pos: tuple[Float32, Float32],
    token_at: Any,
    padding: tuple[FloatOrBf16, FloatOrBf16],
) -> FloatOrBf16:
    """Arguments and result are those of fgfast.ops.attention; tokens are gathered into windows for fused attention."""
    windows, places = token_at.shape
    at = torch.from_numpy(token_at).flatten()
    own = torch.argsort(at)[: q.shape[1]]
    nothing = np.zeros_like(padding[0])

    def sorted_in(tokens: FloatOrBf16, rest: FloatOrBf16) -> Tensor:
        """Gather (1, T, H, D) into (windows, H, places, D)."""
        rows = torch.cat([_tensor(tokens)[0], _tensor(rest)[None]])
        return rows[at].unflatten(0, (windows, places)).transpose(1, 2)

    parts = (sorted_in(tokens, rest) for tokens, rest in ((q, nothing), (k, padding[0]), (v, padding[1])))
    mixed = sam_attention.attend(*parts, *(torch.from_numpy(table) for table in rel_pos))
    return _array(mixed.transpose(1, 2).flatten(0, 1)[own][None].contiguous())


@torch.inference_mode()
def window_attention(qkv: Bf16, bias: Float32) -> Bf16:
    """Arguments and result are those of fgfast.ops.window_attention."""
    q, k, v = tensor_of(qkv).permute(2, 0, 3, 1, 4)
    mask = torch.from_numpy(bias)[None].to(torch.bfloat16)
    mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return bits_of(mixed.transpose(1, 2).contiguous())


def _tensor(values: Any) -> Tensor:
    return tensor_of(values) if values.dtype == np.uint16 else torch.from_numpy(values)


def _array(values: Tensor) -> FloatOrBf16:
    return bits_of(values) if values.dtype == torch.bfloat16 else np.asarray(values.numpy())
