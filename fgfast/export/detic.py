"""Detic as ONNX: the modules that are traced, their contracts, examples and cases.

There is one graph from pixels to scored boxes (`detic_detector`), or two graphs between which the host suppresses
proposals (`detic_backbone`, `detic_heads`). They avoid what made other exports of Detic fail: top-k has constant sizes,
suppression is NonMaxSuppression filled up to a fixed number of rows, and pooling is two matrix products per level.
Padding enters as data, so that results do not depend on the canvas (fgfast.models.detic.canvas).

Pooling has a second form, "roialign": one RoiAlign per level in stages 1 and 2. Stage 0 must be dense, because
proposals may overhang their image. The form is as exact. On two cores, Swin-B at 800x1216 in ONNX Runtime, the heads
take 0.76 s of CPU time instead of 1.05 s, but the whole detector 11.7 s instead of 12.5 s, which is within the noise.
It needs opset 21, where attention is written out, and a plugin in TensorRT; so the dense form is the default.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from fgfast import graphs
from fgfast.backends.torch import TorchSession
from fgfast.errors import UsageError
from fgfast.export import detic_check
from fgfast.export.check import Run, smooth_noise
from fgfast.export.detic_ops import pool_clipped, suppress, translations
from fgfast.export.part import Part
from fgfast.export.trace import OPSET
from fgfast.graphs import Contract
from fgfast.methods import ModelSpec
from fgfast.models.detic.build import build_detic
from fgfast.models.detic.config import PATCH
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
# Every image fits on one of these: the shorter edge is 800, the longer at most 1333 pixels, rounded up to 32.
CANVASES = (Size(800, 1344), Size(1344, 800))
Pooling = Literal["dense", "roialign"]
# ONNX Runtime's CPU provider has RoiAlign up to opset 21; attention is one operator from 23 on.
OPSETS: dict[Pooling, int] = {"dense": OPSET, "roialign": 21}
TOLERANCES = {"fp32": DETIC_FP32, "fp16": DETIC_FP16, "bf16": DETIC_BF16}
# (name, fractions of the canvas's height and width, classes): the first image of each case; none of them is traced.
_CASES = (("filled", (1.0, 1.0), 3), ("wide", (0.57, 1.0), 80), ("small", (0.35, 0.28), 1))
_TRACED_CLASSES = 7


def graph(model: Detic, contract: Contract, pooling: Pooling = "dense") -> nn.Module:
    """The module that is traced; it has the contract's inputs and outputs, and shares the model's weights.

    Args:
        model: on the CPU; not changed.
        contract: from `contract`.
        pooling: one of OPSETS.
    """
    form = _exportable(model, pooling)
    if "pixels" in (port.name for port in contract.inputs):
        _plan_windows(form, contract)
    return GRAPHS[contract.graph](form).eval()


def contract(model: Detic, name: str, canvas: Size, batch: int = 1) -> Contract:
    """The contract of one of GRAPHS.

    Args:
        model: decides channels, numbers of boxes and precision.
        name: one of GRAPHS.
        canvas: (height, width) in pixels, multiples of 32.
        batch: images per call.
    """
    config = model.config
    if name == "detic_detector":
        return graphs.detic_detector(canvas, batch, config.proposals)
    channels, precision = config.pyramid_channels, model.precision
    if name == "detic_backbone":
        return graphs.detic_backbone(canvas, batch, channels, config.level_candidates, precision)
    return graphs.detic_heads(canvas, batch, channels, config.proposals, precision)


def example(contract: Contract) -> tuple[Tensor, ...]:
    """The inputs that are traced, in the contract's order."""
    inputs = _inputs(contract, np.random.default_rng(99), (1.0, 1.0), _TRACED_CLASSES)
    return tuple(inputs[port.name] for port in contract.inputs)


