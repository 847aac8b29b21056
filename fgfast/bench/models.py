"""SAM from image to mask, beside segment-anything's own predictor: results first, then times and memory.

Each contender lives in a process of its own, so that its peak memory is its own; they take turns image by image, so
that whatever else the machine does befalls all alike. Weights are made up: the arithmetic does not depend on them.

    fgfast bench models sam_vit_b --rounds 5 --save
"""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from fgfast.bench.io import noise_image
from fgfast.bench.result import Result, Row, envelope
from fgfast.machine import available_cores
from fgfast.records import Bool, Float32, UInt8

ORIGINAL, PLAIN = "segment-anything", "fgfast eager fp32"
"""The references: the package where it is installed, else our own float32 as PyTorch runs it, neither compiled nor
exported."""
Segment = Callable[[UInt8, Float32], Bool]
"""(pixels (H, W, 3) uint8 RGB, box (1, 4) float32 in pixels) -> mask (H, W)."""
# Height and width of the images, and the box in parts of them: CUB's commonest size, a subject in the middle.
_SIZE = (375, 500)
_BOX = (0.2, 0.15, 0.85, 0.9)
# Made up; the arithmetic does not depend on them.
MODEL_WEIGHTS = "random:1"
# What fgfast may differ by: fgfast/tolerances.py has the same figures and their reasons.
_FLIPPED_FP32 = 1e-4
_IOU_HALF = 0.99


def named() -> str:
    """The reference that there is here."""
    return ORIGINAL if importlib.util.find_spec("segment_anything") is not None else PLAIN


def measure_sam(
    name: str = "vit_b",
    *,
    rounds: int = 5,
    precisions: Sequence[str] = ("fp32", "bf16"),
    images: int = 2,
    model_weights: str = MODEL_WEIGHTS,
    device: str = "cpu",
) -> Result:
    """Time segment-anything (float32, as shipped) and fgfast in turns on the same images, boxes and weights.

    Args:
        name: which SAM.
        rounds: how often each image is timed by each; medians are quoted.
        precisions: of fgfast.
        images: how many different ones.
        model_weights: "cached", "random:SEED" or a file; the same for all.
        device: where all compute, as torch names it.

    Returns:
        Agreement, seconds, ratios and peak memory.

    Raises:
        AssertionError: where results differ by more than the precision allows; then nothing is timed.
    """
    contenders = {who: _Contender(who, name, model_weights, device) for who in (named(), *precisions)}
    generator = np.random.default_rng(0)
    height, width = _SIZE
    arrays = [noise_image(generator, height, width) for _ in range(images)]
    box = np.array([_BOX], np.float32) * np.array([width, height] * 2, np.float32)
    try:
        agreement = _compare({who: [c.segment(i, box)[0] for i in arrays] for who, c in contenders.items()})
        seconds: dict[str, list[float]] = {who: [] for who in contenders}
        for image in arrays * rounds:
            for who, contender in contenders.items():
                seconds[who].append(contender.segment(image, box)[1])
        peaks = {who: contender.peak() for who, contender in contenders.items()}
    finally:
        for contender in contenders.values():
            contender.close()
    return _summary(name, rounds, agreement, seconds, peaks, {"model_weights": model_weights, "device": device})


class _Contender:
    """A process with one model, that answers images with masks."""

    def __init__(self, who: str, name: str, weights: str, device: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, who, name, weights, device), daemon=True)
        self._process.start()
        theirs.close()

    def segment(self, image: UInt8, box: Float32) -> tuple[Bool, float]:
        """((H, W) bool, seconds) for one image and its (1, 4) box."""
        self._pipe.send((image, box))
        mask, seconds = self._pipe.recv()
        return mask, seconds

    def peak(self) -> float:
        """Peak memory in MiB: of the GPU where it computes there, else resident."""
        self._pipe.send(None)
        return float(self._pipe.recv())

    def close(self) -> None:
        self._pipe.close()
        self._process.join()


def _serve(pipe: Connection, who: str, name: str, weights: str, device: str) -> None:
    theirs = who in (ORIGINAL, PLAIN)
    segment = reference(name, weights, device) if theirs else _ours(name, who, weights, device)
    while True:
        try:
            request = pipe.recv()
        except EOFError:
            return
        if request is None:
            pipe.send(_peak(device))
            continue
        start = time.perf_counter()
        mask = segment(*request)
        pipe.send((mask, time.perf_counter() - start))


