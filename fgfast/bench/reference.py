"""Does the whole job with the references, one image after the other, for comparison with fgfast's pipeline.

Pillow decodes, Detic finds boxes (the original if it is installed, otherwise as specified, see fgfast.bench.detic),
fgfast's rule chooses one of them, segment-anything makes the mask (or, if it is not installed, fgfast's eager float32),
Pillow writes image and mask. The references compute in float32, as shipped, without batches, syncs or a ledger. They
run in a process of their own, which ends before fgfast is timed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fgfast import ops, processes
from fgfast.bench.job import Images, Job, Ran, outcomes, settings_of
from fgfast.bench.result import Row
from fgfast.image_formats import open_image
from fgfast.io.decode import FORMATS
from fgfast.methods import method
from fgfast.ops import geometry
from fgfast.ops.overlap import iou
from fgfast.records import Bool, Detections, Float32, Sample, Size, UInt8
from fgfast.writing import Target, make_folder

# Two prompts of SAM count as the same from this IoU on: half precision moves corners by pixels.
_SAME_BOX = 0.9
# The least IoU of masks with the same box in float32. In half precision the IoU is only quoted.
_SAME_MASK = 0.99


@dataclass(frozen=True, slots=True)
class Answer:
    """The reference's result for one image.

    Attributes:
        box: (4,) float32 x0 y0 x1 y1 in pixels, the prompt of SAM.
        bits: (H, W) bool, the mask.
        seconds: the time from the input file to the output files.
    """

    box: Float32
    bits: Bool
    seconds: float


def lacking(job: Job) -> str | None:
    """Return why no reference can do the job, or None if one can."""
    if not job.models:
        return "a job without models has no reference; see fgfast bench io"
    if [method(name).family for name in (job.detector, job.segmenter)] != ["detic", "sam"]:
        return f"there is no reference for {job.detector} with {job.segmenter}"
    return None


def answers(job: Job, images: Images, count: int, out: Path, device: str) -> tuple[list[Answer], str]:
    """Run the reference on the first `count` images, after an untimed run; return its answers and its name in words."""
    with processes.Child() as alone:
        found: tuple[list[Answer], str] = alone.call(f"{__name__}:_answers", job, images.files[:count], out, device)
        return found


def _answers(job: Job, files: Sequence[Path], out: Path, device: str) -> tuple[list[Answer], str]:
    from PIL import Image

    from fgfast.bench import detic, models
    from fgfast.models.vocabulary import load_vocabulary
    from fgfast.pipeline.prompt import choose_prompt

    names, words = load_vocabulary(settings_of(job).vocabulary or "", job.model_weights)
    reference = detic.reference(words, job.model_weights, device)
    segment = models.reference(job.segmenter.removeprefix("sam_"), job.model_weights, device)
    make_folder(Target(out))

    def convert(file: Path) -> Answer:
        start = time.perf_counter()
        with file.open("rb") as content, open_image(content, FORMATS) as opened:
            pixels: UInt8 = np.asarray(opened.convert("RGB"))
        found = reference.detect(pixels)
        labels = tuple(names[n] for n in found.classes)
        size = Size(*pixels.shape[:2])
        prompt = choose_prompt(Detections(found.boxes, found.scores, labels), Sample(file.name, file), size)[0]
        bits = segment(pixels, prompt.box[None]).mask
        Image.fromarray(np.where(bits[..., None], pixels, np.uint8(0))).save(out / file.name, quality=95, subsampling=0)
        Image.fromarray(bits).save(out / f"{file.stem}.png")
        return Answer(prompt.box, bits, time.perf_counter() - start)

    convert(files[0])
    return [convert(file) for file in files], f"{reference.named}; {models.named()}"


def compare(theirs: list[Answer], ran: Ran, exact: bool) -> list[Row]:
    """Compare the boxes and masks of fgfast with those of the reference; return the rows.

    Args:
        theirs: the answers of the reference for the first images.
        ran: fgfast's run on the same images.
        exact: whether fgfast computed in float32, so that the two must agree.

    Raises:
        AssertionError: the two must agree and do not.
    """
    ours = list(outcomes(ran.out).values())[: len(theirs)]
    boxes, masks = [], []
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.box is not None and mine.rle is not None and mine.size is not None
        boxes.append(float(geometry.iou(mine.box[None], other.box[None])[0, 0]))
        if boxes[-1] >= _SAME_BOX:
            bits = ops.rle_decode(mine.rle, *mine.size)
            masks.append(iou(bits, other.bits, both_empty=0.0))
    same = sum(share >= _SAME_BOX for share in boxes) / len(boxes)
    worst = min(masks, default=1.0)
    if exact and (same < 1 or worst < _SAME_MASK):
        raise AssertionError(f"float32 is not the reference: {same:.0%} of the boxes the same, mask IoU {worst:.4f}")
    rows = [Row("share of boxes that are the reference's", same, "", "higher", "results")]
    return [*rows, Row("smallest mask IoU where the box is the same", worst, "", "higher", "results")]
