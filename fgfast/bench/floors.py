"""The least time that the models' arithmetic takes on a device: multiply-accumulates by its measured matmul rate.

The figures of the models are those of the project's design ("Floors"); counted there from the architectures, a
multiply-accumulate is two operations. The rate is measured: the fastest of the models' own matrix shapes, so that a
floor is what this device gives to products of such shapes, not what its vendor prints.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# DESIGN.md, "Performance, what counts": multiply-accumulates per image, in 1e9.
SAM_GMAC = {"vit_b": 486.0, "vit_l": 1493.0, "vit_h": 2981.0}
DECODER_GMAC = 1.8
"""SAM's decoder, a box."""
_DETIC_GMAC = ((800 * 1088, 340.0), (896 * 1216, 419.0))
"""Detic Swin-B with 256 proposals on canvases of so many pixels; all of it but the box heads grows with the canvas."""
SHORTER, LONGEST = 800, 1333
"""Detic's resized image, pixels (fgfast.models.detic.config)."""

# The paper's figure, which the verdict is held against: seconds per image on two RTX 3090.
PAPER_SECONDS = 0.3

# rows x inputs x outputs of linear layers: SAM's qkv, projection and MLP over 64x64 tokens, Swin-B's third stage on
# 800x1088 (50 x 68 tokens), where most of its arithmetic is.
_WIDTHS = {"vit_b": 768, "vit_l": 1024, "vit_h": 1280}
_TOKENS = 64 * 64
_SWIN = (50 * 68, 512)
_ROUNDS = 7
_LEAST = 0.02  # seconds of one timing
_STREAM = 64 * 2**20  # bytes copied to measure memory: several times any cache


@dataclass(frozen=True, slots=True)
class Product:
    """A measured matrix product.

    Attributes:
        name: which layer's.
        rows, inputs, outputs: its shape.
        flops: operations a second.
        intensity: operations a byte that must be read or written at least.
    """

    name: str
    rows: int
    inputs: int
    outputs: int
    flops: float
    intensity: float


@dataclass(frozen=True, slots=True)
class Roof:
    """What a device gives at most, in one precision.

    Attributes:
        device: as torch names it.
        precision: "fp32", "bf16" or "fp16".
        products: measured, all shapes.
        bandwidth: bytes a second of a copy, read and written.
    """

    device: str
    precision: str
    products: tuple[Product, ...]
    bandwidth: float

    @property
    def flops(self) -> float:
        """Operations a second of the fastest product."""
        return max(product.flops for product in self.products)

    def ms(self, gmac: float) -> float:
        """Milliseconds that so many 1e9 multiply-accumulates take at least."""
        return 2e12 * gmac / self.flops


def gmac_of(stage_model: str, sizes: Sequence[tuple[int, int]] = ()) -> float:
    """Multiply-accumulates of a model an image, in 1e9, on average over images; 0 for what is no model of ours.

    Args:
        stage_model: "detic", or "sam_vit_b" and its like: the encoder and one box of the decoder.
        sizes: (height, width) of the stored images, for the detector.
    """
    if stage_model == "detic":
        return statistics.fmean(_detic(*size) for size in sizes) if sizes else _DETIC_GMAC[0][1]
    name = stage_model.removeprefix("sam_")
    return SAM_GMAC[name] + DECODER_GMAC if name in SAM_GMAC else 0.0


def gmac_total(name: str) -> float:
    """Multiply-accumulates of Detic and a SAM, "vit_l", an image of 4:3, in 1e9."""
    return gmac_of("detic") + gmac_of(f"sam_{name}")


def _detic(height: int, width: int) -> float:
    """On a straight line through the design's two figures, for the image's own pixels without padding."""
    scale = min(SHORTER / min(height, width), LONGEST / max(height, width))
    (few, low), (many, high) = _DETIC_GMAC
    return low + (height * width * scale**2 - few) * (high - low) / (many - few)


def shapes(models: Sequence[str], batch: int = 1) -> dict[str, tuple[int, int, int]]:
    """Name -> rows, inputs, outputs of the linear layers that do most of the models' arithmetic."""
    found: dict[str, tuple[int, int, int]] = {}
    for model in models:
        if model == "detic":
            rows, width = _SWIN[0] * batch, _SWIN[1]
            layers = {"Swin-B": (rows, width)}
        elif (name := model.removeprefix("sam_")) in _WIDTHS:
            layers = {f"ViT-{name[-1].upper()}": (_TOKENS * batch, _WIDTHS[name])}
        else:
            continue
        for layer, (rows, width) in layers.items():
            found[f"{layer} projection"] = rows, width, width
            found[f"{layer} qkv"] = rows, width, 3 * width
            found[f"{layer} MLP in"] = rows, width, 4 * width
            found[f"{layer} MLP out"] = rows, 4 * width, width
    return found


def parameters(model: str) -> int:
    """How many weights a model has: "detic", or "sam_vit_b" and its like."""
    import torch

    from fgfast.models.detic.config import SWIN_B
    from fgfast.models.detic.model import Detic
    from fgfast.models.sam.model import Sam

    with torch.device("meta"):
        built: Any = Detic(SWIN_B) if model == "detic" else Sam(model.removeprefix("sam_"))
    return sum(weights.numel() for weights in built.parameters())


def measure(models: Sequence[str], device: str, precision: str, batch: int = 1, rounds: int = _ROUNDS) -> Roof:
    """Measure a device, with as many threads as torch has.

    Args:
        models: whose matrix shapes: "detic", "sam_vit_b", ...
        device: as torch names it.
        precision: "fp32", "bf16" or "fp16".
        batch: images at once.
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
    """A linear layer, as fgfast's models compute it on this device (fgfast/models/sam/linear.py)."""
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
    """Seconds of one call: the fastest round, for the roof is what the device can do."""
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

    timed(2)  # kernels are chosen and loaded
    count = max(1, round(_LEAST / max(timed(1), 1e-6)))
    return min(timed(count) for _ in range(rounds))
