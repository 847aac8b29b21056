"""SAM for a person at a page: an image becomes an embedding once, and every click is decoded from it.

Prompts and masks are in pixels of the stored image; SAM's square is known here alone. One process holds one model.
"""

from __future__ import annotations

import functools
import os
from dataclasses import replace

import numpy as np
import torch

from fgfast import graphs, ops
from fgfast.backends.session import Session
from fgfast.backends.torch import TorchSession
from fgfast.errors import ImageRefusedError, UsageError
from fgfast.methods import ModelSpec
from fgfast.models.prompts import Prompts
from fgfast.models.sam import transform
from fgfast.models.sam.architecture import CHANNELS, architecture
from fgfast.models.sam.build import build_sam
from fgfast.models.sam.graph import ImageEncoderGraph, PromptDecoderGraph
from fgfast.models.serving.batches import visible
from fgfast.models.serving.devices import choose_device, compute_with
from fgfast.records import Bool, Float32, Size, UInt8

# `PromptEncoder.points`' kinds.
_BACKGROUND, _SUBJECT, _UPPER_LEFT, _LOWER_RIGHT, _PADDING = range(5)
# The encoder's priority below the decoder's: on the same cores, the decoder gets nine tenths of the time (nice(2)).
_POLITE = 10
# From this many points on (a box counts as two), the single mask is better than the best of three, segment-anything's
# utils/onnx.py: select_masks.
_CLEAR = 2

# segment-anything's logits stay below a few hundred; float16 ends at 65504.
_LARGEST = 1e4

# Embeddings that the decoder's process keeps in float32, 4 MB each: of the image before, and of a few that a person
# goes back to. By their numbers.
_KEPT = 8
_features: dict[int, torch.Tensor] = {}


def load(spec: ModelSpec, threads: int, encoder: bool) -> bool:
    """Load a model, so that the first click does not wait for it.

    Args:
        spec: of a SAM.
        threads: of PyTorch.
        encoder: whether to load the image encoder, not the decoder. Its process then gives way to others, because it
            works ahead of a person whose clicks the decoder answers.

    Returns:
        True.

    Raises:
        the errors of build_sam.
    """
    compute_with(threads, shared=False)
    if encoder and hasattr(os, "nice"):
        os.nice(_POLITE)
    _session(spec, encoder)
    return True


@functools.lru_cache(maxsize=2)
def _session(spec: ModelSpec, encoder: bool) -> Session:
    """Return the encoder or the decoder, in float32 on the first GPU, else on the CPU."""
    model = build_sam(replace(spec, device=choose_device("auto"), precision="fp32", backend="torch"))
    side, device = model.architecture.side, model.device
    if encoder:
        return TorchSession(ImageEncoderGraph(model), graphs.sam_image_encoder(side), device)
    return TorchSession(PromptDecoderGraph(model), graphs.sam_prompt_decoder(side), device)


def _side(spec: ModelSpec) -> int:
    return architecture(spec.name.removeprefix("sam_")).side


def embed(spec: ModelSpec, pixels: UInt8) -> bytes:
    """Return what SAM's encoder sees in an image: (256, g, g) float16, row by row; 2 MB where the square has 1024 px.

    Args:
        spec: of a SAM.
        pixels: (H, W, 3) uint8 RGB, the stored image.

    Raises:
        ImageRefusedError: it is too slim for SAM.
    """
    return _embed(spec, [_square(spec, pixels)])[0]


def embed_all(spec: ModelSpec, images: list[UInt8]) -> list[bytes | None]:
    """Return `embed` of images; None of those that are too slim. A GPU takes them in one batch."""
    squares: list[tuple[UInt8, Size] | None] = []
    for pixels in images:
        try:
            squares.append(_square(spec, pixels))
        except ImageRefusedError:
            squares.append(None)
    wanted = [square for square in squares if square is not None]
    together = len(wanted) if _session(spec, True).device.type == "cuda" else 1
    found = [data for n in range(0, len(wanted), max(1, together)) for data in _embed(spec, wanted[n : n + together])]
    return [None if square is None else found.pop(0) for square in squares]


def _square(spec: ModelSpec, pixels: UInt8) -> tuple[UInt8, Size]:
    """Return an image in SAM's square, (side, side, 3) uint8, and its size there."""
    side = _side(spec)
    height, width = pixels.shape[:2]
    size = visible(transform.resized_size(height, width, side), Size(height, width), "SAM")
    square = np.zeros((side, side, 3), np.uint8)
    square[: size.height, : size.width] = ops.resize(np.ascontiguousarray(pixels), size)
    return square, size


