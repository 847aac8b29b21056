"""What a file of another tool says about the images of a run, compared with the run: changes, and what is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fgfast import ops
from fgfast.io.exchange.found import Found, state_of
from fgfast.ops.overlap import iou
from fgfast.pipeline.changes import Change
from fgfast.records import Bool, Outcome


@dataclass(slots=True)
class Imported:
    """What became of the masks of a file.

    Attributes:
        changed: keys of the images that got another mask, or would get one.
        unchanged: number of masks equal to those that are there.
        kept: keys of the images whose mask in the file is as it was exported, where the run has another one since.
        united: keys of the images that have several masks of their class in the file, which were united.
        left: name in the file -> why its mask was not taken.
        lossy: key -> IoU of a mask that was drawn from polygons with the one that is there.
    """

    changed: list[str] = field(default_factory=list)
    unchanged: int = 0
    kept: list[str] = field(default_factory=list)
    united: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    lossy: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Taking:
    """How masks are taken back.

    Attributes:
        who: who decided.
        root: the data set's folder, where it has moved.
        dry_run: whether to change nothing.
        exported: the file as it was exported, for tools that do not keep what it says about the state.
        replace: whether masks are also taken where the run is not as it was exported.
        lossy: whether polygons are taken.
    """

    who: str = "import"
    root: Path | None = None
    dry_run: bool = False
    exported: Path | None = None
    replace: bool = False
    lossy: bool = False


@dataclass(slots=True)
class Comparing:
    """Compares what a file says with a run.

    Attributes:
        known: key -> the run's outcome.
        labels: key -> class.
        states: name -> what was exported, of the file as it was exported, where that is given.
        last: gives the number of the last decision on a key; 0 for none.
        taking: how masks are taken.
        result: what became of them.
    """

    known: Mapping[str, Outcome]
    labels: Mapping[str, str]
    states: Mapping[str, str]
    last: Callable[[str], int]
    taking: Taking
    result: Imported = field(default_factory=Imported)

    def change(self, one: Found) -> Change | None:
        """Return the change that an image's masks ask for; note in the result why there is none."""
        reason = self._mismatch(one)
        if reason:
            self.result.left[one.name] = reason
            return None
        outcome = self.known[one.name]
        try:
            bits = self._bits(one, outcome)
        except ValueError as error:
            self.result.left[one.name] = str(error)
            return None
        rle, seen = ops.rle_encode(bits), self.last(one.name)
        if rle == outcome.rle:
            self.result.unchanged += 1
            return None
        state = one.state or self.states.get(one.name, "")
        current = state_of(seen, outcome.rle)
        if not self.taking.replace and (state != current if state else seen):
            if state and state.partition("/")[2] == state_of(0, rle).partition("/")[2]:
                self.result.kept.append(one.name)
            else:
                self.result.left[one.name] = _conflict(state, seen)
            return None
        if len(one.masks) > 1:
            self.result.united.append(one.name)
        if any(mask.drawn for mask in one.masks) and outcome.rle is not None and outcome.size is not None:
            self.result.lossy[one.name] = iou(bits, ops.rle_decode(outcome.rle, *outcome.size))
        return Change(one.name, "mask", "import", seen, bits=bits)

    def _mismatch(self, one: Found) -> str:
        """Return why masks belong to no image, or cannot be used; empty where they can."""
        outcome = self.known.get(one.name)
        if one.reason or outcome is None:
            return one.reason if outcome else "the run has no image of this name"
        if one.size is not None and outcome.size != one.size:
            there = "no size" if outcome.size is None else f"{outcome.size.width} x {outcome.size.height}"
            return f"it has {one.size.width} x {one.size.height} pixels in the file, {there} in the run"
        if not one.masks:
            return "it has no mask in the file"
        unusable = next((mask.reason for mask in one.masks if mask.rle is None), "")
        if len(one.masks) == 1 or unusable:
            return unusable
        own, labels = self.labels.get(one.name), {mask.label for mask in one.masks}
        if len(labels) > 1 or (own and labels != {own}):
            named, wanted = ", ".join(sorted(map(repr, labels))), repr(own) if own else "of one class"
            return f"it has {len(one.masks)} masks, of {named}: one is needed, or several that are all {wanted}"
        return ""

    def _bits(self, one: Found, outcome: Outcome) -> Bool:
        """Return the image's masks as one, (H, W) bool.

        Raises:
            ValueError: one is damaged, or all are empty.
        """
        assert outcome.size is not None
        bits = np.zeros(outcome.size, np.bool_)
        for mask in one.masks:
            assert mask.rle is not None
            try:
                bits |= ops.rle_decode(mask.rle, *outcome.size)
            except ValueError as error:
                raise ValueError(f"its mask is damaged: {error}") from None
        if not bits.any():
            raise ValueError("its mask is empty")
        return bits


def _conflict(state: str, seen: int) -> str:
    """Return why a mask is not taken whose image is not as it was when the mask was exported."""
    if not state:
        return f"decision {seen} is about it, and the file does not say what it was made from: --exported or --replace"
    then = int(number) if (number := state.partition("/")[0]).isdecimal() and len(number) < 19 else 0
    if then < seen:
        return f"a conflict: decision {seen} was made since the export; --replace takes the file's mask"
    return "a conflict: its mask in the run is not the one that was exported; --replace takes the file's mask"
