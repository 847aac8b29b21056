"""Operators that PyTorch lacks in a form with fixed shapes. They compute in PyTorch, and are few operators in ONNX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from onnxscript import opset18 as op
from torch import Tensor

from fgfast.models.detic.roi import BINS, LEVELS, axis_weights
from fgfast.models.detic.suppression import nms


@torch.library.custom_op("fgfast::suppress", mutates_args=())
def suppress(boxes: Tensor, scores: Tensor, overlap: float, limit: int) -> Tensor:
    """Suppress boxes greedily, as ProposalGenerator.suppress does, with a result of fixed size.

    Args:
        boxes: (N, 4) float32, x0 y0 x1 y1.
        scores: (N,) float32; of equal scores the earlier comes first; boxes of score 0 are void and never kept.
        overlap: IoU above which a kept box suppresses another.
        limit: boxes to keep.

    Returns:
        (limit,) int64, the kept boxes in descending order of score, then N for each that is missing.
    """
    kept = nms(boxes, scores, overlap, limit)
    kept = kept[scores[kept] > 0]
    return torch.nn.functional.pad(kept, (0, limit - len(kept)), value=len(boxes))


@suppress.register_fake
def _(boxes: Tensor, scores: Tensor, overlap: float, limit: int) -> Tensor:
    return boxes.new_empty((limit,), dtype=torch.int64)


def _suppress_in_onnx(boxes: Any, scores: Any, overlap: float, limit: int) -> Any:
    """Build one NonMaxSuppression, whose number of rows depends on the data. `limit` rows of N are appended, and the
    first `limit` rows of the result are a fixed number again.
    """
    rows = op.NonMaxSuppression(
        op.Unsqueeze(boxes, _integers(0)),
        op.Unsqueeze(scores, _integers(0, 1)),
        _integers(limit),
        op.Constant(value_floats=[overlap]),
        op.Constant(value_floats=[0.0]),
        center_point_box=0,
    )
    # Rows are image, class, box.
    kept = op.Reshape(op.Slice(rows, _integers(2), _integers(3), _integers(1)), _integers(-1))
    filled = op.Concat(kept, _integers(*[boxes.shape[0]] * limit), axis=0)
    return op.Reshape(op.Slice(filled, _integers(0), _integers(limit), _integers(0)), _integers(limit))


@torch.library.custom_op("fgfast::roi_align", mutates_args=())
def roi_align(maps: Tensor, boxes: Tensor, scale: float) -> Tensor:
    """Compute RoIAlign on one level with adaptive sampling, as detectron2 does.

    Args:
        maps: (B, C, h, w) floating.
        boxes: (B, N, 4) float32, pixels; those without extent pool zeros.
        scale: cells per pixel.

    Returns:
        (B * N, C, 7, 7) of the maps' dtype.
    """
    count = boxes.shape[1]
    height, width = maps.shape[2:]
    x0, y0, x1, y1 = (boxes.flatten(0, 1) * scale - 0.5).unbind(1)
    rows = axis_weights(y0, y1, torch.full_like(y0, height), height).view(len(maps), count, BINS, height)
    columns = axis_weights(x0, x1, torch.full_like(x0, width), width).view(len(maps), count, BINS, width)
    pooled = torch.einsum("bnih,bchw,bnjw->bncij", rows, maps.float(), columns)
    return pooled.flatten(0, 1).to(maps.dtype)


@roi_align.register_fake
def _(maps: Tensor, boxes: Tensor, scale: float) -> Tensor:
    return maps.new_empty((boxes.shape[0] * boxes.shape[1], maps.shape[1], BINS, BINS))


def _roi_align_in_onnx(maps: Any, boxes: Any, scale: float) -> Any:
    """Build one RoiAlign, with every attribute written, because importers have defaults of their own."""
    batch, count = boxes.shape[:2]
    image = _integers(*[n for n in range(batch) for _ in range(count)])
    # In float32, because boxes must have the type of the maps, and half precision resolves a pixel at best.
    pooled = op.RoiAlign(
        op.Cast(maps, to=1),
        op.Reshape(boxes, _integers(-1, 4)),
        image,
        coordinate_transformation_mode="half_pixel",
        mode="avg",
        output_height=BINS,
        output_width=BINS,
        sampling_ratio=0,
        spatial_scale=scale,
    )
    return op.CastLike(pooled, maps)


def pool_clipped(maps: list[Tensor], boxes: Tensor, levels: Tensor, valid: Tensor | None) -> Tensor:
    """Pool as roi.pool does, with one RoiAlign per level, for boxes that end inside their images.

    Boxes of other levels are given no extent and pool zeros, so that each box costs once and a sum selects its level.

    Args:
        maps: of each level, (B, C, h, w) floating, zero outside `valid`.
        boxes: (B, N, 4) float32, pixels.
        levels: (B, N) int64.
        valid: (B, 2), height and width in pixels; None where the maps are valid everywhere.
    """
    total: Tensor | None = None
    for level, features in zip(LEVELS, maps, strict=True):
        if valid is not None:
            features = _hold_edges(features, valid // 2**level)
        here = (levels == level)[:, :, None]
        pooled = roi_align(features, torch.where(here, boxes, 0.0), 2.0**-level)
        total = pooled if total is None else total + pooled
    assert total is not None
    return total.unflatten(0, levels.shape)


def _hold_edges(maps: Tensor, valid: Tensor) -> Tensor:
    """Copy the last valid row and column once into the padding, as RoiAlign itself does at the map's own edge."""
    height, width = maps.shape[2:]
    for axis, count in ((2, height), (3, width)):
        place = torch.arange(count, device=maps.device, dtype=valid.dtype)
        first = (place == valid[:, axis - 2, None]).view(-1, 1, *((count, 1) if axis == 2 else (1, count)))
        before = torch.cat([maps.narrow(axis, 0, 1), maps.narrow(axis, 0, count - 1)], axis)
        maps = torch.where(first, before, maps)
    return maps


def translations() -> Mapping[Any, Callable[..., Any]]:
    """Operator of PyTorch -> function that builds what it becomes in ONNX."""
    return {
        torch.ops.fgfast.suppress.default: _suppress_in_onnx,
        torch.ops.fgfast.roi_align.default: _roi_align_in_onnx,
    }


def _integers(*values: int) -> Any:
    return op.Constant(value_ints=list(values))
