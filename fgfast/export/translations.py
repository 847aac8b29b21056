"""Operators whose ONNX form fgfast defines, because PyTorch's exporter has none or one that TensorRT misreads."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import torch
from onnxscript import opset20 as op
from torch import Tensor

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
        (limit,) int64, the kept boxes in descending order of score, then N for each missing one.
    """
    kept = nms(boxes, scores, overlap, limit)
    kept = kept[scores[kept] > 0]
    return torch.nn.functional.pad(kept, (0, limit - len(kept)), value=len(boxes))


@suppress.register_fake
def _(boxes: Tensor, scores: Tensor, overlap: float, limit: int) -> Tensor:
    return boxes.new_empty((limit,), dtype=torch.int64)


def _suppress_in_onnx(boxes: Any, scores: Any, overlap: float, limit: int) -> Any:
    """Build one NonMaxSuppression. The number of rows it returns depends on the data, so `limit` rows of N are
    appended, and the first `limit` rows of the result are kept.
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


def _grid_sample_in_onnx(x: Any, grid: Any, mode: int, padding: int, align_corners: bool) -> Any:
    """Build one GridSample without a mode, which means linear. TensorRT reads an explicit "linear" as nearest."""
    assert (mode, padding, align_corners) == (0, 0, False)
    return op.GridSample(x, grid, align_corners=0, mode=None, padding_mode="zeros")


def _integers(*values: int) -> Any:
    return op.Constant(value_ints=list(values))


TRANSLATIONS: MappingProxyType[Any, Callable[..., Any]] = MappingProxyType(
    {
        torch.ops.fgfast.suppress.default: _suppress_in_onnx,
        torch.ops.aten.grid_sampler.default: _grid_sample_in_onnx,
    }
)
"""PyTorch operator -> function that builds its ONNX form."""