def _peak(device: str) -> float:
    if device != "cpu":
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**20
    # Linux counts in KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def reference(name: str, weights: str, device: str) -> Segment:
    """The reference's way from image and box to mask; segment-anything's predictor is as shipped.

    Args:
        name: "vit_b", ...
        weights: "cached", "random:SEED" or a file.
        device: where it computes, as torch names it.
    """
    from fgfast.models.files import checkpoints as build

    if named() == PLAIN:
        from fgfast.models.sam.sessions import sam_in_torch

        plain = sam_in_torch(build.build_sam(name, weights, "fp32", device))
        return lambda image, box: plain.segment([image], [box])[0].bits[0, 0]
    _declare_torchvision_operators()
    package: Any = importlib.import_module("segment_anything")
    model = package.sam_model_registry[name]()
    model.load_state_dict(build.sam_state(name, weights))
    predictor = package.SamPredictor(model.to(device).eval())

    def segment(image: UInt8, box: Float32) -> Bool:
        predictor.set_image(image)
        mask: Bool = predictor.predict(box=box[0], multimask_output=False)[0][0]
        return mask

    return segment


def _ours(name: str, precision: Any, weights: str, device: str) -> Segment:
    from fgfast.models.serving import exported as sessions

    model = sessions.sam(f"sam_{name}", weights, precision, device, "torch", batch=1)
    return lambda image, box: model.segment([image], [box])[0].bits[0, 0]


def _declare_torchvision_operators() -> None:
    """In a source tree, run the tests' shim, so that torchvision's wheel imports beside another build of torch."""
    path = Path(__file__).resolve().parents[2] / "tests" / "torchvision_shim.py"
    spec = importlib.util.spec_from_file_location("torchvision_shim", path)
    if path.exists() and spec is not None and spec.loader is not None:
        # What it declares lives as long as the module.
        shim = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(shim)
        shim.declare()


def _compare(masks: dict[str, list[Bool]]) -> dict[str, dict[str, float]]:
    """How far all are from the first one."""
    agreement = {}
    first, *others = masks
    for who in others:
        pairs = list(zip(masks[who], masks[first], strict=True))
        flipped = max(float((a != b).mean()) for a, b in pairs)
        overlap = min(float((a & b).sum() / max(1, (a | b).sum())) for a, b in pairs)
        agreement[who] = {"pixels_flipped": flipped, "mask_iou": overlap}
        right = flipped <= _FLIPPED_FP32 if who == "fp32" else overlap >= _IOU_HALF
        if not right:
            raise AssertionError(f"{who}: {flipped:.2e} of the pixels flipped, mask IoU {overlap:.4f}")
    area = float(np.mean([mask.mean() for mask in masks[first]]))
    return agreement | {first: {"mask_area": area}}


def _summary(
    name: str,
    rounds: int,
    agreement: dict[str, dict[str, float]],
    seconds: dict[str, list[float]],
    peaks: dict[str, float],
    facts: dict[str, Any],
) -> Result:
    reference = next(iter(seconds))
    theirs = seconds[reference]
    ratios = {who: [t / o for t, o in zip(theirs, ours, strict=True)] for who, ours in seconds.items()}
    figures: dict[str, Any] = {
        "model": name,
        "image": f"{_SIZE[1]}x{_SIZE[0]}, one box, image to mask",
        "agreement": agreement,
        "seconds": {who: round(statistics.median(values), 4) for who, values in seconds.items()},
        "fastest_seconds": {who: round(min(values), 4) for who, values in seconds.items()},
        "times_faster": {who: round(statistics.median(values), 2) for who, values in ratios.items()},
        "peak_mib": {who: round(value) for who, value in peaks.items()},
        "all_seconds": {who: [round(v, 4) for v in values] for who, values in seconds.items()},
        "cores": available_cores(),
        **facts,
    }
    notes = [f"{figures['image']}; {reference} in float32; weights {facts['model_weights']}, the same."]
    title = f"SAM {name} beside {reference}, on {facts['device']}"
    return envelope("sam", rows_of(figures), title=title, rounds=rounds, notes=notes, **figures)


def rows_of(figures: Mapping[str, Any]) -> list[Row]:
    """The rows of a result's own fields, which results had before they had rows."""
    times = figures["all_seconds"]
    first, *others = times
    names = {first: first} | {who: f"fgfast {who}" for who in others}
    rows = [Row.of(names[who], times[who], "s", "lower", "seconds per image") for who in names]
    for who in others:
        ratios = [theirs / ours for theirs, ours in zip(times[first], times[who], strict=True)]
        rows.append(Row.of(names[who], ratios, "times", "higher", "faster than the reference"))
    rows += [Row(names[who], figures["peak_mib"][who], "MiB", "lower", "peak memory") for who in names]
    for who, found in figures["agreement"].items():
        if "mask_iou" in found:
            rows.append(Row(names[who], found["mask_iou"], "", "higher", "mask IoU with the reference"))
    return rows
