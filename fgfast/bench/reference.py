"""The whole job by the references, one image after the other: what fgfast's pipeline is held against.

Pillow decodes, Detic finds boxes (the original where it is installed, else our eager float32, see fgfast.bench.detic),
fgfast's rule chooses one of them, segment-anything makes the mask (or, where it is not installed, our eager float32),
Pillow writes image and mask. Float32, as shipped; no batches, no sync, no ledger. It lives in a process of its own,
which ends before fgfast is timed.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from fgfast import ops
from fgfast.bench.job import Images, Job, Ran, outcomes, settings_of
from fgfast.bench.result import Row
from fgfast.records import Bool, Detections, Float32, Sample, UInt8

# Overlap from which a box handed to SAM is the same box: half precision moves corners by pixels.
_SAME_BOX = 0.9
# Of the masks where the box is the same, in float32; half precision is told, not judged.
_SAME_MASK = 0.99


@dataclass(frozen=True, slots=True)
class Answer:
    """What the reference made of one image.

    Attributes:
        box: (4,) float32 x0 y0 x1 y1 in pixels, handed to SAM.
        bits: (H, W) bool.
        seconds: from the file to the files.
    """

    box: Float32
    bits: Bool
    seconds: float


def lacking(job: Job) -> str | None:
    """What keeps the reference from doing the job here, in words; None where nothing does."""
    if not job.models:
        return "a job without models has no reference; see fgfast bench io"
    if job.detector != "detic" or not job.segmenter.startswith("sam_"):
        return f"there is no reference for {job.detector} with {job.segmenter}"
    return None


def answers(job: Job, images: Images, count: int, out: Path, device: str) -> tuple[list[Answer], str]:
    """What the reference makes of the first `count` images, after one that is not timed; and what it is, in words."""
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, job, out, device), daemon=True)
    process.start()
    theirs.close()
    try:
        named = str(pipe.recv())
        found = []
        for file in (images.files[0], *images.files[:count]):
            pipe.send(file)
            found.append(pipe.recv())
    except EOFError:
        raise RuntimeError("the reference's process ended; its own message stands above") from None
    finally:
        pipe.close()
        process.join()
    return found[1:], named


def _serve(pipe: Connection, job: Job, out: Path, device: str) -> None:
    carry, named = _loop(job, out, device)
    pipe.send(named)
    while True:
        try:
            file = pipe.recv()
        except EOFError:
            return
        pipe.send(carry(file))


def _loop(job: Job, out: Path, device: str) -> tuple[Callable[[Path], Answer], str]:
    """The job for one image, and what does it."""
    from PIL import Image

    from fgfast.bench import detic, models
    from fgfast.models.vocabulary import load_vocabulary
    from fgfast.pipeline.prompt import choose_prompt

    names, words = load_vocabulary(settings_of(job).vocabulary or "", job.model_weights)
    reference = detic.reference(words, job.model_weights, device)
    segment = models.reference(job.segmenter.removeprefix("sam_"), job.model_weights, device)
    out.mkdir(parents=True)

    def carry(file: Path) -> Answer:
        start = time.perf_counter()
        with Image.open(file) as opened:
            pixels: UInt8 = np.asarray(opened.convert("RGB"))
        found = reference.detect(pixels)
        labels = tuple(names[n] for n in found.classes)
        size = pixels.shape[1], pixels.shape[0]
        prompt = choose_prompt(Detections(found.boxes, found.scores, labels), Sample(file.name, file), size)[0]
        bits = segment(pixels, prompt.box[None])
        Image.fromarray(np.where(bits[..., None], pixels, np.uint8(0))).save(out / file.name, quality=95, subsampling=0)
        Image.fromarray(bits).save(out / f"{file.stem}.png")
        return Answer(prompt.box, bits, time.perf_counter() - start)

    return carry, f"{reference.named}; {models.named()}"


def compare(theirs: list[Answer], ran: Ran, exact: bool) -> list[Row]:
    """How far fgfast's boxes and masks are from the reference's, as rows.

    Args:
        theirs: of the first images.
        ran: fgfast's run on the same.
        exact: fgfast computed in float32, so that both must agree.

    Raises:
        AssertionError: they must and do not.
    """
    ours = list(outcomes(ran.out).values())[: len(theirs)]
    boxes, masks = [], []
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.box is not None and mine.rle is not None and mine.size is not None
        boxes.append(box_overlap(mine.box, other.box))
        if boxes[-1] >= _SAME_BOX:
            bits = ops.rle_decode(mine.rle, mine.size[1], mine.size[0])
            masks.append(overlap(bits, other.bits))
    same = sum(share >= _SAME_BOX for share in boxes) / len(boxes)
    worst = min(masks, default=1.0)
    if exact and (same < 1 or worst < _SAME_MASK):
        raise AssertionError(f"float32 is not the reference: {same:.0%} of the boxes the same, mask IoU {worst:.4f}")
    rows = [Row("share of boxes that are the reference's", same, "", "higher", "results")]
    return [*rows, Row("smallest mask IoU where the box is the same", worst, "", "higher", "results")]


def overlap(a: Bool, b: Bool) -> float:
    """Intersection over union of two masks (H, W) bool; an empty one is one pixel of its box, so never alike."""
    return float((a & b).sum() / max(1, (a | b).sum()))


def box_overlap(a: Float32, b: Float32) -> float:
    """Intersection over union of two boxes (4,) float32."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    areas: Any = sum(float(np.prod(box[2:] - box[:2])) for box in (a, b))
    return shared / (areas - shared) if areas > shared else 0.0
