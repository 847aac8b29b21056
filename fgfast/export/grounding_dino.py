"""Grounding DINO as ONNX: the module that is traced, its contract, example and cases.

Results do not depend on the canvas (fgfast.models.grounding_dino.canvas). The parity check compares with transformers'
own network, which is given each image alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fgfast import graphs
from fgfast.export import grounding_dino_check
from fgfast.export.check import smooth_noise
from fgfast.export.exportable import COMMON, Common
from fgfast.export.part import Part
from fgfast.graphs import Contract
from fgfast.methods import ModelSpec, Precision
from fgfast.models.grounding_dino.canvas import CanvasGraph, common, levels
from fgfast.models.grounding_dino.checkpoint import network, processors
from fgfast.models.grounding_dino.graph import SMALLEST_SIDE, ImageGraph
from fgfast.models.grounding_dino.prompt import CLS, DOT, SEP
from fgfast.records import Size
from fgfast.tolerances import DETIC_BF16, DETIC_FP16, DETIC_FP32

# Detic's tolerances: it is another detector behind a Swin, with logits and boxes in fractions of the image.
TOLERANCES = {"fp32": DETIC_FP32, "fp16": DETIC_FP16, "bf16": DETIC_BF16}
# (name, fractions of the canvas's height and width, tokens per phrase) of the first image of each case: images that
# fill the canvas and images that do not, and prompts of other lengths than the traced one.
_CASES = (("filled", (1.0, 1.0), (3,)), ("wide", (0.57, 1.0), (2, 4, 1)), ("small", (0.35, 0.28), (1, 1, 5, 2, 2)))
_TRACED_PHRASES = (2, 1, 3)


def parts(spec: ModelSpec, canvases: Sequence[Size] | Common) -> Iterator[Part]:
    """The graphs that `fgfast export grounding_dino_tiny` writes.

    Args:
        spec: of a Grounding DINO; the precision is that of linear layers and convolutions.
        canvases: in pixels; empty takes the two that hold every image, "common" those of common photographs as well.
    """
    model = network(spec.name, spec.weights).requires_grad_(False).eval()
    every = common(processors(spec.name, spec.weights)[1])
    for canvas in every if canvases == COMMON else canvases or every[:2]:
        yield part(model, canvas, spec.batch or 1, spec.precision)


def part(model: Any, canvas: Size, batch: int = 1, precision: Precision = "fp32") -> Part:
    """One graph of a model.

    Args:
        model: transformers' GroundingDinoForObjectDetection on the CPU in float32; its weights are shared, and it is
            not changed.
        canvas: (height, width) in pixels, multiples of 32 and at least 128.
        batch: images per call.
        precision: of linear layers and convolutions.
    """
    contract = graphs.grounding_dino(canvas, batch, model.config.num_queries)
    words = model.config.text_config.vocab_size
    reference = ImageGraph(model)
    example = _inputs(contract, np.random.default_rng(99), (1.0, 1.0), _TRACED_PHRASES, words)
    return Part(
        contract,
        CanvasGraph(model, canvas, precision).eval(),
        reference,
        tuple(example.values()),
        lambda: _cases(contract, words),
        TOLERANCES[precision],
        partial(grounding_dino_check.compare, reference),
    )


def _cases(contract: Contract, words: int) -> Iterator[tuple[str, dict[str, Tensor]]]:
    for seed, (name, parts, phrases) in enumerate(_CASES):
        yield name, _inputs(contract, np.random.default_rng(seed), parts, phrases, words)


def _inputs(
    contract: Contract,
    generator: np.random.Generator,
    parts: tuple[float, float],
    phrases: Sequence[int],
    words: int,
) -> dict[str, Tensor]:
    """Random inputs in the contract's order, with noise in the padding; `words` is the tokenizer's vocabulary size.

    Each image of a batch is a little smaller than the one before.
    """
    batch, height, width = (int(n) for n in contract.inputs[0].shape[:3])
    pixels = torch.from_numpy(generator.integers(0, 256, (batch, height, width, 3), np.uint8))
    sizes = torch.empty(batch, 2, dtype=torch.int64)
    for n in range(batch):
        h, w = (math.ceil(side * part * (1 - n / 8)) for side, part in zip((height, width), parts, strict=True))
        h, w = max(h, SMALLEST_SIDE), max(w, SMALLEST_SIDE)
        if sum(down * across for down, across in levels((h, w))) < int(contract.outputs[0].shape[1]):
            h, w = height, width  # on a small canvas, because transformers needs a cell for each query
        pixels[n, :h, :w] = smooth_noise(generator, h, w)
        sizes[n] = torch.tensor([h, w])
    tokens = [CLS]
    for count in phrases:
        # Words come after the special tokens, of which the last is the question mark, 1029.
        tokens += [*generator.integers(1030, words, count).tolist(), DOT]
    prompt = torch.tensor([*tokens, SEP])
    return {"pixels": pixels, "sizes": sizes, "input_ids": prompt.expand(batch, -1).contiguous()}
