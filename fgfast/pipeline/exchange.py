"""Masks of an output for other tools, and back: what comes back changed becomes decisions."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from fgfast.errors import OutputRefusedError, UnknownNameError, UsageError
from fgfast.files import FileTooLargeError, read_regular
from fgfast.io import coco as coco_instances
from fgfast.io.decisions import FILE, Decisions
from fgfast.io.exchange import coco, cvat, fiftyone, label_studio
from fgfast.io.exchange.found import STATE, Found, state_of
from fgfast.pipeline import packed
from fgfast.pipeline.comparing import Comparing, Imported, Taking
from fgfast.pipeline.mending import Change, Conflict, Mender, Refused
from fgfast.pipeline.twin import Twin
from fgfast.records import Outcome, Size
from fgfast.writing import Target, replacing

__all__ = ["FORMATS", "Imported", "Taking", "bring_back", "export"]

FORMATS = ("coco", "cvat", "label-studio", "fiftyone")
# A million masks of a kilobyte; a file is read whole.
_MOST_BYTES = 1 << 30
# Masks per batch of decisions: enough to share a durable write, few enough for 20 megapixels each in memory.
_AT_ONCE = 32


def export(out: Path, to: str, file: Path) -> int:
    """Write the masks of the written images, in the stored images' frame; return how many.

    Every format keeps every pixel, and beside each mask the state that it has, see `fgfast.io.exchange.found.state_of`.

    Raises:
        UnknownNameError: there is no such format.
        OutputRefusedError: there is no run, or it is damaged.
        UsageError: a name cannot stand in this format.
        OutputFailedError: the disk is full, read-only or failing.
    """
    if to == "pack":
        return packed.export(out, file)
    if to not in FORMATS:
        raise UnknownNameError("format", to, (*FORMATS, "pack"))
    with Twin.open(out) as twin, _numbers(twin.output.ours) as last:
        labels, written = twin.labels(), 0

        def masks() -> Iterator[Outcome]:
            nonlocal written
            for outcome in twin.entries(("done", "flagged")):
                if outcome.rle is not None and outcome.size is not None:
                    written += 1
                    yield outcome

        def state(outcome: Outcome) -> str:
            return state_of(last(outcome.key), outcome.rle)

        def attributes(outcome: Outcome) -> dict[str, str]:
            return {STATE: state(outcome)}

        if to == "coco":
            about = (Target.file(file), labels, twin.classes, twin.title)
            with coco_instances.instances(*about, "original", attributes) as add:
                for outcome in masks():
                    add(outcome)
            return written
        if to == "fiftyone":
            pieces = fiftyone.write(masks(), labels, state, twin.title)
        else:
            pieces = (cvat if to == "cvat" else label_studio).write(masks(), labels, state)
        try:
            with replacing(Target.file(file)) as opened:
                for piece in pieces:
                    opened.write(piece)
        except ValueError as error:
            raise OutputRefusedError(f"the ledger of {out} is damaged (a mask is none: {error})") from error
        return written


@contextlib.contextmanager
def _numbers(ours: Path) -> Iterator[Callable[[str], int]]:
    """Give a function from a key to the number of the last decision on it, of the folder OUT/fgfast."""
    path = ours / FILE
    if not path.exists() and not path.is_symlink():
        yield lambda key: 0
        return
    with Decisions(path) as decisions:
        yield decisions.last


def read(file: Path, known: Mapping[str, Outcome], polygons: bool = False) -> Iterator[Found]:
    """Yield what a file says about each of its images.

    Raises:
        UsageError: it cannot be read, or has no known format.
    """
    try:
        data = read_regular(file, _MOST_BYTES)
    except (OSError, FileTooLargeError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from None
    if data.startswith(b"PAR1"):
        raise UsageError(
            f"{file} is Parquet: a pack is not imported, fgfast convert --masks-from {file} makes a twin of it"
        )
    sizes: dict[str, Size] = {key: outcome.size for key, outcome in known.items() if outcome.size is not None}
    if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return cvat.read(data, sizes)
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} is neither XML of CVAT nor JSON of COCO, Label Studio or FiftyOne: {error}") from None
    if isinstance(content, list) and content:
        return label_studio.read(content, sizes)
    if isinstance(content, dict) and "samples" in content:
        return fiftyone.read(content, sizes)
    return coco.read(content, sizes, polygons)


def bring_back(out: Path, file: Path, taking: Taking = Taking()) -> Imported:  # noqa: B008
    """Take the masks of a file that differ as decisions, and write the lists anew.

    Images are found by name and size. A mask is taken where the run is as it was when the mask was exported, or where
    the file does not say and nobody decided about the image. Unless it is a dry run, the output's lock is held.

    Raises:
        OutputRefusedError, OutputLockedError: there is no run, it is damaged, or another process writes to it.
        UsageError: the file is none of these formats, or the data set is not where it was.
        OutputFailedError: the disk is full, read-only or failing.
    """
    with contextlib.ExitStack() as held:
        mender = None if taking.dry_run else held.enter_context(Mender.open(out, taking.root))
        twin = held.enter_context(Twin.open(out, taking.root))
        last = mender.decisions.last if mender else held.enter_context(_numbers(twin.output.ours))
        known = {outcome.key: outcome for outcome in twin.entries()}
        states = {one.name: one.state for one in read(taking.exported, known)} if taking.exported else {}
        found = list(read(file, known, taking.lossy))
        twice = {name for name, n in Counter(one.name for one in found).items() if n > 1}
        comparing = Comparing(known, twin.labels(), states, last, taking)
        waiting: list[Change] = []
        for one in found:
            if one.name in twice:
                comparing.result.left[one.name] = "the file names it more than once"
            elif (change := comparing.change(one)) is None:
                continue
            elif mender is None:
                comparing.result.changed.append(change.key)
            else:
                waiting.append(change)
            if mender is not None and len(waiting) == _AT_ONCE:
                _decide(mender, waiting, taking.who, comparing.result)
        if mender is not None:
            _decide(mender, waiting, taking.who, comparing.result)
            if mender.stale:
                mender.finish()
        return comparing.result


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
