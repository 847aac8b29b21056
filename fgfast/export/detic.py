"""Detic as ONNX: the modules that are traced, their contracts, examples and cases.

There is one graph from pixels to scored boxes (`detic_detector`), or two graphs between which the host suppresses
proposals (`detic_backbone`, `detic_heads`). They avoid what made other exports of Detic fail: top-k has constant sizes,
suppression is NonMaxSuppression filled up to a fixed number of rows, and pooling is two matrix products per level.
Padding enters as data, so that results do not depend on the canvas (fgfast.models.detic.canvas).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from fgfast import graphs
from fgfast.backends.torch import TorchSession
from fgfast.export import detic_check
from fgfast.export.check import Run, smooth_noise
from fgfast.export.exportable import COMMON, Common
from fgfast.export.part import Part
from fgfast.export.translations import suppress
from fgfast.graphs import Contract
from fgfast.methods import ModelSpec
from fgfast.models.detic.build import build_detic
from fgfast.models.detic.canvas import CANVASES
from fgfast.models.detic.graph import BackboneGraph, DetectorGraph, HeadsGraph
from fgfast.models.detic.model import Detic
from fgfast.models.detic.roi import pool_dense, scale_of
from fgfast.models.detic.swin import Attention
from fgfast.models.detic.vocabulary import EMBEDDING, classifier
from fgfast.records import Size
from fgfast.tolerances import DETIC_BF16, DETIC_FP16, DETIC_FP32

GRAPHS: dict[str, Callable[[Detic], nn.Module]] = {
    "detic_detector": DetectorGraph,
    "detic_backbone": BackboneGraph,
    "detic_heads": HeadsGraph,
}
TOLERANCES = {"fp32": DETIC_FP32, "fp16": DETIC_FP16, "bf16": DETIC_BF16}
# (name, fractions of the canvas's height and width, classes) of the first image of each case: images that fill the
# canvas and images that do not, and vocabularies of other sizes than the traced one.
_CASES = (("filled", (1.0, 1.0), 3), ("wide", (0.57, 1.0), 80), ("small", (0.35, 0.28), 1))
_TRACED_CLASSES = 7


def parts(
    spec: ModelSpec, canvases: Sequence[Size] | Common, names: Sequence[str], words: int | None = None
) -> Iterator[Part]:
    """The graphs that `fgfast export detic` writes.

    Args:
        spec: of a Detic.
        canvases: in pixels; empty takes the two that hold every image, "common" those of common photographs as well.
        names: of GRAPHS.
        words: the most words that the heads take; None for any number.
    """
    model = build_detic(spec)
    exact = model if spec.precision == "fp32" else build_detic(replace(spec, precision="fp32"))
    for canvas in CANVASES if canvases == COMMON else canvases or CANVASES[:2]:
        for name in names:
            yield part(model, exact, name, canvas, spec.batch or 1, words)


def part(model: Detic, exact: Detic, name: str, canvas: Size, batch: int = 1, words: int | None = None) -> Part:
    """One graph of a model.

    Args:
        model: in the precision to export, on the CPU; its weights are shared, and it is not changed.
        exact: the same model in float32, for the parity check.
        name: one of GRAPHS.
        canvas: (height, width) in pixels, multiples of 32.
        batch: images per call.
        words: the most words that the heads take; None for any number.
    """
    contract = _contract(model, name, canvas, batch, words)
    form = exportable_form(model)
    if name != "detic_heads":
        form.backbone.bottom_up.keep(batch, canvas)  # constants of the graph, made before it is traced
    example = _inputs(contract, np.random.default_rng(99), (1.0, 1.0), _TRACED_CLASSES)
    return Part(
        contract,
        GRAPHS[name](form).eval(),
        GRAPHS[name](exact),
        tuple(example.values()),
        lambda: _cases(contract),
        TOLERANCES[model.precision],
        partial(detic_check.compare, rounded=_rounded(model, exact, contract)),
    )


def _contract(model: Detic, name: str, canvas: Size, batch: int, words: int | None) -> Contract:
    config, precision = model.config, model.precision
    if name == "detic_detector":
        return graphs.detic_detector(canvas, batch, config.proposals)
    if name == "detic_backbone":
        return graphs.detic_backbone(canvas, batch, config.pyramid_channels, config.level_candidates, precision)
    classes = "classes" if words is None else words + 1
    return graphs.detic_heads(canvas, batch, config.pyramid_channels, config.proposals, precision, classes)


def _cases(contract: Contract) -> Iterator[tuple[str, dict[str, Tensor]]]:
    for seed, (name, parts, classes) in enumerate(_CASES):
        yield name, _inputs(contract, np.random.default_rng(seed), parts, classes)


def _rounded(model: Detic, exact: Detic, contract: Contract) -> Run | None:
    """A session of the float32 model with the bfloat16 model's weights; None in other precisions."""
    if model.precision != "bf16":
        return None
    rounded = copy.deepcopy(exact)
    rounded.load_state_dict(model.state_dict())
    return TorchSession(GRAPHS[contract.graph](rounded), contract).run


