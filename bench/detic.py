"""Detic Swin-B from one picture of 800x1200 to detections: fgfast in float32 and bfloat16, beside a reference.

The reference is the original Detic on detectron2 where both are installed (docs/models.md), without its masks, which
fgfast leaves to SAM. Else it is the specification written out plainly, which computes the same function from the same
weights the way the original's sources do: pad, roll, cut into windows, add bias and mask to explicit attention, run
whole maps at once, convolve in the default memory layout, and the two predictions apart; proposals, pooling and
selection are fgfast's then. Weights are made up.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from fgfast.bench import original_detic
from fgfast.bench.io import noise_picture
from fgfast.bench.original_detic import Detected, Original
from fgfast.bench.stamp import stamp
from torch import Tensor
from torch.nn import functional

from fgfast import graphs
from fgfast.backends.torch import TorchSession
from fgfast.models.build import build_detic
from fgfast.models.detic.canvas import PYRAMID_STRIDES
from fgfast.models.detic.cascade import Refined, combine
from fgfast.models.detic.config import SWIN_B, WINDOW, DeticConfig
from fgfast.models.detic.detector import AnyCanvas, Canvases, DeticDetector
from fgfast.models.detic.graph import DetectorGraph
from fgfast.models.detic.model import Detic
from fgfast.models.detic.proposals import Candidates, CenterNetHead, level_candidates
from fgfast.models.detic.selection import Selection
from fgfast.models.detic.swin import Block, Swin
from fgfast.models.detic.transform import stack
from fgfast.models.detic.vocabulary import EMBEDDING
from fgfast.models.sessions import detic_in_torch
from fgfast.records import Image, UInt8
from fgfast.tolerances import DETIC_BOX_SHARE, DETIC_FP32

# Height and width: Detic's size for a 2:3 picture, so that resizing changes nothing.
_SIZE = (800, 1200)
_CLASSES = 1203
MODEL_WEIGHTS = "random:0"
# Boxes further apart are not the same (README of the golden fixtures).
_MATCH_PX = 2.0

_Detect = Callable[[UInt8], Detected]
_Maps = Callable[[Tensor], Tensor]


def measure(*, rounds: int, config: DeticConfig = SWIN_B, model_weights: str = MODEL_WEIGHTS) -> dict[str, Any]:
    """Time the three in turns on the same picture, after comparing what they compute.

    Args:
        rounds: how often each is timed; medians are quoted.
        config: of the model.
        model_weights: "cached", "random:SEED" or a file; the same for all.

    Returns:
        Which reference it was, seconds of each, ratios to the reference, differences from it, the machine and versions,
        as plain values.

    Raises:
        AssertionError: fgfast's float32 differs from the reference by more than fgfast.tolerances allows; then nothing
            is timed.
    """
    generator = np.random.default_rng(0)
    picture = noise_picture(generator, *_SIZE)
    words = torch.from_numpy(generator.standard_normal((_CLASSES, EMBEDDING), dtype=np.float32))
    models = {name: build_detic(config.name, model_weights, name) for name in ("fp32", "bf16")}
    lacking = original_detic.missing()
    reference, detect, swin3 = _plain(config, words, model_weights) if lacking else _original(models["fp32"], words)
    forms: dict[str, _Detect] = {reference: detect}
    for name, model in models.items():
        forms[f"fgfast_{name}"] = _detector(detic_in_torch(model), config, words)
    differences = compare_maps(swin3, models, stack([picture])[0])
    agreement = compare(detect(picture), {name: forms[f"fgfast_{name}"](picture) for name in models})
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    processor: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(rounds):
        for name, form in forms.items():
            start, used = time.perf_counter(), time.process_time()
            form(picture)
            seconds[name].append(time.perf_counter() - start)
            processor[name].append(time.process_time() - used)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "bench": "detic",
        "model": config.name,
        "picture": f"{_SIZE[1]}x{_SIZE[0]}, picture to detections",
        "reference": f"as specified, eager; not the original: {lacking}" if lacking else original_detic.named(),
        "model_weights": model_weights,
        "rounds": rounds,
        "seconds": {name: round(value, 3) for name, value in medians.items()},
        # Of all threads together: what is left to compare by where other processes share the cores.
        "processor_seconds": {name: round(statistics.median(v), 3) for name, v in processor.items()},
        "all_rounds": {name: [round(v, 3) for v in values] for name, values in seconds.items()},
        "times_as_fast": {name: round(medians[reference] / value, 2) for name, value in medians.items()},
        "largest_difference_of_swin3": differences,
        "detections": agreement,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        **stamp(),
    }


def _original(model: Detic, words: Tensor) -> tuple[str, _Detect, _Maps]:
    """Name, detector and backbone of the original, with a model's weights."""
    original = Original(model.config, model.state_dict(), words, Selection())
    return "original_fp32", original, lambda pictures: original.model.backbone.bottom_up(pictures)["swin3"]


