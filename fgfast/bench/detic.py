"""Measures Detic Swin-B from one image of 1200x800 to detections: fgfast in float32 and bfloat16, beside a reference.

With peers, other engines run the same weights in the same turns (fgfast.bench.peers), each in a process of its own.

The reference is the original Detic on detectron2 if both are installed (docs/models.md), without its masks, which
fgfast leaves to SAM. Otherwise it is a plain implementation of the specification, see plain_detic.py. The weights are
random.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fgfast import graphs, processes
from fgfast.backends.torch import TorchSession
from fgfast.bench import original_detic, peers, rates
from fgfast.bench.detic_peers import DeticPeer
from fgfast.bench.images import noise_image
from fgfast.bench.models import precisions
from fgfast.bench.original_detic import Detected, Original
from fgfast.bench.peers import Peer
from fgfast.bench.plain_detic import PlainGraph, plain_swin
from fgfast.bench.result import Result, Row, envelope
from fgfast.methods import ModelSpec
from fgfast.models.detic.build import build_detic
from fgfast.models.detic.config import SWIN_B
from fgfast.models.detic.detector import DeticDetector
from fgfast.models.detic.model import Detic
from fgfast.models.detic.sessions import detic_in_torch
from fgfast.models.detic.transform import Selection
from fgfast.models.detic.vocabulary import EMBEDDING
from fgfast.models.serving.canvases import AnyCanvas, Canvases, canvas_of
from fgfast.models.serving.forms import MANY, choose
from fgfast.models.serving.pixels import NormalisedImages
from fgfast.records import Image, Size, UInt8
from fgfast.runner import run_batch
from fgfast.tolerances import DETIC_BOX_SHARE, DETIC_FP32
from fgfast.writing import scratch_folder

# Height and width: the size that Detic resizes a 2:3 image to, so that resizing changes nothing.
_SIZE = (800, 1200)
_CLASSES = 1203
MODEL_WEIGHTS = "random:0"
# Boxes farther apart than this are different ones (README of the golden fixtures).
_MATCH_PX = 2.0

_Detect = Callable[[UInt8], Detected]
_Maps = Callable[[Tensor], Tensor]
# An image to its detections, the seconds, and the CPU seconds of all threads.
_Turn = Callable[[UInt8], tuple[Detected, float, float]]


class Reference(NamedTuple):
    """The implementation of Detic that fgfast's is compared with.

    Attributes:
        row: the name of its rows.
        named: the reference and its versions in words.
        detect: image (H, W, 3) uint8 RGB to detections.
        swin3: images (B, 3, H, W) float32, normalised, to the last map of the backbone.
    """

    row: str
    named: str
    detect: _Detect
    swin3: _Maps


def measure(
    *, rounds: int, model_weights: str = MODEL_WEIGHTS, device: str = "cpu", with_peers: bool = False
) -> Result:
    """Compare the three forms on the same image, then time them in turns.

    Args:
        rounds: how often each form is timed; medians are quoted.
        model_weights: "cached", "random:SEED" or a file; the same for all forms.
        device: the device of all forms, in torch's notation.
        with_peers: measure the installed ones of DETIC_PEERS in the same turns, and the rate of matrix products.

    Returns:
        The name of the reference, the seconds of each form, their ratios to the reference, and differences from it.

    Raises:
        AssertionError: fgfast's float32 differs from the reference by more than fgfast.tolerances allows; then nothing
            is timed.
        UsageError: there are no peers for this device.
    """
    if with_peers:
        peers.check_device(device)
    generator = np.random.default_rng(0)
    image = noise_image(generator, *_SIZE)
    words = torch.from_numpy(generator.standard_normal((_CLASSES, EMBEDDING), dtype=np.float32))
    specs = {name: ModelSpec("detic", model_weights, name, device, batch=1) for name in precisions(device)}
    chosen = {name: choose(replace(spec, images=MANY)) for name, spec in specs.items()}
    models = {name: build_detic(spec) for name, spec in specs.items()}
    theirs = reference(words, model_weights, device)
    forms: dict[str, _Detect] = {theirs.row: theirs.detect}
    for name, model in models.items():
        forms[f"fgfast {name}"] = _detector(detic_in_torch(model, chosen[name].name), words)
    differences = compare_maps(theirs.swin3, models, _normalised(image).to(device))
    found = {name: forms[f"fgfast {name}"](image) for name in models}
    with ExitStack() as stack:
        others = _start_peers(stack, words, model_weights) if with_peers else {}
        expected = theirs.detect(image)
        agreement = compare(expected, found | {peer.name: other.detect(image)[0] for peer, other in others.items()})
        products = [stack.enter_context(product) for product in rates.products(with_peers)]
        turns: dict[str, Callable[[UInt8], tuple[Detected, float, float]]] = {
            key: partial(_timed, form) for key, form in forms.items()
        }
        turns |= {peer.name: other.detect for peer, other in others.items()}
        seconds: dict[str, list[float]] = {name: [] for name in turns}
        processor: dict[str, list[float]] = {name: [] for name in turns}
        for _ in range(rounds):
            for key, turn in turns.items():
                _, elapsed, used = turn(image)
                seconds[key].append(elapsed)
                processor[key].append(used)
            for product in products:
                product.measure()
    what = f"{_SIZE[1]}x{_SIZE[0]}, image to detections"
    return envelope(
        "detic",
        [*_rows(seconds, processor, agreement), *rates.rows("detic", seconds, list(others), products, [Size(*_SIZE)])],
        title=f"Detic {SWIN_B.name} beside its reference, on {device}",
        rounds=rounds,
        notes=[
            f"{what}. Reference: {theirs.named}. All use the weights {model_weights}.",
            *(peers.notes(peers.DETIC_PEERS) if with_peers else ()),
        ],
        model=SWIN_B.name,
        image=what,
        reference=theirs.named,
        model_weights=model_weights,
        device=device,
        largest_difference_of_swin3=differences,
        detections=agreement,
        forms={name: f"{form.name}: {form.why}" for name, form in chosen.items()},
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        peers=peers.versions(list(others)),
    )


def _start_peers(stack: ExitStack, words: Tensor, weights: str) -> dict[Peer, DeticPeer]:
    """Write the graphs of the peers that are installed, and load each in a process of its own, until the stack ends."""
    wanted, size = peers.installed(peers.DETIC_PEERS), Size(*_SIZE)
    folder = stack.enter_context(scratch_folder("fgfast-peers."))
    if wanted:
        with processes.Child() as alone:
            alone.call("fgfast.bench.detic_peers:prepare", wanted, weights, size, folder)
    return {peer: stack.enter_context(DeticPeer(peer, words, size, folder)) for peer in wanted}


def _timed(detect: _Detect, image: UInt8) -> tuple[Detected, float, float]:
    """Return the detections, the seconds, and the CPU seconds of all threads."""
    start, used = time.perf_counter(), time.process_time()
    found = detect(image)  # detections are on the CPU, so the GPU has finished
    return found, time.perf_counter() - start, time.process_time() - used


def reference(words: Tensor, weights: str, device: str) -> Reference:
    """Load the original if it is installed, otherwise the plain form; without TensorFloat-32, as in models.reference.

    Args:
        words: (C, 512) float32 embeddings, unnormalised.
        weights: "cached", "random:SEED" or a file.
        device: the device that it computes on, in torch's notation.
    """
    lacking = original_detic.missing()
    model = build_detic(ModelSpec("detic", weights))
    if lacking is None:
        original = Original(SWIN_B, model.state_dict(), words, Selection(), device=device)
        maps: _Maps = lambda images: original.model.backbone.bottom_up(images)["swin3"]  # noqa: E731
        return Reference("the original, fp32", original_detic.named(), original, maps)
    graph = PlainGraph(model.to(memory_format=torch.contiguous_format).to(device))
    canvases = AnyCanvas(
        lambda canvas, count: TorchSession(graph, graphs.detic_detector(canvas, count), model.device), device=device
    )
    swin = graph.model.backbone.bottom_up
    named = f"as specified, eager; not the original: {lacking}"
    return Reference("as specified, eager, fp32", named, _detector(canvases, words), lambda p: plain_swin(swin, p)[-1])


def _normalised(image: UInt8) -> Tensor:
    """Pad an image to its canvas and normalise it: (1, 3, H, W) float32."""
    size = Size(*image.shape[:2])
    pixels = torch.zeros(1, *canvas_of([size]), 3, dtype=torch.uint8)
    pixels[0, : size.height, : size.width] = torch.from_numpy(image)
    normalised: Tensor = NormalisedImages(torch.device("cpu"))(pixels, torch.tensor([size]))
    return normalised.contiguous()


def _detector(canvases: Canvases, words: Tensor) -> _Detect:
    """Return fgfast's function from image to detections, which runs the given graph."""
    detector = DeticDetector(canvases, SWIN_B, [str(n) for n in range(len(words))], words, Selection())

    def detect(image: UInt8) -> Detected:
        (found,) = run_batch(detector, [(Image(image),)])
        return Detected(found.boxes, found.scores, np.array([int(label) for label in found.labels], np.int64))

    return detect