def exportable_form(model: Detic) -> Detic:
    """A copy of the model in the forms that suit a graph, with the same parameters and buffers."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    form: Detic = copy.deepcopy(model, shared)
    form.backbone.bottom_up.as_grid = True
    form.proposal_generator.suppress = suppress
    form.roi_heads.pool = _pool
    for module in form.modules():
        if isinstance(module, Attention):
            module.frozen_bias = module.position_bias().contiguous()
    return form


def _pool(maps: list[Tensor], boxes: Tensor, levels: Tensor, valid: Tensor | None) -> Tensor:
    """Pool densely, as roi.pool does; only the part `valid` of the maps, in pixels, is read."""
    if valid is None:
        valid = torch.tensor([[8 * n for n in maps[0].shape[2:]]], device=boxes.device).expand(len(boxes), 2)
    return pool_dense(maps, boxes, levels, valid[:, None] * scale_of(levels)[:, :, None])


def _inputs(
    contract: Contract, generator: np.random.Generator, parts: tuple[float, float], classes: int
) -> dict[str, Tensor]:
    """Random inputs by name; each image of a batch is a little smaller than the one before."""
    shapes = {port.name: port.shape for port in contract.inputs}
    batch = int(shapes["sizes"][0])
    cell, edges = (1, shapes["pixels"][1:3]) if "pixels" in shapes else (8, shapes["p3"][2:])
    height, width = (cell * int(n) for n in edges)
    scale = [1 - n / 8 for n in range(batch)]
    sizes = [Size(math.ceil(height * parts[0] * s), math.ceil(width * parts[1] * s)) for s in scale]
    found = {"sizes": torch.tensor(sizes)}
    if "pixels" in shapes:
        pixels = torch.from_numpy(generator.integers(0, 256, (batch, height, width, 3), dtype=np.uint8))
        for row, (h, w) in zip(pixels, sizes, strict=True):
            row[:h, :w] = smooth_noise(generator, h, w)
        found["pixels"] = pixels
    if "vocabulary" in shapes:
        fixed = shapes["vocabulary"][1]
        count = fixed - 1 if isinstance(fixed, int) else classes
        names = generator.standard_normal((count, EMBEDDING), np.float32)
        found["vocabulary"] = classifier(torch.from_numpy(names))
    if "proposals" in shapes:
        found |= _proposals(contract, generator, sizes)
    return {port.name: found[port.name] for port in contract.inputs}


def _proposals(contract: Contract, generator: np.random.Generator, sizes: list[Size]) -> dict[str, Tensor]:
    """Random maps, scores, and boxes of all sizes that may extend beyond the image; the last eighth of them is void."""
    found = {}
    ports = {port.name: port for port in contract.inputs}
    for name in ("p3", "p4", "p5"):
        stride = 2 ** int(name[1])
        maps = torch.from_numpy(generator.standard_normal([int(n) for n in ports[name].shape], np.float32))
        for row, size in zip(maps, sizes, strict=True):
            h, w = (-(-n // 32) * 32 // stride for n in size)
            row[:, h:] = 0
            row[:, :, w:] = 0
        found[name] = maps.to(getattr(torch, ports[name].dtype))
    batch, count = (int(n) for n in ports["proposals"].shape[:2])
    edges = torch.tensor(sizes, dtype=torch.float32)[:, None, [1, 0]]
    centre, extent = (torch.from_numpy(generator.random((batch, count, 2), np.float32)) for _ in range(2))
    half = torch.exp(extent * 5 - 5) * edges / 1.6
    boxes = torch.cat([centre * edges - half, centre * edges + half], -1)
    scores = torch.from_numpy(np.sort(generator.random((batch, count), np.float32))[:, ::-1].copy())
    alive = torch.arange(count) < count - count // 8
    return {**found, "proposals": boxes * alive[:, None], "proposal_scores": scores * alive}
