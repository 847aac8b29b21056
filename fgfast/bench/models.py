"""Measures SAM from image to mask beside the predictor of segment-anything: results first, then times and memory.

Each contender runs in a process of its own, whose peak memory is therefore its own. Contenders take turns image by
image, so that other load on the machine affects all of them alike. The weights are random, because the arithmetic does
not depend on them.
"""

from __future__ import annotations

import importlib
import importlib.util
import resource
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache, partial
from typing import Any

import numpy as np

from fgfast import processes
from fgfast.bench.images import noise_image
from fgfast.bench.result import Result, Row, envelope
from fgfast.machine import available_cores
from fgfast.methods import ModelSpec, Precision
from fgfast.ops.overlap import iou
from fgfast.records import Bool, Float32, Image, UInt8
from fgfast.runner import run_batch
from fgfast.tolerances import SAM_FLIPPED, SAM_HALF_MASK_IOU

ORIGINAL, PLAIN = "segment-anything", "fgfast eager fp32"
"""The references: the package if it is installed, otherwise fgfast's own float32 in eager PyTorch, neither compiled nor
exported."""
Segment = Callable[[UInt8, Float32], Bool]
"""(pixels (H, W, 3) uint8 RGB, box (1, 4) float32 in pixels) -> mask (H, W)."""
# Height and width of the images, the commonest size of CUB, and the box as fractions of them.
_SIZE = (375, 500)
_BOX = (0.2, 0.15, 0.85, 0.9)
MODEL_WEIGHTS = "random:1"


def named() -> str:
    """Return the reference that is available on this machine."""
    return ORIGINAL if importlib.util.find_spec("segment_anything") is not None else PLAIN


def precisions(device: str) -> tuple[Precision, ...]:
    """Return the precisions that are measured: float32, and the half precision that a GPU computes; bf16 on a CPU."""
    from fgfast.models.serving.devices import choose_precision

    half = "bf16" if device == "cpu" else choose_precision("auto", device)[0]
    return ("fp32",) if half == "fp32" else ("fp32", half)


def measure_sam(
    name: str, *, rounds: int, images: int = 2, model_weights: str = MODEL_WEIGHTS, device: str = "cpu"
) -> Result:
    """Time segment-anything (float32, as shipped) and fgfast in turns on the same images, boxes and weights.

    Args:
        name: the SAM, "vit_b", "vit_l" or "vit_h".
        rounds: how often each contender is timed on each image; medians are quoted.
        images: the number of different images.
        model_weights: "cached", "random:SEED" or a file; the same for all contenders.
        device: the device of all contenders, in torch's notation.

    Returns:
        Agreement, seconds, ratios and peak memory.

    Raises:
        AssertionError: results differ by more than the precision allows; then nothing is timed.
    """
    generator = np.random.default_rng(0)
    height, width = _SIZE
    arrays = [noise_image(generator, height, width) for _ in range(images)]
    box = np.array([_BOX], np.float32) * np.array([width, height] * 2, np.float32)
    with ExitStack() as stack:
        everyone = (named(), *precisions(device))
        contenders = {who: stack.enter_context(_Contender(who, name, model_weights, device)) for who in everyone}
        agreement = _compare({who: [c.segment(i, box)[0] for i in arrays] for who, c in contenders.items()})
        seconds: dict[str, list[float]] = {who: [] for who in contenders}
        for image in arrays * rounds:
            for who, contender in contenders.items():
                seconds[who].append(contender.segment(image, box)[1])
        peaks = {who: contender.peak() for who, contender in contenders.items()}
    what = f"{width}x{height}, one box, image to mask"
    return envelope(
        "sam",
        _rows(agreement, seconds, peaks),
        title=f"SAM {name} beside {named()}, on {device}",
        rounds=rounds,
        notes=[f"{what}; {named()} in float32; all use the weights {model_weights}."],
        model=name,
        image=what,
        agreement=agreement,
        model_weights=model_weights,
        device=device,
        cores=available_cores(),
    )


class _Contender:
    """A model in a process of its own, which loads it on first use."""

    def __init__(self, who: str, name: str, weights: str, device: str) -> None:
        self._wanted = who, name, weights, device
        self._process = processes.Child()

    def __enter__(self) -> _Contender:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.close()

    def segment(self, image: UInt8, box: Float32) -> tuple[Bool, float]:
        """Segment an image (H, W, 3) with its (1, 4) box in pixels; return the mask (H, W) bool and the seconds."""
        found: tuple[Bool, float] = self._process.call(f"{__name__}:_segment", self._wanted, image, box)
        return found

    def peak(self) -> float:
        """Return the peak memory in MiB: that of the GPU if the model runs on one, otherwise the resident memory."""
        return float(self._process.call(f"{__name__}:_peak", self._wanted[-1]))