@torch.inference_mode()
def compare_maps(swin3: _Maps, models: dict[str, Detic], images: Tensor) -> dict[str, float]:
    """Return each model's largest difference from the reference's swin3; raise if float32 exceeds its tolerance."""
    theirs, largest = swin3(images), {}
    for name, model in models.items():
        difference = (model.backbone.bottom_up(images, None)[-1] - theirs).double().flatten().cpu().numpy()
        if name == "fp32":
            DETIC_FP32["features"].check(difference, "swin3")
        largest[name] = float(f"{np.abs(difference).max():.2g}")
    return largest


def compare(theirs: Detected, found: dict[str, Detected]) -> dict[str, Any]:
    """Compare detections with the reference's as sets: how many are found and lost, how far off the others are."""
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
                raise AssertionError(f"{len(ours.boxes)} detections, among them {there.sum()} of {len(there)} expected")
            DETIC_FP32["boxes_px"].check((boxes - DETIC_BOX_SHARE * extent).clip(0).flatten(), "detections")
            DETIC_FP32["scores"].check(scores, "detections")
        result[name] = {
            "found": len(ours.boxes),
            "lost": int((~there).sum()),
            "largest_px": float(f"{boxes.max(initial=0):.2g}"),
            "largest_score": float(f"{scores.max(initial=0):.2g}"),
        }
    return result


def _rows(seconds: dict[str, list[float]], processor: dict[str, list[float]], found: dict[str, Any]) -> list[Row]:
    """Return the rows of all forms, the reference first."""
    theirs, *others = seconds
    rows = [Row.of(form, values, "s", "lower", "seconds per image") for form, values in seconds.items()]
    for form in others:
        ratios = [other / own for other, own in zip(seconds[theirs], seconds[form], strict=True)]
        rows.append(Row.of(form, ratios, "times", "higher", "faster than the reference"))
    # The CPU time of all threads can be compared where other processes share the cores.
    rows += [Row.of(form, used, "s", "lower", "processor time per image") for form, used in processor.items()]
    for name in (name for name in found if name != "reference"):
        row = name if name in seconds else f"fgfast {name}"
        rows.append(Row(row, found[name]["lost"], "", "lower", f"detections lost of {found['reference']}"))
        rows.append(Row(row, found[name]["largest_px"], "px", "lower", "boxes are off by at most"))
    return rows
