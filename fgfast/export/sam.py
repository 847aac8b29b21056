"""SAM as ONNX: its image encoder in any precision, and its prompt encoder with the mask decoder in float32."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fgfast import graphs
from fgfast.export.check import smooth_noise
from fgfast.export.part import Part
from fgfast.methods import ModelSpec, Precision
from fgfast.models.sam.architecture import CHANNELS
from fgfast.models.sam.build import build_sam
from fgfast.models.sam.exported import ExportedEncoder
from fgfast.models.sam.graph import ImageEncoderGraph, MaskDecoderGraph, PromptDecoderGraph
from fgfast.models.sam.model import Sam
from fgfast.tolerances import SAM_BF16, SAM_FP16, SAM_FP32

TOLERANCES = {"fp32": SAM_FP32, "fp16": SAM_FP16, "bf16": SAM_BF16}
# Height and width of the encoder's cases as fractions of the side, one of them 1. None of them is traced.
_SHAPES = {"landscape": (0.66, 1.0), "portrait": (1.0, 0.37)}
# (images, boxes) of the decoder's cases: one of each, which a tracer may take for a constant, and more. None of them is
# traced.
_COUNTS = ((1, 1), (1, 5), (3, 7))
_TRACED_COUNTS = (2, 3)
# (images, prompts, points of each) of the prompt decoder's cases. None of them is traced.
_CLICKS = ((1, 1, 2), (1, 5, 1), (3, 2, 7))
_TRACED_CLICKS = (2, 3, 5)


def parts(spec: ModelSpec, names: Sequence[str]) -> Iterator[Part]:
    """The graphs that `fgfast export sam_vit_l` writes.

    Args:
        spec: of a SAM; the precision and the batch are the encoder's.
        names: of "sam_image_encoder", "sam_mask_decoder" and "sam_prompt_decoder".
    """
    exact = build_sam(replace(spec, precision="fp32"))
    if "sam_image_encoder" in names:
        sam = exact if spec.precision == "fp32" else build_sam(spec)
        yield encoder(sam, exact, spec.precision, spec.batch or 1)
    if "sam_mask_decoder" in names:
        yield decoder(exact)
    if "sam_prompt_decoder" in names:
        yield prompt_decoder(exact)


def encoder(sam: Sam, exact: Sam, precision: Precision = "fp32", batch: int | str = 1) -> Part:
    """The image encoder.

    Args:
        sam: on the CPU; shared, not copied.
        exact: the same model in float32, for the parity check.
        precision: of `sam`.
        batch: images per call, or a word where their number may vary; then the cases have 1 and 3 images.
    """
    whole = ImageEncoderGraph(sam)
    whole.encoder = ExportedEncoder(sam.image_encoder)
    side = sam.architecture.side
    traced = batch if isinstance(batch, int) else 2
    pixels, sizes = torch.zeros(traced, side, side, 3, dtype=torch.uint8), torch.tensor([[side, side]] * traced)
    return Part(
        graphs.sam_image_encoder(side, batch),
        whole,
        ImageEncoderGraph(exact),
        (pixels, sizes),
        lambda: _images(side, batch),
        TOLERANCES[precision],
    )


def _images(side: int, batch: int | str) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Random images of other aspect ratios, with noise in the padding, which must not affect the result."""
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


def decoder(sam: Sam, multimask: bool = False) -> Part:
    """The prompt encoder and the mask decoder. The numbers of boxes and images may vary from call to call.

    Args:
        sam: on the CPU; shared, not copied.
        multimask: three masks per box instead of one.
    """
    contract = graphs.sam_mask_decoder(sam.architecture.side, masks=3 if multimask else 1)
    graph = MaskDecoderGraph(sam, multimask)
    example = tuple(_prompts(sam, *_TRACED_COUNTS, seed=0).values())
    return Part(contract, graph, graph, example, lambda: _cases(sam), SAM_FP32)


def _cases(sam: Sam) -> Iterator[tuple[str, dict[str, Tensor]]]:
    for seed, (images, pairs) in enumerate(_COUNTS, start=1):
        yield f"{pairs} boxes in {images} images", _prompts(sam, images, pairs, seed)


def _prompts(sam: Sam, images: int, pairs: int, seed: int) -> dict[str, Tensor]:
    """Random embeddings of order 1, as the encoder's are, and boxes from a few pixels to the whole square."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(images, CHANNELS, sam.architecture.grid, sam.architecture.grid, generator=generator)
    index = torch.randint(images, (pairs,), generator=generator)
    # Two draws for each corner coordinate, in order: x0 < x1, y0 < y1.
    corners = torch.rand(pairs, 2, 2, generator=generator).sort(1).values * sam.architecture.side
    return {"embeddings": embeddings, "image_index": index, "boxes": corners.flatten(1)}


def prompt_decoder(sam: Sam) -> Part:
    """The prompt encoder for boxes, points and masks, and the mask decoder with all its masks.

    Args:
        sam: on the CPU; shared, not copied.
    """
    graph = PromptDecoderGraph(sam)
    example = tuple(_clicks(sam, *_TRACED_CLICKS, seed=0).values())
    contract = graphs.sam_prompt_decoder(sam.architecture.side)
    return Part(contract, graph, graph, example, lambda: _click_cases(sam), SAM_FP32)


def _click_cases(sam: Sam) -> Iterator[tuple[str, dict[str, Tensor]]]:
    for seed, (images, pairs, points) in enumerate(_CLICKS, start=1):
        yield f"{pairs} prompts of {points} points in {images} images", _clicks(sam, images, pairs, points, seed)


def _clicks(sam: Sam, images: int, pairs: int, points: int, seed: int) -> dict[str, Tensor]:
    """Random embeddings of order 1, points of all kinds, and masks for every second prompt, NaN for the others."""
    generator = torch.Generator().manual_seed(seed)
    side, grid = sam.architecture.side, sam.architecture.grid
    embeddings = torch.randn(images, CHANNELS, grid, grid, generator=generator)
    index = torch.randint(images, (pairs,), generator=generator)
    places = torch.rand(pairs, points, 2, generator=generator) * side
    kinds = torch.randint(5, (pairs, points), generator=generator)
    masks = 8 * torch.randn(pairs, 4 * grid, 4 * grid, generator=generator)
    has_mask = (torch.arange(pairs) + seed).remainder(2).float()
    masks[has_mask == 0] = torch.nan
    return {
        "embeddings": embeddings,
        "image_index": index,
        "points": places,
        "kinds": kinds,
        "masks": masks,
        "has_mask": has_mask,
    }
