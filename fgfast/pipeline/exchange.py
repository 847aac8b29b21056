"""Masks of an output for other tools, and back: what comes back changed becomes decisions."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fgfast import ops
from fgfast.errors import OutputRefusedError, UsageError
from fgfast.files import FileTooLargeError, read_regular
from fgfast.io import coco as coco_instances
from fgfast.io.exchange import coco, cvat
from fgfast.io.exchange.found import Found
from fgfast.pipeline import packed
from fgfast.pipeline.mending import Change, Conflict, Mender, Refused
from fgfast.pipeline.twin import Twin
from fgfast.records import Outcome, Size
from fgfast.writing import Target, replacing

FORMATS = ("coco", "cvat")
_READERS = {"coco": coco.read, "cvat": cvat.read}
# A million masks of a kilobyte; a file is read whole.
_MOST_BYTES = 1 << 30
# Masks per batch of decisions: enough to share a durable write, few enough for 20 megapixels each in memory.
_AT_ONCE = 32


@dataclass(slots=True)
class Imported:
    """What became of the masks of a file.

    Attributes:
        changed: keys of the images that got another mask, or would get one.
        unchanged: number of masks equal to those that are there.
        left: name in the file -> why its mask was not taken.
    """

    changed: list[str] = field(default_factory=list)
    unchanged: int = 0
    left: dict[str, str] = field(default_factory=dict)


def export(out: Path, to: str, file: Path) -> int:
    """Write the masks of the written images, in the stored images' frame; return how many.

    Raises:
        OutputRefusedError: there is no run, or it is damaged.
        UsageError: a name cannot stand in this format.
        OutputFailedError: the disk is full, read-only or failing.
    """
    if to == "pack":
        return packed.export(out, file)
    with Twin.open(out) as twin:
        labels, written = twin.labels(), 0

        def masks() -> Iterator[Outcome]:
            nonlocal written
            for outcome in twin.entries(("done", "flagged")):
                if outcome.rle is not None and outcome.size is not None:
                    written += 1
                    yield outcome

        if to == "coco":
            with coco_instances.instances(Target.file(file), labels, twin.classes, twin.title, "original") as add:
                for outcome in masks():
                    add(outcome)
        else:
            try:
                with replacing(Target.file(file)) as opened:
                    for piece in cvat.write(masks(), labels):
                        opened.write(piece)
            except ValueError as error:
                raise OutputRefusedError(f"the ledger of {out} is damaged (a mask is none: {error})") from error
        return written


def read(file: Path, known: dict[str, Outcome]) -> Iterator[Found]:
    """Yield what a file says about each of its images.

    Raises:
        UsageError: it cannot be read, or has no known format.
    """
    try:
        data = read_regular(file, _MOST_BYTES)
    except (OSError, FileTooLargeError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from None
    sizes: dict[str, Size] = {key: outcome.size for key, outcome in known.items() if outcome.size is not None}
    kind = "coco" if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") else "cvat"
    return _READERS[kind](data, sizes)


def bring_back(out: Path, file: Path, who: str, root: Path | None = None, dry_run: bool = False) -> Imported:
    """Take the masks of a file that differ as decisions, and write the lists anew.

    Images are found by name and size. Without `dry_run` the output's lock is held.

    Raises:
        OutputRefusedError, OutputLockedError: there is no run, it is damaged, or another process writes to it.
        UsageError: the file is none of these formats, or the data set is not where it was.
        OutputFailedError: the disk is full, read-only or failing.
    """
    result = Imported()
    with contextlib.ExitStack() as held:
        mender = None if dry_run else held.enter_context(Mender.open(out, root))
        twin = held.enter_context(Twin.open(out, root))
        known = {outcome.key: outcome for outcome in twin.entries()}
        found = list(read(file, known))
        twice = {name for name, n in Counter(one.name for one in found).items() if n > 1}
        waiting: list[Change] = []
        for one in found:
            reason = "the file names it more than once" if one.name in twice else _mismatch(one, known)
            if reason:
                result.left[one.name] = reason
                continue
            change = _change(one, known[one.name], mender, result)
            if change is None:
                continue
            if mender is None:
                result.changed.append(change.key)
                continue
            waiting.append(change)
            if len(waiting) == _AT_ONCE:
                _decide(mender, waiting, who, result)
        if mender is not None:
            _decide(mender, waiting, who, result)
            if mender.stale:
                mender.finish()
    return result


def _mismatch(one: Found, known: dict[str, Outcome]) -> str:
    """Return why a mask belongs to no image; empty where it does."""
    outcome = known.get(one.name)
    if outcome is None:
        return "the run has no image of this name"
    if one.size is not None and outcome.size != one.size:
        there = "no size" if outcome.size is None else f"{outcome.size.width} x {outcome.size.height}"
        return f"it has {one.size.width} x {one.size.height} pixels in the file, {there} in the run"
    return one.reason


def _change(one: Found, outcome: Outcome, mender: Mender | None, result: Imported) -> Change | None:
    assert one.rle is not None and outcome.size is not None
    try:
        bits = ops.rle_decode(one.rle, *outcome.size)
    except ValueError as error:
        result.left[one.name] = f"its mask is damaged: {error}"
        return None
    if not bits.any():
        result.left[one.name] = "its mask is empty"
        return None
    if outcome.rle is not None and ops.rle_encode(bits) == outcome.rle:
        result.unchanged += 1
        return None
    seen = 0 if mender is None else max((each.number for each in mender.decisions.of(one.name)), default=0)
    return Change(one.name, "mask", "import", seen, bits=bits)


def _decide(mender: Mender, waiting: list[Change], who: str, result: Imported) -> None:
    """Carry out the waiting changes, and forget them."""
    for change, answer in zip(waiting, mender.decide(waiting, who), strict=True):
        if isinstance(answer, Refused):
            result.left[change.key] = answer.reason
        elif isinstance(answer, Conflict):
            result.left[change.key] = f"{answer.now.who} decided about it meanwhile"
        else:
            result.changed.append(change.key)
    waiting.clear()