def cases(contract: Contract) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Inputs for the parity check: random images that fill the canvas and that do not, noise where a graph must not
    look, and vocabularies of other sizes than the traced one.

    Yields:
        (name, inputs).
    """
    for seed, (name, parts, classes) in enumerate(_CASES):
        yield name, _inputs(contract, np.random.default_rng(seed), parts, classes)


def parts(
    spec: ModelSpec, canvases: Sequence[Size], names: Sequence[str], pooling: Pooling = "dense"
) -> Iterator[Part]:
    """The graphs that `fgfast export detic` writes.

    Args:
        spec: of a Detic.
        canvases: in pixels; empty takes CANVASES.
        names: of GRAPHS.
        pooling: one of OPSETS.
    """
    model = build_detic(spec)
    exact = model if spec.precision == "fp32" else build_detic(replace(spec, precision="fp32"))
    for canvas in canvases or CANVASES:
        for name in names:
            yield part(model, exact, contract(model, name, canvas, spec.batch or 1), pooling)


def part(model: Detic, exact: Detic, contract: Contract, pooling: Pooling = "dense") -> Part:
    """One graph of a model.

    Args:
        model: in the precision to export.
        exact: the same model in float32, for the parity check.
        contract: from `contract`.
        pooling: one of OPSETS.
    """
    if pooling == "roialign" and model.precision == "bf16":
        raise UsageError("ONNX Runtime has RoiAlign only in opsets that have no RoiAlign of bfloat16; pool densely")
    return Part(
        contract,
        graph(model, contract, pooling),
        GRAPHS[contract.graph](exact),
        example(contract),
        lambda: cases(contract),
        TOLERANCES[model.precision],
        compare=partial(detic_check.compare, rounded=_rounded(model, exact, contract)),
        translations=translations(),
        opset=OPSETS[pooling],
    )


def _rounded(model: Detic, exact: Detic, contract: Contract) -> Run | None:
    """Runs the float32 model with the weights of the bfloat16 one; None in other precisions."""
    if model.precision != "bf16":
        return None
    rounded = copy.deepcopy(exact)
    rounded.load_state_dict(model.state_dict())
    return TorchSession(GRAPHS[contract.graph](rounded), contract).run


def _exportable(model: Detic, pooling: Pooling) -> Detic:
    """A copy of the model in the forms that suit a graph, with the same parameters and buffers."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    form: Detic = copy.deepcopy(model, shared)
    form.backbone.bottom_up.as_grid = True
    form.proposal_generator.suppress = suppress
    form.roi_heads.pool = _pool
    # Proposals may overhang their image; beyond it RoiAlign would meet padding, so stage 0 is always dense.
    form.roi_heads.pool_clipped = pool_clipped if pooling == "roialign" else _pool
    for module in form.modules():
        if isinstance(module, Attention):
            module.frozen_bias = module.position_bias().contiguous()
            # Before opset 23 ONNX has no attention, and written out it would take the softmax in half precision.
            module.fused = OPSETS[pooling] >= OPSET or model.precision == "fp32"
    return form


def _plan_windows(form: Detic, contract: Contract) -> None:
    """Make the constants of each stage's windows, as part of the model, before it is traced."""
    batch, height, width = (int(n) for n in contract.inputs[0].shape[:3])
    swin = form.backbone.bottom_up
    for stage in range(len(swin.layers)):
        cell = PATCH * 2**stage
        swin.plan(batch, height // cell, width // cell)


def _pool(maps: list[Tensor], boxes: Tensor, levels: Tensor, valid: Tensor | None) -> Tensor:
    """Pool densely, as roi.pool does, from maps of which only `valid` is valid."""
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
        names = generator.standard_normal((classes, EMBEDDING), np.float32)
        found["vocabulary"] = classifier(torch.from_numpy(names))
    if "proposals" in shapes:
        found |= _proposals(contract, generator, sizes)
    return {port.name: found[port.name] for port in contract.inputs}


def _proposals(contract: Contract, generator: np.random.Generator, sizes: list[Size]) -> dict[str, Tensor]:
    """Random maps, boxes of all sizes that may overhang the image, and scores; the last eighth of the boxes is void."""
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
    batch, count, _ = ports["proposals"].shape
    assert isinstance(batch, int)
    assert isinstance(count, int)
    edges = torch.tensor(sizes, dtype=torch.float32)[:, None, [1, 0]]
    centre, extent = (torch.from_numpy(generator.random((batch, count, 2), np.float32)) for _ in range(2))
    half = torch.exp(extent * 5 - 5) * edges / 1.6
    boxes = torch.cat([centre * edges - half, centre * edges + half], -1)
    scores = torch.from_numpy(np.sort(generator.random((batch, count), np.float32))[:, ::-1].copy())
    alive = torch.arange(count) < count - count // 8
    return {**found, "proposals": boxes * alive[:, None], "proposal_scores": scores * alive}