def _plain(config: DeticConfig, words: Tensor, weights: str) -> tuple[str, _Detect, _Maps]:
    """Name, detector and backbone of the plain form."""
    graph = PlainGraph(build_detic(config.name, weights, "fp32").to(memory_format=torch.contiguous_format))
    canvases = AnyCanvas(lambda canvas, count: TorchSession(graph, graphs.detic_detector(canvas, count)))
    swin = graph.model.backbone.bottom_up
    return "plain_fp32", _detector(canvases, config, words), lambda pictures: plain_swin(swin, pictures)[-1]


def _detector(canvases: Canvases, config: DeticConfig, words: Tensor) -> _Detect:
    """fgfast from a picture to detections, by the graph given."""
    detector = DeticDetector(canvases, config, [str(n) for n in range(len(words))], words, Selection())

    def detect(picture: UInt8) -> Detected:
        (found,) = detector([Image(picture)])
        return Detected(found.detections.boxes, found.detections.scores, found.classes)

    return detect


@torch.inference_mode()
def compare_maps(swin3: _Maps, models: dict[str, Detic], pictures: Tensor) -> dict[str, float]:
    """Largest differences of swin3 from the reference's; raises if float32 is beyond its tolerance."""
    theirs, largest = swin3(pictures), {}
    for name, model in models.items():
        difference = (model.backbone.bottom_up(pictures, None)[-1] - theirs).double().flatten().numpy()
        if name == "fp32":
            DETIC_FP32["features"].check(difference, "swin3")
        largest[name] = float(f"{np.abs(difference).max():.2g}")
    return largest


def compare(theirs: Detected, found: dict[str, Detected]) -> dict[str, Any]:
    """Detections as sets beside the reference's: how many, how many were lost, and how far the others are apart."""
    result: dict[str, Any] = {"reference": len(theirs.boxes)}
    for name, ours in found.items():
        apart = np.abs(theirs.boxes[:, None].astype(np.float64) - ours.boxes[None]).max(2)
        apart[theirs.classes[:, None] != ours.classes[None]] = np.inf
        partner, there = apart.argmin(1), apart.min(1) <= _MATCH_PX
        boxes = np.abs(theirs.boxes[there].astype(np.float64) - ours.boxes[partner[there]])
        scores = np.abs(theirs.scores[there].astype(np.float64) - ours.scores[partner[there]])
        if name == "fp32":
            extent = (theirs.boxes[:, 2:] - theirs.boxes[:, :2]).max(1, keepdims=True)[there]
            if not there.all() or len(ours.boxes) != len(theirs.boxes):
                raise AssertionError(f"{len(ours.boxes)} detections, {there.sum()} of them the {len(there)} expected")
            DETIC_FP32["boxes_px"].check((boxes - DETIC_BOX_SHARE * extent).clip(0).flatten(), "detections")
            DETIC_FP32["scores"].check(scores, "detections")
        result[name] = {
            "found": len(ours.boxes),
            "lost": int((~there).sum()),
            "largest_px": float(f"{boxes.max(initial=0):.2g}"),
            "largest_score": float(f"{scores.max(initial=0):.2g}"),
        }
    return result


class PlainGraph(DetectorGraph):
    """The detector's graph, as specified, for one picture on its own canvas."""

    def forward(self, pixels: Tensor, sizes: Tensor, vocabulary: Tensor) -> tuple[Tensor, Tensor]:
        """Arguments and result as DetectorGraph's."""
        boxes, scores = plain(self.model, self.pictures(pixels, sizes), sizes, vocabulary)
        return boxes, scores


def plain(model: Detic, pictures: Tensor, sizes: Tensor, words: Tensor) -> Refined:
    """The whole model, as specified. Arguments and result as Detic.forward's."""
    maps = [m.contiguous() for m in plain_swin(model.backbone.bottom_up, pictures)]
    pyramid = model.backbone.from_backbone(maps, None)
    head, found = model.proposal_generator.centernet_head, []
    for n, level in enumerate(pyramid):
        heat, distances = plain_head(head, level, n)
        found.append(level_candidates(heat, distances, PYRAMID_STRIDES[n], None, model.config))
    boxes, scores = (torch.cat(list(column), 1) for column in zip(*found, strict=True))
    proposals = model.proposal_generator.best(Candidates(boxes, scores))
    stages = model.roi_heads(pyramid[:3], proposals.boxes, sizes, None)
    return combine(stages, proposals.scores, words)


def plain_head(head: CenterNetHead, x: Tensor, level: int) -> tuple[Tensor, Tensor]:
    """One level of the proposal head: (1, C, h, w) -> heat logits (1, 1, h, w), distances (1, 4, h, w)."""
    for layer in head.bbox_tower:
        x = layer(x)
    return head.agn_hm(x), functional.relu(head.scales[level](head.bbox_pred(x)))