def _segment(wanted: tuple[str, str, str, str], image: UInt8, box: Float32) -> tuple[Bool, float]:
    segment = _loaded(*wanted)
    start = time.perf_counter()
    mask = segment(image, box)
    return mask, time.perf_counter() - start


@cache
def _loaded(who: str, name: str, weights: str, device: str) -> Segment:
    theirs = who in (ORIGINAL, PLAIN)
    return reference(name, weights, device) if theirs else _ours(name, who, weights, device)


def _peak(device: str) -> float:
    if device != "cpu":
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**20
    # In KiB on Linux.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def reference(name: str, weights: str, device: str) -> Segment:
    """Load the reference; return its function from image and box to mask.

    It computes as fgfast does in float32: loading its weights turns TensorFloat-32 off in this process
    (fgfast.backends.torch_flags), which PyTorch would otherwise use in the reference's convolutions.

    Args:
        name: the SAM, "vit_b", "vit_l" or "vit_h".
        weights: "cached", "random:SEED" or a file.
        device: the device that it computes on, in torch's notation.
    """
    from fgfast.models.sam.build import build_sam, sam_state

    spec = ModelSpec(f"sam_{name}", weights, device=device)
    if named() == PLAIN:
        from fgfast.models.sam.sessions import sam_in_torch

        return partial(_mask_by, sam_in_torch(build_sam(spec)))
    from fgfast.studies import torchvision_shim

    torchvision_shim.declare()  # the package imports torchvision
    package: Any = importlib.import_module("segment_anything")
    model = package.sam_model_registry[name]()
    model.load_state_dict(sam_state(spec))
    predictor = package.SamPredictor(model.to(device).eval())

    def segment(image: UInt8, box: Float32) -> Bool:
        predictor.set_image(image)
        mask: Bool = predictor.predict(box=box[0], multimask_output=False)[0][0]
        return mask

    return segment


def _ours(name: str, precision: Any, weights: str, device: str) -> Segment:
    from fgfast.models.sam.sessions import segmenter
    from fgfast.models.serving.forms import MANY

    return partial(_mask_by, segmenter(ModelSpec(f"sam_{name}", weights, precision, device, batch=1, images=MANY)))


def _mask_by(model: Any, image: UInt8, box: Float32) -> Bool:
    """Segment one image with fgfast's SAM."""
    import torch

    (low_res,) = run_batch(model, [(Image(image), box[0])])
    bits: Bool = model.finish(low_res, *image.shape[:2], torch.get_num_threads()).bits
    return bits


def _compare(masks: dict[str, list[Bool]]) -> dict[str, dict[str, float]]:
    """Compare the masks of all contenders with those of the first one; raise if they differ too much."""
    agreement = {}
    first, *others = masks
    for who in others:
        pairs = list(zip(masks[who], masks[first], strict=True))
        flipped = max(float((a != b).mean()) for a, b in pairs)
        worst = min(iou(a, b, both_empty=0.0) for a, b in pairs)
        agreement[who] = {"pixels_flipped": flipped, "mask_iou": worst}
        right = flipped <= SAM_FLIPPED if who == "fp32" else worst >= SAM_HALF_MASK_IOU
        if not right:
            raise AssertionError(f"{who}: {flipped:.2e} of the pixels flipped, mask IoU {worst:.4f}")
    area = float(np.mean([mask.mean() for mask in masks[first]]))
    return agreement | {first: {"mask_area": area}}


def _rows(
    agreement: dict[str, dict[str, float]], seconds: dict[str, list[float]], peaks: dict[str, float]
) -> list[Row]:
    """The rows of all contenders, the reference first."""
    first, *others = seconds
    names = {first: first} | {who: f"fgfast {who}" for who in others}
    rows = [Row.of(names[who], seconds[who], "s", "lower", "seconds per image") for who in names]
    for who in others:
        ratios = [theirs / ours for theirs, ours in zip(seconds[first], seconds[who], strict=True)]
        rows.append(Row.of(names[who], ratios, "times", "higher", "faster than the reference"))
    rows += [Row(names[who], round(peaks[who]), "MiB", "lower", "peak memory") for who in names]
    group = "mask IoU with the reference"
    return rows + [Row(names[who], agreement[who]["mask_iou"], "", "higher", group) for who in others]
