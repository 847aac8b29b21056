"""What a person asks for, checked against what an output holds: a decision, a conflict or a refusal."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fgfast import ops
from fgfast.errors import UnknownNameError, UsageError
from fgfast.io.decisions import CAUSES, Decision, in_force
from fgfast.pipeline.remake import prompt_of, same_image, wanted
from fgfast.records import Bool, Float32, Outcome, Sample

CHANGE_VERDICTS = ("accept", "reject", "mask")


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """What a person asks for, about one sample.

    Attributes:
        key: the sample's key.
        verdict: "accept", "reject" or "mask".
        how: what it was made with; see `Decision`.
        seen: number of the last decision on this sample that the person saw; 0 for none.
        cause, note: see `Decision`.
        bits: the new mask, (H, W) bool at the size of the stored image; for "mask" only.
        box: its prompt, (4,) float32 in pixels of the stored image, where one was drawn.
    """

    key: str
    verdict: str
    how: str
    seen: int
    cause: str = ""
    note: str = ""
    bits: Bool | None = None
    box: Float32 | None = None

    def __post_init__(self) -> None:
        if self.verdict not in CHANGE_VERDICTS:
            raise UnknownNameError("verdict", self.verdict, CHANGE_VERDICTS)
        if self.cause not in ("", *CAUSES):
            raise UnknownNameError("cause", self.cause, CAUSES)
        if (self.verdict == "mask") != (self.bits is not None):
            raise UsageError(f"{self.verdict} {'needs' if self.bits is None else 'has no'} mask")


@dataclass(frozen=True, slots=True)
class Conflict:
    """A change that was not made, because somebody decided meanwhile.

    Attributes:
        key: the sample's key.
        seen: number of the decision that the change was made upon.
        now: the last decision.
    """

    key: str
    seen: int
    now: Decision


@dataclass(frozen=True, slots=True)
class Refused:
    """A change that cannot be made; nothing of it is stored.

    Attributes:
        key: the sample's key.
        reason: a sentence for a person.
    """

    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class Left:
    """What a rejection leaves of a sample's class and split.

    Attributes:
        label: the class; empty where there is none.
        of_class: number of its images in the twin.
        split: the split; empty where there is none.
        of_split: number of its images in the twin.
    """

    label: str
    of_class: int
    split: str
    of_split: int

    @property
    def sentence(self) -> str:
        """One sentence for a person; empty where there are neither classes nor splits."""
        parts = [f"class {self.label} has {_images(self.of_class)} left"] if self.label else []
        parts += [f"split {self.split} has {_images(self.of_split)} left"] if self.split else []
        return ", ".join(parts)


def _images(count: int) -> str:
    return f"{count:,} image{'' if count == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class Next:
    """A decision that is about to be stored.

    Attributes:
        decision: with its number.
        outcome: what the sample is to have then; None where the decision changes nothing in it.
        files: whether its image and mask must be made.
    """

    decision: Decision
    outcome: Outcome | None
    files: bool


def now() -> str:
    """Return the time in the form of `Decision.when`."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")


def decided(
    change: Change, sample: Sample, current: Outcome, earlier: Sequence[Decision], number: int, who: str
) -> Next | Conflict | Refused:
    """Return what follows from a change.

    Args:
        change: the change.
        sample: its sample.
        current: the sample's outcome.
        earlier: all decisions on it.
        number: of the new decision.
        who: who decides.
    """
    if earlier and change.seen != earlier[-1].number:
        return Conflict(change.key, change.seen, earlier[-1])
    if change.seen and not earlier:
        return Refused(change.key, f"there is no decision {change.seen} on it: load the page again")
    box = current.box
    if change.bits is not None:
        bits = _without_banner(change.bits, sample.banner_rows)
        if problem := _problem(bits, change.box, current):
            return Refused(change.key, problem)
        box = prompt_of(bits, change.box, current.box)
        after = ops.rle_encode(bits)
    elif change.verdict == "accept" and (current.rle is None or current.box is None):
        return Refused(change.key, "it has no mask that could be accepted: draw one, or reject the image")
    try:
        decision = Decision(
            key=change.key,
            verdict=change.verdict,
            how=change.how,
            who=who,
            when=now(),
            seen=change.seen,
            cause=change.cause,
            note=change.note,
            doubt=None if current.doubt is None else min(max(current.doubt, 0.0), 1.0),
            source=current.source.sha256 if current.source else b"",
            size=current.size,
            box=box if change.bits is not None else None,
            before=current.rle,
            after=after if change.bits is not None else None,
            was=replace(current, files={}, id=None),
            number=number,
        )
    except ValueError as error:
        return Refused(change.key, str(error))
    return next_of(decision, earlier, current)


def undone(
    number: int, target: Decision, current: Outcome, earlier: Sequence[Decision], new_number: int, who: str
) -> Next | Conflict:
    """Return what follows from undoing a decision.

    Args:
        number: of the decision that is undone.
        target: that decision.
        current: the sample's outcome.
        earlier: all decisions on it.
        new_number: of the new decision.
        who: who undoes it.
    """
    last = earlier[-1]
    held = in_force(earlier)
    if number != last.number and (held is None or held.number != number):
        return Conflict(target.key, number, last)
    undo = Decision(
        key=target.key,
        verdict="undo",
        how="undo",
        who=who,
        when=now(),
        seen=last.number,
        doubt=None if current.doubt is None else min(max(current.doubt, 0.0), 1.0),
        source=current.source.sha256 if current.source else b"",
        size=current.size,
        before=current.rle,
        undoes=number,
        was=replace(current, files={}, id=None),
        number=new_number,
    )
    found = next_of(undo, earlier, current)
    outcome = found.outcome or current
    if outcome.rle is None or outcome.size is None:
        return found
    return replace(found, decision=replace(undo, box=outcome.box, after=outcome.rle, size=outcome.size))


def next_of(decision: Decision, earlier: Sequence[Decision], current: Outcome) -> Next:
    """Return a decision with the outcome that the sample is to have then."""
    outcome = wanted([*earlier, decision], decision.source)
    return Next(decision, outcome, outcome is not None and needs_files(current, outcome))


def needs_files(current: Outcome | None, outcome: Outcome) -> bool:
    """Whether image and mask must be made for a sample to have an outcome."""
    return outcome.twin is not None and not same_image(current, outcome)


def _without_banner(bits: Bool, banner_rows: int) -> Bool:
    """Return a mask without the rows that are never subject."""
    if not banner_rows or bits.ndim != 2:
        return bits
    bits = bits.copy()
    bits[max(0, bits.shape[0] - banner_rows) :] = False
    return bits


def _problem(bits: Bool, box: Float32 | None, current: Outcome) -> str:
    """Return why a mask cannot be taken; empty where it can."""
    if bits.dtype != np.bool_ or bits.ndim != 2:
        return f"a mask is an array (H, W) of bool, not {bits.shape} of {bits.dtype}"
    if current.size is None:
        return "its image could not be read: repair it, and convert again"
    if bits.shape != tuple(current.size):
        height, width = bits.shape
        return f"the mask has {width} x {height} pixels, the image {current.size.width} x {current.size.height}"
    if not bits.any():
        return "the mask is empty: draw the subject, or reject the image"
    if box is not None:
        good = box.shape == (4,) and bool(np.isfinite(box).all()) and box[0] < box[2] and box[1] < box[3]
        inside = good and box[0] < bits.shape[1] and box[1] < bits.shape[0] and box[2] > 0 and box[3] > 0
        if not inside:
            return f"the box {box.tolist()} has no pixel of the image: x0 y0 x1 y1, in pixels"
    return ""