def plain_swin(swin: Swin, pictures: Tensor) -> list[Tensor]:
    """(1, 3, H, W) -> swin1, swin2, swin3 as (1, C, h, w)."""
    x = swin.patch_embed(pictures)
    outputs = []
    for n, stage in enumerate(swin.layers):
        _, height, width, channels = x.shape
        mask = shift_mask(height, width)
        for number, block in enumerate(stage.blocks):
            x = plain_block(block, x, WINDOW // 2 * (number % 2), mask)
        if n:
            outputs.append(swin.get_submodule(f"norm{n}")(x).permute(0, 3, 1, 2))
        if stage.downsample is not None:
            x = stage.downsample(x.flatten(1, 2), height, width).view(1, height // 2, width // 2, 2 * channels)
    return outputs


def plain_block(block: Block, x: Tensor, shift: int, mask: Tensor) -> Tensor:
    """One block on (1, H, W, C) float32."""
    _, height, width, channels = x.shape
    y = functional.pad(block.norm1(x), (0, 0, 0, -width % WINDOW, 0, -height % WINDOW))
    if shift:
        y = torch.roll(y, (-shift, -shift), (1, 2))
    rows, columns = y.shape[1] // WINDOW, y.shape[2] // WINDOW
    cut = windows(y).reshape(-1, WINDOW * WINDOW, channels)
    qkv = block.attn.qkv(cut).view(len(cut), WINDOW * WINDOW, 3, block.attn.heads, -1).permute(2, 0, 3, 1, 4)
    logits = (qkv[0] * qkv.shape[-1] ** -0.5) @ qkv[1].transpose(-2, -1) + block.attn.biases()[:1]
    if shift:
        logits = logits + mask[:, None]
    attended = (logits.softmax(-1) @ qkv[2]).transpose(1, 2).reshape(cut.shape)
    y = block.attn.proj(attended).view(1, rows, columns, WINDOW, WINDOW, channels).permute(0, 1, 3, 2, 4, 5)
    y = y.reshape(1, rows * WINDOW, columns * WINDOW, channels)
    if shift:
        y = torch.roll(y, (shift, shift), (1, 2))
    x = x + y[:, :height, :width]
    return x + block.mlp(block.norm2(x))


def windows(x: Tensor) -> Tensor:
    """(1, H, W, C), multiples of 7 -> (windows, 7, 7, C)."""
    _, height, width, channels = x.shape
    grid = x.view(height // WINDOW, WINDOW, width // WINDOW, WINDOW, channels)
    return grid.permute(0, 2, 1, 3, 4).reshape(-1, WINDOW, WINDOW, channels)


def shift_mask(height: int, width: int) -> Tensor:
    """(windows, 49, 49) float32: -100 between regions of the rolled, padded map."""
    regions = torch.zeros(1, -(-height // WINDOW) * WINDOW, -(-width // WINDOW) * WINDOW, 1)
    cuts = (slice(0, -WINDOW), slice(-WINDOW, -(WINDOW // 2)), slice(-(WINDOW // 2), None))
    for number, (row, column) in enumerate((r, c) for r in cuts for c in cuts):
        regions[:, row, column] = number
    flat = windows(regions).reshape(-1, WINDOW * WINDOW)
    return (flat[:, :, None] != flat[:, None, :]).float() * -100.0


def table(result: dict[str, Any]) -> str:
    """The result for a person."""
    names = {
        "original_fp32": "the original, float32",
        "plain_fp32": "as specified, eager, float32",
        "fgfast_fp32": "fgfast, float32",
        "fgfast_bf16": "fgfast, bfloat16",
    }
    lines = [
        f"Detic {result['model']}, {result['picture']}; {result['rounds']} rounds, medians",
        f"{result['machine']['processor']}, {result['threads']} threads, torch {result['torch']}",
        f"Reference: {result['reference']}",
        "",
    ]
    for name in result["seconds"]:
        lines.append(
            f"  {names[name]:30} {result['seconds'][name]:8.3f} s   {result['times_as_fast'][name]:.2f} times as fast"
            f"   {result['processor_seconds'][name]:8.3f} s of processor"
        )
    found = result["largest_difference_of_swin3"]
    lines += ["", f"  largest difference of swin3: float32 {found['fp32']:.1g}, bfloat16 {found['bf16']:.1g}"]
    found = result["detections"]
    lines += [
        f"  of {found['reference']} detections {name} lost {found[name]['lost']}; the others are within "
        f"{found[name]['largest_px']} px and {found[name]['largest_score']} of score"
        for name in ("fp32", "bf16")
    ]
    return "\n".join(lines)
