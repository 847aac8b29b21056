"""SAM's prompt encoder and mask decoder as ONNX: the module that is traced, its contract, example and cases.

The numbers of boxes and images may vary from call to call. The graph is always float32, as in PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fgfast import graphs
from fgfast.graphs import Contract
from fgfast.models.sam.architecture import CHANNELS
from fgfast.models.sam.graph import MaskDecoderGraph
from fgfast.models.sam.model import Sam

# (images, boxes) of the cases: one of each, which a tracer may take for a constant, and more. None of them is traced.
_COUNTS = ((1, 1), (1, 5), (3, 7))
_TRACED = (2, 3)


def graph(sam: Sam, multimask: bool = False) -> nn.Module:
    """The module that is traced; it has the inputs and outputs of `contract`, and shares the model's weights.

    Args:
        sam: on the CPU.
        multimask: three masks per box instead of one.
    """
    return MaskDecoderGraph(sam, multimask)


def contract(sam: Sam, multimask: bool = False) -> Contract:
    """The contract of `graph`, which has the same arguments."""
    return graphs.sam_mask_decoder(sam.architecture.side, masks=3 if multimask else 1)


def example(contract: Contract) -> tuple[Tensor, ...]:
    """Inputs to trace with: (2, 256, g, g) float32, (3,) int64, (3, 4) float32."""
    return tuple(_drawn(contract, *_TRACED, seed=0).values())


def cases(contract: Contract) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Inputs for the parity check.

    Args:
        contract: from `contract`, for the size of the embeddings.

    Yields:
        (name, inputs).
    """
    for seed, (images, pairs) in enumerate(_COUNTS, start=1):
        yield f"{pairs} boxes in {images} images", _drawn(contract, images, pairs, seed)


def _drawn(contract: Contract, images: int, pairs: int, seed: int) -> dict[str, Tensor]:
    """Draw embeddings of noise, of order 1 as the encoder's are, and boxes from a few pixels to the whole square."""
    grid = contract.inputs[0].shape[-1]
    assert isinstance(grid, int)
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(images, CHANNELS, grid, grid, generator=generator)
    index = torch.randint(images, (pairs,), generator=generator)
    # Two draws for each corner coordinate, in order: x0 < x1, y0 < y1.
    corners = torch.rand(pairs, 2, 2, generator=generator).sort(1).values * _side(contract)
    return {"embeddings": embeddings, "image_index": index, "boxes": corners.flatten(1)}


def _side(contract: Contract) -> int:
    logits = contract.outputs[0].shape[-1]
    assert isinstance(logits, int)
    return 4 * logits
