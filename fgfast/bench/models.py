"""Measures SAM from image to mask beside the predictor of segment-anything: results first, then times and memory.

With peers, other engines run the same weights in the same run (fgfast.bench.peers). Each contender runs in a process of
its own, whose peak memory is therefore its own. Contenders take turns image by image, so that other load on the machine
affects all of them alike. The weights are random, because the arithmetic does not depend on them.
"""

from __future__ import annotations

import importlib.util
import resource
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fgfast import processes
from fgfast.bench import peers, rates
from fgfast.bench.images import noise_image
from fgfast.bench.peers import Peer
from fgfast.bench.result import Result, Row, envelope
from fgfast.bench.segmented import Segment, Segmented, logits_error, segment_by
from fgfast.machine import available_cores
from fgfast.methods import ModelSpec, Precision
from fgfast.ops.overlap import iou
from fgfast.records import Float32, UInt8
from fgfast.tolerances import SAM_FLIPPED, SAM_HALF_MASK_IOU
from fgfast.writing import scratch_folder

ORIGINAL, PLAIN = "segment-anything", "fgfast eager fp32"
"""The references: the package if it is installed, otherwise fgfast's own float32 in eager PyTorch, neither compiled nor
exported."""
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
    name: str,
    *,
    rounds: int,
    images: int = 2,
    model_weights: str = MODEL_WEIGHTS,
    device: str = "cpu",
    with_peers: bool = False,
) -> Result:
    """Time segment-anything (float32, as shipped) and fgfast in turns on the same images, boxes and weights.

    Args:
        name: the SAM, "vit_b", "vit_l" or "vit_h".
        rounds: how often each contender is timed on each image; medians are quoted.
        images: the number of different images.
        model_weights: "cached", "random:SEED" or a file; the same for all contenders.
        device: the device of all contenders, in torch's notation.
        with_peers: measure the installed ones of SAM_PEERS in the same turns, and the rate of matrix products.

    Returns:
        Agreement, seconds, ratios and peak memory.

    Raises:
        AssertionError: fgfast's results differ by more than the precision allows; then nothing is timed.
        UsageError: there are no peers for this device.
    """
    generator = np.random.default_rng(0)
    height, width = _SIZE
    arrays = [noise_image(generator, height, width) for _ in range(images)]
    box = np.array([_BOX], np.float32) * np.array([width, height] * 2, np.float32)
    found = _peers(with_peers, device)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch_folder("fgfast-peers."))
        if found:
            with processes.Child() as alone:
                alone.call("fgfast.bench.sam_peers:prepare", found, name, model_weights, folder)
        everyone: list[str | Peer] = [named(), *precisions(device), *found]
        contenders = {
            _name(who): stack.enter_context(_Contender(who, name, model_weights, device, folder)) for who in everyone
        }
        results = {who: [c.segment(i, box)[0] for i in arrays] for who, c in contenders.items()}
        agreement = _compare(results, [peer.name for peer in found if peer.precision == "fp32"])
        products = [stack.enter_context(product) for product in rates.products(with_peers)]
        seconds: dict[str, list[float]] = {who: [] for who in contenders}
        for image in arrays * rounds:
            for who, contender in contenders.items():
                seconds[who].append(contender.segment(image, box)[1])
            for product in products:
                product.measure()
        peaks = {who: contender.peak() for who, contender in contenders.items()}
    what = f"{width}x{height}, one box, image to mask"
    return envelope(
        "sam",
        [*_rows(agreement, seconds, peaks), *rates.rows(f"sam_{name}", seconds, found, products)],
        title=f"SAM {name} beside {named()}, on {device}",
        rounds=rounds,
        notes=[
            f"{what}; {named()} in float32; all use the weights {model_weights}.",
            *(peers.notes(peers.SAM_PEERS) if with_peers else ()),
        ],
        model=name,
        image=what,
        agreement=agreement,
        model_weights=model_weights,
        device=device,
        cores=available_cores(),
        peers=peers.versions(found),
    )


def _peers(wanted: bool, device: str) -> Sequence[Peer]:
    if not wanted:
        return ()
    peers.check_device(device)
    return peers.installed(peers.SAM_PEERS)


def _name(who: str | Peer) -> str:
    """Return the name of a contender's rows."""
    if isinstance(who, Peer):
        return who.name
    return who if who in (ORIGINAL, PLAIN) else f"fgfast {who}"


