"""Measures the peak performance of a device: its fastest matrix product and its memory bandwidth.

The products have the shapes of the models' own layers. The floor of a model, the least time that its arithmetic takes,
therefore follows from what this device can do with such shapes, not from its data sheet.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import nullcontext
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
_MIN_SECONDS = 0.15
_STREAM = 64 * 2**20  # the bytes that are copied to measure memory: several times the size of any cache


@dataclass(frozen=True, slots=True)
class Product:
    """A measured matrix product.

    Attributes:
        name: the layer that it belongs to.
        flops: operations per second.
        intensity: operations per byte of its inputs and output.
    """

    name: str
    flops: float
    intensity: float


@dataclass(frozen=True, slots=True)
class Roof:
    """The peak performance of a device in one precision.

    Attributes:
        device: the device in torch's notation.
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
        """Return the least milliseconds that `gmac` times 1e9 multiply-accumulates take."""
        return 2e12 * gmac / self.flops


def gmac_of(model: str, sizes: Sequence[Size] = ()) -> float:
    """Return the multiply-accumulates of a model per image, in 1e9, averaged over images; 0 for anything else.

    Args:
        model: "detic", or a SAM such as "sam_vit_b", which counts the encoder and the decoder for one box.
        sizes: (height, width) of the stored images in pixels, for Detic; empty for one 4:3 image.
    """
    if model == "detic":
        return statistics.fmean(_detic(*size) for size in sizes) if sizes else DETIC_GMAC[0][1]
    method = find(model)
    return method.gmac + SAM_DECODER_GMAC if method and method.is_model and method.kind == "segmenter" else 0.0


def _detic(height: int, width: int) -> float:
    """Return Detic's figure for an image, by its pixels after resizing, without padding."""
    scale = min(SWIN_B.shorter_edge / min(height, width), SWIN_B.longest_edge / max(height, width))
    return detic_gmac(height * width * scale**2)


def detic_gmac(pixels: float) -> float:
    """Return Detic's multiply-accumulates, in 1e9, for an image that has so many pixels after resizing."""
    (few, low), (many, high) = DETIC_GMAC
    return low + (pixels - few) * (high - low) / (many - few)


def shapes(models: Sequence[str], batch: int = 1) -> dict[str, tuple[int, int, int]]:
    """Return name -> rows, inputs, outputs of the linear layers that do most of the models' arithmetic."""
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
    """Return the number of weights of a model: "detic", or a SAM such as "sam_vit_b"."""
    import torch

    from fgfast.models.detic.model import Detic
    from fgfast.models.sam.model import Sam

    with torch.device("meta"):
        built: Any = Detic(SWIN_B) if model == "detic" else Sam(model.removeprefix("sam_"))
    return sum(weights.numel() for weights in built.parameters())


def measure(
    models: Sequence[str], device: str, precision: str, batch: int = 1, min_seconds: float = _MIN_SECONDS
) -> Roof:
    """Measure a device, with as many threads as torch uses.

    Args:
        models: the models whose matrix shapes are measured: "detic", "sam_vit_b", ...
        device: the device in torch's notation.
        precision: "fp32", "bf16" or "fp16".
        batch: images per batch.
        min_seconds: how long each product is timed; the fastest timing counts.
    """
    import torch

    from fgfast.backends.torch_flags import set_flags

    set_flags()  # the roof of float32 is not that of TensorFloat-32, in which the models do not compute
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    products = []
    for name, (rows, inputs, outputs) in shapes(models, batch).items():
        x = torch.randn(rows, inputs, device=device).to(dtype)
        weight, bias = torch.randn(outputs, inputs, device=device).to(dtype), torch.zeros(outputs, device=device)
        seconds = _seconds(_product(x, weight, bias.to(dtype)), device, min_seconds)
        moved = (rows * inputs + inputs * outputs + rows * outputs) * x.element_size()
        operations = 2 * rows * inputs * outputs
        products.append(Product(name, operations / seconds, operations / moved))
    return Roof(device, precision, tuple(products), _bandwidth(device, min_seconds))


def _product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> Any:
    """Return a linear layer that is computed as in fgfast's models on this device (fgfast/models/linear.py)."""
    import torch

    from fgfast.models.linear import linear

    layer = torch.nn.utils.skip_init(torch.nn.Linear, weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = (torch.nn.Parameter(part, requires_grad=False) for part in (weight, bias))
    return torch.inference_mode()(lambda: linear(x, layer))


def _bandwidth(device: str, min_seconds: float) -> float:
    import torch

    source = torch.ones(_STREAM, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * _STREAM / _seconds(lambda: target.copy_(source), device, min_seconds)


def _seconds(call: Callable[[], Any], device: str, min_seconds: float) -> float:
    """Return the seconds of one call in the fastest timing, because a roof is what the device can do."""
    import torch
    from torch.utils.benchmark import Timer

    timer = Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads())
    # The timer synchronizes the current GPU.
    with torch.cuda.device(device) if torch.device(device).type == "cuda" else nullcontext():
        return min(timer.blocked_autorange(min_run_time=min_seconds).times)
