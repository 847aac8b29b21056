"""How doubtful a result is: from its numbers, and from what the data set says about its subject."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from fgfast.config import Settings
from fgfast.datasets.masks import read_mask
from fgfast.errors import MaskUnusableError
from fgfast.ops.doubt import Weights, built_in, doubt, raises_sure, says_something
from fgfast.ops.truth import box_distance, keypoints_outside, mask_distance, sides_off
from fgfast.pipeline.work import Work
from fgfast.records import Bool, Sample, Size


def weights_of(settings: Settings) -> Weights:
    """Return the weights of the settings.

    Raises:
        UsageError: the file of them cannot be read, or is none.
    """
    return built_in() if settings.doubt_weights is None else Weights.load(Path(settings.doubt_weights).expanduser())


def official_mask(sample: Sample, size: Size) -> Bool | None:
    """Return a sample's official mask, (H, W) bool; None where there is none that can be used."""
    if sample.official is None:
        return None
    try:
        return read_mask(replace(sample, mask=sample.official), size)
    except MaskUnusableError:
        return None


@dataclass(frozen=True, slots=True)
class Judge:
    """Mask, numbers -> more numbers, doubt.

    Attributes:
        weights: of the doubt.
        masks: whether masks are doubted; else only what is sure counts, such as that nothing was detected.
        boxes: whether annotated boxes say something: the prompt is not one of them.
    """

    weights: Weights
    masks: bool
    boxes: bool
    name: str = "judge"

    def __call__(self, work: Work) -> None:
        assert work.mask is not None and work.prompt is not None
        sample, bits = work.sample, work.mask.bits
        if not self.masks:
            work.doubt = doubt(work.numbers, self.weights).value if raises_sure(work.numbers) else None
            return
        if self.boxes and len(sample.boxes) and work.prompt.score is not None:
            work.numbers["far from the annotated box"] = box_distance(bits, sample.boxes)
            sides = sides_off(bits, sample.boxes)
            work.numbers |= {"beyond the annotated box": sides[0], "short of the annotated box": sides[1]}
        if sample.keypoints is not None and (outside := keypoints_outside(bits, sample.keypoints)) is not None:
            work.numbers["keypoints outside"] = outside
        if (official := official_mask(sample, Size(*bits.shape))) is not None:
            work.numbers["far from the official mask"] = mask_distance(bits, official)
        if says_something(work.numbers, self.weights):
            work.doubt = doubt(work.numbers, self.weights).value
