"""What people decided holds in every run: their samples are made from their masks, and need no detector or segmenter.

That is so whatever is run: a resume after files were lost, --overwrite, another version, another crop or background.
Decisions of another output (--decisions) are first copied into this one, and are its own from then on. A decision about
another image file than the one that is there is not applied, and neither is one whose mask may be of the image as
another layout turns it by its EXIF orientation.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from fgfast.datasets import layout_named
from fgfast.errors import FgfastError, SampleError
from fgfast.io.decisions import FILE, Decision, Decisions
from fgfast.io.decode import decode, is_turned, read_bytes
from fgfast.io.ledger import Ledger
from fgfast.io.output import Output
from fgfast.io.warned import captured
from fgfast.machine import available_cores
from fgfast.pipeline.mended import MendedFiles
from fgfast.pipeline.plan import Plan
from fgfast.pipeline.resume import Found
from fgfast.records import Sample

# Samples per transaction; their masks and the paths of their files are in memory.
_AT_ONCE = 64


def carry_out(plan: Plan, output: Output, found: Found, stop: threading.Event) -> Found:
    """Make the samples that people decided about, where they are to be made; return what the output holds then.

    Args:
        plan: of the run.
        output: its output, locked, its ledger open.
        found: what it holds.
        stop: ends this early.

    Raises:
        OutputRefusedError: the file of decisions is damaged.
        OutputFailedError: the disk is full, read-only or failing; the next run goes on.
    """
    path = output.ours / FILE
    if not (path.is_file() or plan.decisions):
        return found
    with contextlib.ExitStack() as held:
        held.enter_context(captured())
        pool = held.enter_context(ThreadPoolExecutor(available_cores(), "decided"))
        decisions = held.enter_context(Decisions(path, write=True))
        files = MendedFiles(plan, output, pool)
        undecided = _copy(plan, found, decisions, pool)
        held_now = decisions.in_force()
        coming = {d.key: None for d in decisions.unfinished()}
        coming |= {key: None for key in held_now if key not in found.finished}
        keys = [key for key in coming if key in found.selected]
        for some in _batches(keys):
            if stop.is_set():
                break
            undecided += [refused.key for refused in files.catch_up(decisions, some)]
        decided = [key for key in keys if key not in set(undecided)]
        undecided += [key for key, d in held_now.items() if key not in coming and _other_image(output, d)]
        output.ledger.set_meta({"reviewing": False})
    rows = {key: row.status for key in decided if (row := output.ledger.outcome_of(key)) is not None}
    changes = replace(found.changes, decided=tuple(rows), undecided=tuple(dict.fromkeys(undecided)))
    return replace(found, finished=found.finished | rows, changes=changes)


def _copy(plan: Plan, found: Found, decisions: Decisions, pool: ThreadPoolExecutor) -> list[str]:
    """Store the given decisions on samples that have none here; return the keys of those that do not hold here."""
    samples = {sample.key: sample for sample in plan.dataset.samples}
    absent = [key for key in plan.decisions if key not in samples]
    new = [key for key in plan.decisions if key in found.selected and not decisions.last(key)]

    turned = _turned(plan)

    def same(key: str) -> bool:
        sample, decision = samples[key], plan.decisions[key]
        if content_of(sample) != decision.source:
            return False
        return turned is plan.dataset.turn_exif or _same_frame(sample, decision, turned, plan.dataset.turn_exif)

    hold = dict(zip(new, pool.map(same, new), strict=True))
    copied = [replace(plan.decisions[key], seen=0, number=0, done=False) for key in new if hold[key]]
    if copied:
        decisions.append(copied)
    return [*absent, *(key for key in new if not hold[key])]


def _turned(plan: Plan) -> bool | None:
    """Whether the given decisions are about images that are turned by EXIF; None where no ledger beside them says."""
    given = Path(plan.settings.decisions or "").expanduser()
    folder = given / "fgfast" if given.is_dir() else given.parent
    try:
        with Ledger(folder / "ledger.sqlite", write=False) as ledger:
            return layout_named((ledger.meta("source") or {})["dataset"]).turn_exif
    except (FgfastError, OSError, KeyError, TypeError, AttributeError):
        return None


def _same_frame(sample: Sample, decision: Decision, theirs: bool | None, ours: bool) -> bool:
    """Whether a mask drawn on an image that is turned by one rule fits the image as it is turned by another.

    Args:
        sample: its sample.
        decision: on this very file.
        theirs: whether the EXIF orientation was applied where it was drawn; None where that is not known.
        ours: whether it is applied here.
    """
    try:
        data = read_bytes(sample.path)
        if not is_turned(data, sample.key):
            return True
        here, other = (decode(data, sample.key, turn).size for turn in (ours, not ours))
    except SampleError:
        return False
    # By its size a mask tells its frame, unless the image is mirrored, square, or turned by half a turn.
    return theirs is None and here != other and decision.size == here


def content_of(sample: Sample) -> bytes | None:
    """Return the SHA-256 of a sample's file; None where it cannot be read."""
    try:
        return hashlib.sha256(read_bytes(sample.path)).digest()
    except SampleError:
        return None


def _other_image(output: Output, decision: Decision) -> bool:
    """Whether a finished sample was made from another image file than the decision was about."""
    row = output.ledger.outcome_of(decision.key)
    return row is not None and row.source is not None and row.source.sha256 != decision.source


def _batches(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[n : n + _AT_ONCE] for n in range(0, len(keys), _AT_ONCE))
