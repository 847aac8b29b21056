"""Scales of quantised linear layers: the largest magnitude that each input can have, found on a user's own images.

Symmetric, with one scale for an input and, in FP8, one for a weight; in INT8, a weight has one for each of its outputs.
That is what NVIDIA's FP8_DEFAULT_CFG and INT8_DEFAULT_CFG do (NVIDIA/TensorRT-Model-Optimizer,
modelopt/torch/quantization/config.py at 5a4242fa), and what TensorRT takes (its documentation, "Quantization Schemes").

The input's range is

* in FP8, the largest magnitude seen, as in FP8_DEFAULT_CFG: floating-point numbers are as fine at any scale, so that
  cutting large ones off gains nothing;
* in INT8, the magnitude at which cutting off and rounding together give the least squared error. INT8_DEFAULT_CFG takes
  the largest one there, too; but a few tokens of a ViT exceed all others many times, and would leave these only a few
  steps. (The same package offers this choice as "mse", modelopt/torch/quantization/calib/histogram.py.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fgfast.errors import GraphError

LARGEST = {"fp8": 448.0, "int8": 127.0}
"""The largest number of each type that is used: of float8 e4m3fn, and of int8 without -128, which has no opposite."""
METHODS = {"fp8": "largest magnitude", "int8": "least squared error"}

# Bins of a histogram of magnitudes; every so many of them is tried as the end of the range, down to an eighth of it.
_BINS, _STEP = 2048, 16

Half = NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class LayerScales:
    """The scales of one linear layer, float16 because that is what the graph computes in.

    Attributes:
        inputs: () of its input.
        weights: () of its weight, or (outputs,).
    """

    inputs: Half
    weights: Half


def linear_layers(graph: nn.Module) -> dict[str, nn.Linear]:
    """Name -> layer of the blocks' linear layers (qkv, proj, lin1, lin2): all products except attention's own."""
    return {name: module for name, module in graph.named_modules() if isinstance(module, nn.Linear)}


def calibrate(graph: nn.Module, inputs: Callable[[], Iterable[tuple[Tensor, ...]]], precision: str) -> dict[str, float]:
    """Return the largest magnitude that each layer's input is to represent.

    Args:
        graph: in float32; its linear layers must be called as modules.
        inputs: yields the graph's inputs, the same at each call.
        precision: "fp8" or "int8".

    Raises:
        GraphError: an input is not finite.
    """
    largest = dict.fromkeys(linear_layers(graph), 0.0)

    def keep_largest(name: str, x: Tensor) -> None:
        largest[name] = float(np.maximum(largest[name], x.abs().max().item()))  # NaN stays

    _observe(graph, inputs(), keep_largest)
    for name, value in largest.items():
        if not np.isfinite(value):
            raise GraphError(f"{name} has inputs that are not finite on the calibration images; check the weights")
    if precision == "fp8":
        return largest
    counts = {name: np.zeros(_BINS) for name in largest}

    def count(name: str, x: Tensor) -> None:
        counts[name] += torch.histc(x.float().abs(), _BINS, 0, largest[name] or 1.0).double().numpy()

    _observe(graph, inputs(), count)
    return {name: largest[name] * best_range(counts[name], LARGEST[precision]) for name in largest}


def _observe(graph: nn.Module, inputs: Iterable[tuple[Tensor, ...]], look: Callable[[str, Tensor], None]) -> None:
    """Run the graph on all inputs; `look` sees the name of each layer and what goes into it."""

    def hook(name: str) -> Any:
        return lambda module, given: look(name, given[0])

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in linear_layers(graph).items()]
    try:
        with torch.inference_mode():
            for given in inputs:
                graph(*given)
    finally:
        for handle in handles:
            handle.remove()


def best_range(counts: NDArray[np.float64], steps: float) -> float:
    """Return the end of the range with the least squared error, as a share of the largest magnitude.

    Args:
        counts: (bins,) how many magnitudes are in each bin from 0 to the largest one.
        steps: on each side of zero.
    """
    centres = (np.arange(len(counts)) + 0.5) / len(counts)
    ends = np.arange(len(counts), len(counts) // 8, -_STEP) / len(counts)
    scales = ends[:, None] / steps
    rounded = np.minimum(np.round(centres / scales), steps) * scales
    errors = (counts * np.square(rounded - centres)).sum(1)
    return float(ends[errors.argmin()])


def scales_of(layers: Mapping[str, nn.Linear], ranges: Mapping[str, float], precision: str) -> dict[str, LayerScales]:
    """Return the scales of all layers.

    Args:
        layers: in float32.
        ranges: from `calibrate`.
        precision: "fp8" or "int8".
    """
    largest = LARGEST[precision]
    found = {}
    for name, layer in layers.items():
        magnitudes = layer.weight.detach().float().abs()
        tops = magnitudes.amax(1) if precision == "int8" else magnitudes.max()
        found[name] = LayerScales(_half(np.float32(ranges[name]), largest), _half(tops.numpy(), largest))
    return found


def _half(tops: Any, largest: float) -> Half:
    """Return scales in float16, rounded up, so that the largest magnitude is never cut off.

    Zeros (a layer that is never reached) get the smallest normal number: TensorRT takes positive scales only.
    """
    exact = np.maximum(np.asarray(tops, np.float64) / largest, np.finfo(np.float16).tiny)
    half = exact.astype(np.float16)
    return np.asarray(np.where(half < exact, np.nextafter(half, np.float16(np.inf)), half), np.float16)


def quantise(values: Tensor, scales: Half, precision: str) -> Tensor:
    """Return float32 values as float8 e4m3fn or int8: divided, cut off, rounded to nearest, ties to even.

    Args:
        values: (outputs, inputs) or any other shape with a scale of shape ().
        scales: () or (outputs,).
        precision: "fp8" or "int8".
    """
    divisor = torch.from_numpy(scales.astype(np.float32)).reshape(-1, *[1] * (values.ndim - 1 if scales.ndim else 0))
    scaled = (values.float() / divisor).clamp(-LARGEST[precision], LARGEST[precision])
    return scaled.round().to(torch.int8) if precision == "int8" else scaled.to(torch.float8_e4m3fn)