class _Contender:
    """A model in a process of its own, which loads it on first use."""

    def __init__(self, who: str | Peer, name: str, weights: str, device: str, folder: Path) -> None:
        self._wanted = who, name, weights, device, folder
        self._device = device
        self._process = processes.Child()

    def __enter__(self) -> _Contender:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.close()

    def segment(self, image: UInt8, box: Float32) -> tuple[Segmented, float]:
        """Segment an image (H, W, 3) with its (1, 4) box in pixels; return the result and the seconds."""
        found: tuple[Segmented, float] = self._process.call(f"{__name__}:_segment", self._wanted, image, box)
        return found

    def peak(self) -> float:
        """Return the peak memory in MiB: that of the GPU if the model runs on one, otherwise the resident memory."""
        return float(self._process.call(f"{__name__}:_peak", self._device))


def _segment(wanted: tuple[str | Peer, str, str, str, Path], image: UInt8, box: Float32) -> tuple[Segmented, float]:
    segment = _loaded(*wanted)
    start = time.perf_counter()
    found = segment(image, box)
    return found, time.perf_counter() - start


@cache
def _loaded(who: str | Peer, name: str, weights: str, device: str, folder: Path) -> Segment:
    if isinstance(who, Peer):
        from fgfast.bench import sam_peers

        return sam_peers.load(who, name, weights, folder)
    return reference(name, weights, device) if who in (ORIGINAL, PLAIN) else _ours(name, who, weights, device)


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
    if named() == PLAIN:
        from fgfast.models.sam.build import build_sam
        from fgfast.models.sam.sessions import sam_in_torch

        return segment_by(sam_in_torch(build_sam(ModelSpec(f"sam_{name}", weights, device=device))))
    from fgfast.bench import original_sam

    predictor = original_sam.package().SamPredictor(original_sam.original(name, weights).to(device))

    def segment(image: UInt8, box: Float32) -> Segmented:
        predictor.set_image(image)
        masks, _, logits = predictor.predict(box=box[0], multimask_output=False)
        return Segmented(masks[0], logits[0])

    return segment


def _ours(name: str, precision: Any, weights: str, device: str) -> Segment:
    from fgfast.models.sam.sessions import segmenter
    from fgfast.models.serving.forms import MANY

    return segment_by(segmenter(ModelSpec(f"sam_{name}", weights, precision, device, batch=1, images=MANY)))


def _compare(found: dict[str, list[Segmented]], exact_peers: Sequence[str] = ()) -> dict[str, dict[str, float]]:
    """Compare the results of all contenders with those of the first one; raise if fgfast's differ too much."""
    agreement = {}
    first, *others = found
    for who in others:
        pairs = list(zip(found[who], found[first], strict=True))
        flipped = max(float((ours.mask != theirs.mask).mean()) for ours, theirs in pairs)
        worst = min(iou(ours.mask, theirs.mask, both_empty=0.0) for ours, theirs in pairs)
        error = max(logits_error(ours.logits, theirs.logits) for ours, theirs in pairs)
        agreement[who] = {"pixels_flipped": flipped, "mask_iou": worst, "logits_error": error}
        exact = who in exact_peers or who == "fgfast fp32"
        right = flipped <= SAM_FLIPPED if exact else worst >= SAM_HALF_MASK_IOU
        agreement[who]["within_tolerance"] = right
        if not right and who.startswith("fgfast"):
            raise AssertionError(f"{who}: {flipped:.2e} of the pixels flipped, mask IoU {worst:.4f}")
    area = float(np.mean([segmented.mask.mean() for segmented in found[first]]))
    return agreement | {first: {"mask_area": area}}


def _rows(
    agreement: dict[str, dict[str, float]], seconds: dict[str, list[float]], peaks: dict[str, float]
) -> list[Row]:
    """The rows of all contenders, the reference first."""
    first, *others = seconds
    rows = [Row.of(who, seconds[who], "s", "lower", "seconds per image") for who in seconds]
    for who in others:
        ratios = [theirs / ours for theirs, ours in zip(seconds[first], seconds[who], strict=True)]
        rows.append(Row.of(who, ratios, "times", "higher", "faster than the reference"))
    rows += [Row(who, round(peaks[who]), "MiB", "lower", "peak memory") for who in seconds]
    for who in others:
        off = "" if agreement[who]["within_tolerance"] else ", outside the tolerance"
        rows.append(Row(f"{who}{off}", agreement[who]["mask_iou"], "", "higher", "mask IoU with the reference"))
    group = "rms difference of the logits from the reference, as a share of their spread"
    return rows + [Row(who, agreement[who]["logits_error"], "", "lower", group) for who in others]
