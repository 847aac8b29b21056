"""A sample as people decided: what follows from the decisions on it, and its files, made by the run's stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fgfast import ops
from fgfast.errors import MaskUnusableError, SampleError
from fgfast.io.decisions import Decision, in_force, undecided
from fgfast.ops.geometry import mask_box
from fgfast.pipeline.stages import Cut, Decode, Write
from fgfast.pipeline.work import Result, Work
from fgfast.records import Bool, Float32, Mask, Outcome, Prompt, Size

REJECTED = "rejected"
"""The reason of a sample that a person takes out of the twin."""
_REJECTED = "rejected by a person"
GIVEN_BOX = "drawn by a person"
AROUND = "the box around the mask that a person drew"
CHANGED = "changed"
"""The reason why a decision is not carried out: the image's file is another one than the decision was about."""


@dataclass(frozen=True, slots=True)
class WriteStages:
    """The stages of a run through which a decided sample goes again."""

    decode: Decode
    cut: Cut
    write: Write


def wanted(decisions: Sequence[Decision], source: bytes) -> Outcome | None:
    """Return the outcome that a sample is to have; None where the decisions say nothing about it.

    Its files, offset and twin's size are those of an earlier outcome, and only hold where box and mask are the same.

    Args:
        decisions: all decisions on the sample.
        source: SHA-256 of the image's file; decisions on another file do not count.
    """
    own = [decision for decision in decisions if decision.source == source]
    held = in_force(own)
    if held is None:
        first = undecided(own)
        return None if first is None else first.was
    return outcome_of(held)


def outcome_of(decision: Decision) -> Outcome | None:
    """Return the outcome that follows from an accept, a reject or a mask."""
    was = decision.was
    if was is None:
        return None
    if decision.verdict == "reject":
        out = replace(was, status="skipped", stage="review", reasons=(REJECTED,), detail=_REJECTED, twin=None)
        return replace(out, twin_size=None, offset=(0, 0))
    twin = was.twin or was.key  # the caller knows the name
    done = replace(was, status="done", stage="write", reasons=(), detail="", twin=twin, size=decision.size)
    if decision.verdict == "accept":
        return done
    assert decision.box is not None
    same_box = was.box is not None and np.array_equal(was.box, decision.box)
    prompt = {} if same_box else {"box_reason": _reason(decision), "box_score": None, "box_name": ""}
    return replace(done, box=decision.box, rle=decision.after, quality=None, stability=None, **prompt)  # type: ignore[arg-type]


def _reason(decision: Decision) -> str:
    return GIVEN_BOX if "box" in decision.how else AROUND


def same_image(one: Outcome | None, other: Outcome) -> bool:
    """Whether two outcomes of a sample have the same files: both have a mask and a box, and these are equal."""
    return (
        one is not None
        and (one.twin is None) == (other.twin is None)
        and (one.twin is None or (one.rle == other.rle and _edges(one) == _edges(other)))
    )


def _edges(outcome: Outcome) -> bytes:
    return b"" if outcome.box is None else outcome.box.tobytes()


def prompt_of(bits: Bool, box: Float32 | None, was: Float32 | None) -> Float32:
    """Return the box that a crop of a drawn mask follows, (4,) float32.

    That is the box that was drawn; else the earlier one, where the mask lies within it; else that around the mask.

    Args:
        bits: (H, W) bool, not empty.
        box: the box that was drawn, if any.
        was: the earlier prompt, if any.
    """
    around = mask_box(bits)
    assert around is not None
    if box is not None:
        return box
    if was is None:
        return around
    inside = (around[:2] >= np.floor(was[:2])).all() and (around[2:] <= np.ceil(was[2:])).all()
    return was if inside else around


def remake(outcome: Outcome, work: Work, stages: WriteStages, source: bytes = b"") -> Result:
    """Write a sample's image and mask under temporary names, as the run would have written them with this mask.

    Args:
        outcome: what it is to have: mask, box, status.
        work: the sample, with its names.
        stages: of the run.
        source: SHA-256 that the image's file must have; empty for any.

    Raises:
        SampleError: the image cannot be read, or is another one than the decision was about.
        OutputFailedError: the disk is full, read-only or failing.
    """
    assert outcome.rle is not None and outcome.box is not None
    stages.decode(work)
    assert work.image is not None and work.source is not None
    if source and work.source.sha256 != source:
        raise SampleError(CHANGED, f"{outcome.key}: {changed_sentence(outcome.size, work.image.size)}")
    if source and outcome.size is not None and outcome.size != work.image.size:  # another rule for EXIF orientations
        raise SampleError(CHANGED, f"{outcome.key}: {changed_sentence(outcome.size, work.image.size)}")
    height, width = work.image.size
    try:
        bits = ops.rle_decode(outcome.rle, height, width)
    except ValueError as error:
        raise MaskUnusableError("mask broken", f"the mask decided for {outcome.key} is none: {error}") from error
    work.prompt = Prompt(outcome.box, outcome.box_reason, outcome.box_score, outcome.box_name)
    work.mask = Mask(bits, outcome.quality, outcome.stability)
    stages.cut(work)
    stages.write(work)
    assert work.cutout is not None
    made = replace(
        outcome,
        twin=work.twin,
        size=work.image.size,
        twin_size=work.cutout.size,
        offset=work.cutout.offset,
        area=int(np.count_nonzero(bits)),
        rle=work.rle,
        source=work.source,
        files=work.files,
    )
    return Result(work.position, made, tuple(work.temp_files))


def changed_sentence(then: Size | None, now: Size | None) -> str:
    """Return why a decision about an image no longer holds."""
    sizes = (
        f" ({then.width} x {then.height} then, {now.width} x {now.height} now)" if then and now and then != now else ""
    )
    return f"the image's file is another one than the decision was about{sizes}: convert again, and decide anew"