def _embed(spec: ModelSpec, squares: list[tuple[UInt8, Size]]) -> list[bytes]:
    session = _session(spec, True)
    pixels, sizes = zip(*squares, strict=True)
    inputs = {"pixels": torch.from_numpy(np.stack(pixels)), "sizes": torch.tensor(sizes)}
    with torch.inference_mode():
        found = session.run({name: x.to(session.device) for name, x in inputs.items()})["embeddings"]
    return [one.numpy().tobytes() for one in found.to("cpu", torch.float16)]


def masks(
    spec: ModelSpec,
    number: int,
    size: tuple[int, int],
    prompts: Prompts,
    previous: bytes | None = None,
    banner_rows: int = 0,
    embedding: bytes | None = None,
) -> tuple[list[Bool], list[float], bytes] | None:
    """Return masks for a person's clicks.

    Args:
        spec: of the SAM that made the embedding.
        number: names the embedding; another embedding has another one.
        size: height and width of the stored image, in pixels.
        prompts: box and points; strokes are not SAM's.
        previous: the last result's, if it is to be refined.
        banner_rows: rows at the bottom that are never subject.
        embedding: from `embed`; kept for the next clicks on the image.

    Returns:
        None without an embedding, where none is kept under this number. Else:
        Masks (H, W) bool, the likeliest first: the single one where the prompt is clear, the best of three where it is
        one point; the estimate of each one's IoU; and the low-resolution logits of the first, float16.

    Raises:
        UsageError: `previous` is not of this model.
    """
    side, session = _side(spec), _session(spec, False)
    if embedding is not None:
        _keep(number, embedding, side, session.device)
    if (features := _features.get(number)) is None:
        return None
    inputs = {"embeddings": features} | _inputs(side, size, prompts, previous)
    with torch.inference_mode():
        found = session.run({name: x.to(session.device) for name, x in inputs.items()})
    logits, quality = (found[name][0].cpu().numpy() for name in ("logits", "quality"))
    clear = prompts.box is not None or len(prompts.points) >= _CLEAR
    order = [0, *(1 + np.argsort(-quality[1:], kind="stable")).tolist()]
    if not clear:
        order = [*order[1:], 0]
    resized = transform.resized_size(*size, side)
    bits = ops.mask_post(np.ascontiguousarray(logits[None, order]), size, resized, side).bits[0]
    if banner_rows > 0:
        bits[:, max(0, size[0] - banner_rows) :] = False
    first = np.clip(logits[order[0]], -_LARGEST, _LARGEST).astype(np.float16)
    return [np.asarray(one) for one in bits], [float(quality[n]) for n in order], first.tobytes()


def _keep(number: int, embedding: bytes, side: int, device: torch.device) -> None:
    """Keep an embedding in float32 where the decoder reads it."""
    grid = side // 16
    halves = np.frombuffer(embedding, np.float16).reshape(1, CHANNELS, grid, grid)
    _features[number] = torch.from_numpy(halves.astype(np.float32)).to(device)
    while len(_features) > _KEPT:
        del _features[next(iter(_features))]


def _inputs(side: int, size: tuple[int, int], prompts: Prompts, previous: bytes | None) -> dict[str, torch.Tensor]:
    grid = side // 16
    height, width = size
    boxes = np.zeros((0, 4), np.float32) if prompts.box is None else prompts.box[None]
    places = np.concatenate([prompts.points, boxes.reshape(-1, 2), np.zeros((int(prompts.box is None), 2), np.float32)])
    kinds = [_SUBJECT if label else _BACKGROUND for label in prompts.labels]
    kinds += [_PADDING] if prompts.box is None else [_UPPER_LEFT, _LOWER_RIGHT]
    # Two corners at a time: points scale as a box's corners do.
    scaled = transform.scale_boxes(np.concatenate([places, places], 1), height, width, side)[:, :2]
    low_res = np.zeros((1, 4 * grid, 4 * grid), np.float32)
    if previous is not None:
        low_res[0] = _earlier(previous, 4 * grid)
    return {
        "image_index": torch.zeros(1, dtype=torch.long),
        "points": torch.from_numpy(np.ascontiguousarray(scaled))[None],
        "kinds": torch.tensor([kinds]),
        "masks": torch.from_numpy(low_res),
        "has_mask": torch.tensor([float(previous is not None)]),
    }


def _earlier(previous: bytes, cells: int) -> Float32:
    """Return the logits of an earlier mask, (cells, cells) float32; the page sends them back, so they are checked."""
    if len(previous) != 2 * cells * cells:
        raise UsageError(f"the previous mask has {len(previous):,} bytes, but this model's have {2 * cells * cells:,}")
    logits = np.frombuffer(previous, np.float16).reshape(cells, cells).astype(np.float32)
    if not np.isfinite(logits).all():
        raise UsageError("the previous mask has values that are not finite")
    return logits
