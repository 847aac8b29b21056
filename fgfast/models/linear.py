"""Linear layers of the image encoder, in half precision on the CPU through oneDNN's fused kernel.

There `functional.linear` first writes the bias into the result and then adds the product, and GELU is a second pass
over the widest tensor of the block; oneDNN does both on the accumulators, which saves 5 % of ViT-B's encoder in
bfloat16. In float32 MKL's product is faster, and on GPUs and in exported graphs fusing is left to the compiler.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def linear(x: Tensor, layer: nn.Linear, gelu: bool = False) -> Tensor:
    """Apply `layer` to `x`, converted to the dtype of the layer's weights; then GELU (exact) where wanted.

    Args:
        x: (..., inputs), float32 or half.
        layer: its weights determine the precision.
        gelu: append the activation.

    Returns:
        (..., outputs) of the weights' dtype.
    """
    return _product(x.to(layer.weight.dtype), layer.weight, layer.bias, gelu)


def linear_parts(x: Tensor, layer: nn.Linear, parts: int) -> tuple[Tensor, ...]:
    """Apply `layer` and split its outputs into equal parts, (..., outputs / parts) each.

    On the CPU each part is a separate product, which takes the same time: the results are contiguous and, in float32,
    small enough for malloc to reuse memory (see image_encoder.py).
    """
    x = x.to(layer.weight.dtype)
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return layer(x).chunk(parts, -1)  # type: ignore[no-any-return]
    weights = zip(layer.weight.chunk(parts), layer.bias.chunk(parts), strict=True)
    return tuple(_product(x, weight, bias) for weight, bias in weights)


def _product(x: Tensor, weight: Tensor, bias: Tensor, gelu: bool = False) -> Tensor:
    if _fuses(x, weight):
        activation, algorithm = ("gelu", "none") if gelu else ("none", "")
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], algorithm)
    out = functional.linear(x, weight, bias)
    if not gelu:
        return out
    # In place on the CPU: 0.56 instead of 0.94 ms for ViT-B's 1024 x 3072. (`functional` has no such variant.)
    own = out.device.type == "cpu" and not torch.compiler.is_compiling() and not out.requires_grad
    return torch.ops.aten.gelu_(out) if own else functional.gelu(out)


def _fuses(x: Tensor, weight: Tensor) -> bool:
    """Return whether oneDNN's fused kernel can be used. It has no gradient."""
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return False
    if x.device.type != "cpu" or torch.compiler.is_compiling() or not torch.backends.mkldnn.is_available():
        return False
    if x.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return x.dtype == torch.float16 and bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
