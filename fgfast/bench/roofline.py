"""Measures what a device does at most: its fastest matrix product and its memory bandwidth.

The products have the shapes of the models' own layers. The floor of a model, the least time that its arithmetic takes,
is therefore what this device can do with such shapes, not what its vendor prints.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fgfast.methods import DETIC_GMAC, SAM_DECODER_GMAC, find
from fgfast.models.detic.config import SWIN_B
from fgfast.models.sam.architecture import ARCHITECTURES
from fgfast.records import Size

if TYPE_CHECKING:
    import torch

# The layers whose products are measured: the linear layers of SAM's blocks over all tokens of its square, and those of
# the third stage of Swin-B, where most of its arithmetic is, on 800x1088 pixels (50 x 68 tokens).
_SWIN_TOKENS = 50 * 68
_ROUNDS = 7
_LEAST = 0.02  # the least seconds of one timing
_STREAM = 64 * 2**20  # the bytes that are copied to measure memory: several times any cache


@dataclass(frozen=True, slots=True)
class Product:
    """A measured matrix product.

    Attributes:
        name: the layer that it belongs to.
        rows, inputs, outputs: its shape.
        flops: operations per second.
        intensity: operations per byte that must be read or written at least.
    """

    name: str
    rows: int
    inputs: int
    outputs: int
    flops: float
    intensity: float


@dataclass(frozen=True, slots=True)
class Roof:
    """What a device does at most, in one precision.

    Attributes:
        device: as torch names it.
        precision: "fp32", "bf16" or "fp16".
        products: the measured products, one per shape.
        bandwidth: bytes per second that a copy reads and writes.
    """

    device: str
    precision: str
    products: tuple[Product, ...]
    bandwidth: float

    @property
    def flops(self) -> float:
        """Operations per second of the fastest product."""
        return max(product.flops for product in self.products)

    def ms(self, gmac: float) -> float:
        """The least milliseconds that `gmac` times 1e9 multiply-accumulates take."""
        return 2e12 * gmac / self.flops


def gmac_of(model: str, sizes: Sequence[Size] = ()) -> float:
    """Multiply-accumulates of a model per image, in 1e9, averaged over images; 0 for what is no model of ours.

    Args:
        model: "detic", or "sam_vit_b" and its like, which count the encoder and the decoder of one box.
        sizes: (height, width) of the stored images in pixels, for Detic; none stand for one of 4:3.
    """
    if model == "detic":
        return statistics.fmean(_detic(*size) for size in sizes) if sizes else DETIC_GMAC[0][1]
    method = find(model)
    return method.gmac + SAM_DECODER_GMAC if method and method.is_model and method.kind == "segmenter" else 0.0


def _detic(height: int, width: int) -> float:
    """Detic's figure for an image, by the pixels that it has after resizing, without padding."""
    scale = min(SWIN_B.shorter_edge / min(height, width), SWIN_B.longest_edge / max(height, width))
    (few, low), (many, high) = DETIC_GMAC
    return low + (height * width * scale**2 - few) * (high - low) / (many - few)


def shapes(models: Sequence[str], batch: int = 1) -> dict[str, tuple[int, int, int]]:
    """Name -> rows, inputs, outputs of the linear layers that do most of the models' arithmetic."""
    found: dict[str, tuple[int, int, int]] = {}
    for model in models:
        if model == "detic":
            layer, rows, width = "Swin-B", _SWIN_TOKENS * batch, SWIN_B.stage_channels[2]
        elif model.startswith("sam_"):
            sam = ARCHITECTURES[model.removeprefix("sam_")]
            layer, rows, width = f"ViT-{model[-1].upper()}", sam.grid**2 * batch, sam.width
        else:
            continue
        found[f"{layer} projection"] = rows, width, width
        found[f"{layer} qkv"] = rows, width, 3 * width
        found[f"{layer} MLP in"] = rows, width, 4 * width
        found[f"{layer} MLP out"] = rows, 4 * width, width
    return found


def parameters(model: str) -> int:
    """The number of weights of a model: "detic", or "sam_vit_b" and its like."""
    import torch

    from fgfast.models.detic.model import Detic
    from fgfast.models.sam.model import Sam

    with torch.device("meta"):
        built: Any = Detic(SWIN_B) if model == "detic" else Sam(model.removeprefix("sam_"))
    return sum(weights.numel() for weights in built.parameters())


def measure(models: Sequence[str], device: str, precision: str, batch: int = 1, rounds: int = _ROUNDS) -> Roof:
    """Measure a device, with as many threads as torch uses.

    Args:
        models: the models whose matrix shapes are measured: "detic", "sam_vit_b", ...
        device: as torch names it.
        precision: "fp32", "bf16" or "fp16".
        batch: images per batch.
        rounds: timings of each product; the fastest counts.
    """
    import torch

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    products = []
    for name, (rows, inputs, outputs) in shapes(models, batch).items():
        x = torch.randn(rows, inputs, device=device).to(dtype)
        weight, bias = torch.randn(outputs, inputs, device=device).to(dtype), torch.zeros(outputs, device=device)
        seconds = _seconds(_product(x, weight, bias.to(dtype)), device, rounds)
        moved = (rows * inputs + inputs * outputs + rows * outputs) * x.element_size()
        operations = 2 * rows * inputs * outputs
        products.append(Product(name, rows, inputs, outputs, operations / seconds, operations / moved))
    return Roof(device, precision, tuple(products), _bandwidth(device, rounds))


def _product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> Any:
    """A linear layer, computed as fgfast's models compute it on this device (fgfast/models/sam/linear.py)."""
    import torch

    from fgfast.models.sam.linear import linear

    layer = torch.nn.utils.skip_init(torch.nn.Linear, weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = (torch.nn.Parameter(part, requires_grad=False) for part in (weight, bias))
    return torch.inference_mode()(lambda: linear(x, layer))


def _bandwidth(device: str, rounds: int) -> float:
    import torch

    source = torch.ones(_STREAM, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * _STREAM / _seconds(lambda: target.copy_(source), device, rounds)


def _seconds(call: Any, device: str, rounds: int) -> float:
    """Seconds of one call in the fastest round, because a roof is what the device can do."""
    import torch

    on_gpu = torch.device(device).type == "cuda"

    def timed(count: int) -> float:
        if on_gpu:
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        for _ in range(count):
            call()
        if on_gpu:
            torch.cuda.synchronize(device)
        return (time.perf_counter() - start) / count

    timed(2)  # the first calls choose and load kernels
    count = max(1, round(_LEAST / max(timed(1), 1e-6)))
    return min(timed(count) for _ in range(rounds))
