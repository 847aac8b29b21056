"""Detic Swin-B on one 800x1200 picture: fgfast in float32 and bfloat16, beside the specification written out
plainly.

The plain form computes the same function from the same weights the way the reference's sources do: pad,
roll, cut into windows, add bias and mask to explicit attention, run whole maps at once, convolve in the
default memory layout, and the two predictions apart. Proposals, pooling and selection are fgfast's in both.
Weights are seeded noise.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from fgfast.bench.stamp import stamp
from torch import Tensor
from torch.nn import functional

from fgfast.models.detic.canvas import PYRAMID_STRIDES
from fgfast.models.detic.cascade import Refined, combine
from fgfast.models.detic.config import SWIN_B, WINDOW, DeticConfig
from fgfast.models.detic.model import Detic
from fgfast.models.detic.proposals import Candidates, CenterNetHead, level_candidates
from fgfast.models.detic.swin import Block, Swin
from fgfast.models.detic.vocabulary import EMBEDDING, classifier

# Detic's size for a 2:3 picture, on the reference's canvas.
_SIZE = (800, 1200)
_CANVAS = (800, 1216)
_CLASSES = 1203
# The largest difference of swin3, in deviations, between the two float32 forms: README's tolerance for
# feature maps.
_SAME = 1e-4


def measure(*, rounds: int, config: DeticConfig = SWIN_B) -> dict[str, Any]:
    """Time the three in turns on the same picture, after comparing what they compute.

    Args:
        rounds: how often each is timed; medians are quoted.
        config: of the model.

    Returns:
        Seconds of each, ratios to the plain form, largest differences, the machine and versions, as plain
        values.
    """
    model = noise_model(config)
    generator = torch.Generator().manual_seed(1)
    pictures = torch.zeros(1, 3, *_CANVAS)
    coarse = torch.randn(1, 3, _SIZE[0] // 8, _SIZE[1] // 8, generator=generator)
    pictures[:, :, : _SIZE[0], : _SIZE[1]] = functional.interpolate(coarse, size=_SIZE, mode="bilinear")
    sizes = torch.tensor([_SIZE])
    words = classifier(torch.randn(_CLASSES, EMBEDDING, generator=generator))
    models = {name: noise_model(config).set_precision(name) for name in ("fp32", "bf16")}
    forms: dict[str, Callable[[], Refined]] = {
        "plain_fp32": lambda: plain(model, pictures, sizes, words),
        "fgfast_fp32": lambda: models["fp32"](pictures, sizes, words, False),
        "fgfast_bf16": lambda: models["bf16"](pictures, sizes, words, False),
    }
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    processor: dict[str, list[float]] = {name: [] for name in forms}
    with torch.inference_mode():
        differences = compare(model, models, pictures)
        for turn in range(rounds + 1):
            for name, form in forms.items():
                start, used = time.perf_counter(), time.process_time()
                form()
                if turn:
                    seconds[name].append(time.perf_counter() - start)
                    processor[name].append(time.process_time() - used)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "bench": "detic",
        "model": config.name,
        "canvas": f"{_CANVAS[1]}x{_CANVAS[0]}",
        "rounds": rounds,
        "seconds": {name: round(value, 3) for name, value in medians.items()},
        # Of all threads together: what is left to compare by where other processes share the cores.
        "processor_seconds": {name: round(statistics.median(v), 3) for name, v in processor.items()},
        "all_rounds": {name: [round(v, 3) for v in values] for name, values in seconds.items()},
        "times_as_fast": {name: round(medians["plain_fp32"] / value, 2) for name, value in medians.items()},
        "largest_difference_of_swin3": differences,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        **stamp(),
    }


def noise_model(config: DeticConfig) -> Detic:
    """A model whose weights are seeded noise that keeps signals of order one."""
    torch.manual_seed(0)
    model = Detic(config)
    for name, parameter in model.named_parameters():
        if name.endswith("relative_position_bias_table"):
            parameter.normal_(0, 0.5)
        elif parameter.ndim > 1:
            parameter.normal_(0, parameter[0].numel() ** -0.5)
    model.proposal_generator.centernet_head.bbox_pred.bias.fill_(6.0)
    return model


def compare(model: Detic, models: dict[str, Detic], pictures: Tensor) -> dict[str, float]:
    """Largest differences of swin3 from the plain form; raises if the float32 forms disagree."""
    plainly = plain_swin(model.backbone.bottom_up, pictures)[-1]
    found = {
        name: float((other.backbone.bottom_up(pictures, None)[-1] - plainly).abs().max())
        for name, other in models.items()
    }
    if found["fp32"] > _SAME:
        raise AssertionError(f"the two float32 forms differ by {found['fp32']:.2g}, more than {_SAME}")
    return {name: float(f"{value:.2g}") for name, value in found.items()}


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
        "plain_fp32": "as specified, eager, float32",
        "fgfast_fp32": "fgfast, float32",
        "fgfast_bf16": "fgfast, bfloat16",
    }
    lines = [
        f"Detic {result['model']}, one picture on {result['canvas']}, {result['rounds']} rounds, medians",
        f"{result['machine']['processor']}, {result['threads']} threads, torch {result['torch']}",
        "",
    ]
    for name, label in names.items():
        lines.append(
            f"  {label:30} {result['seconds'][name]:8.3f} s   {result['times_as_fast'][name]:.2f} times as fast"
            f"   {result['processor_seconds'][name]:8.3f} s of processor"
        )
    found = result["largest_difference_of_swin3"]
    lines += ["", f"  largest difference of swin3: float32 {found['fp32']:.1g}, bfloat16 {found['bf16']:.1g}"]
    return "\n".join(lines)
