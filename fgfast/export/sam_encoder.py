"""SAM's image encoder as ONNX: the module that is traced, its contract, its example and its cases."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from fgfast import graphs
from fgfast.export.check import smooth_noise
from fgfast.graphs import Contract
from fgfast.models.sam.exported import ExportedEncoder
from fgfast.models.sam.graph import ImageEncoderGraph
from fgfast.models.sam.model import Sam

# Height and width of the cases as fractions of the side, one of them 1. None of them is traced.
_SHAPES = {"landscape": (0.66, 1.0), "portrait": (1.0, 0.37)}


def graph(sam: Sam) -> nn.Module:
    """The module that is traced; it has the inputs and outputs of `contract`, and shares the model's weights.

    Args:
        sam: on the CPU.
    """
    whole = ImageEncoderGraph(sam)
    whole.encoder = ExportedEncoder(sam.image_encoder)
    return whole


def contract(sam: Sam, batch: int | str = 1) -> Contract:
    """The contract of `graph`.

    Args:
        sam: the model.
        batch: images per call, or a word where their number may vary.
    """
    return graphs.sam_image_encoder(sam.architecture.side, batch)


def example(contract: Contract) -> tuple[Tensor, ...]:
    """Inputs to trace with: (B, side, side, 3) uint8 and (B, 2) int64; B is 2 where it may vary."""
    batch, side = contract.inputs[0].shape[:2]
    count = batch if isinstance(batch, int) else 2
    return torch.zeros(count, side, side, 3, dtype=torch.uint8), torch.tensor([[side, side]] * count)


def cases(contract: Contract) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Inputs for the parity check: random images of other aspect ratios, and noise where a graph must not look.

    Args:
        contract: where the batch may vary, cases have 1 and 3 images.

    Yields:
        (name, inputs).
    """
    batch, side = contract.inputs[0].shape[:2]
    assert isinstance(side, int)
    for seed, (name, parts) in enumerate(_SHAPES.items()):
        count = batch if isinstance(batch, int) else 1 + 2 * seed
        generator = np.random.default_rng(seed)
        pixels = torch.from_numpy(generator.integers(0, 256, (count, side, side, 3), np.uint8))
        sizes = torch.empty(count, 2, dtype=torch.int64)
        for n in range(count):
            # Each image of a batch is a little smaller than the one before.
            height, width = (math.ceil(side * part * (1 - n / 16)) for part in parts)
            pixels[n, :height, :width] = smooth_noise(generator, height, width)
            sizes[n] = torch.tensor([height, width])
        yield name, {"pixels": pixels, "sizes": sizes}
