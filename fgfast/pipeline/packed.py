"""Packs: the masks of a run in one file, and the same twin made from it without a model.

An image is found by its name and the SHA-256 of its file. Mask, box, flags, numbers and doubt are those of the pack; it
goes through the run's own stages from its mask on. What is not in the pack, or is another file than there, is listed
and goes to the segmenter of the setting "otherwise", or fails.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from fgfast import __version__, methods
from fgfast.errors import MaskUnusableError, SampleError
from fgfast.files import FileStamp
from fgfast.io import pack
from fgfast.io.decode import read_bytes
from fgfast.io.output import Output
from fgfast.io.pack import Pack
from fgfast.io.warned import captured
from fgfast.machine import available_cores
from fgfast.pipeline.finish import decided_here
from fgfast.pipeline.mended import MendedFiles
from fgfast.pipeline.plan import Plan
from fgfast.pipeline.remake import CHANGED, remake
from fgfast.pipeline.resume import Found
from fgfast.pipeline.twin import Twin
from fgfast.pipeline.work import Result, result_of
from fgfast.records import Outcome, sample_digest
from fgfast.runner import Finished
from fgfast.writing import Target

NOT_THERE, OTHER_IMAGE = "not in the pack", "not the image of the pack"
"""The reasons of a sample that fails because the pack has no mask of it."""
# Samples that are made before they are recorded together.
_AT_ONCE = 64

Collect = Callable[[list[Result]], None]


def export(out: Path, file: Path) -> int:
    """Write the pack of a run: its images that have a mask, and those that a person rejected; return how many.

    Raises:
        OutputRefusedError: there is no run, or it is damaged.
        UsageError: the name of an image is no Unicode text.
        MissingExtraError: pyarrow is not installed.
        OutputFailedError: the disk is full, read-only or failing.
    """
    pack.check_parquet()
    written = 0
    with Twin.open(out) as twin:
        decided = decided_here(twin.output)
        with pack.writer(Target.file(file), _about(twin)) as add:
            for outcome in twin.entries(("done", "flagged", "skipped")):
                if outcome.source is not None and outcome.size is not None:
                    add(outcome, decided.get(outcome.key))
                    written += 1
    return written


def _about(twin: Twin) -> dict[str, Any]:
    """Return what the masks of a run were made from, without paths and dates."""
    made = twin.settings
    versions = twin.run.get("versions")
    named = (methods.find(str(made.get("detector")), "detector"), methods.find(str(made.get("segmenter")), "segmenter"))
    licences = {method.name: method.licence for method in named if method is not None}
    return {
        "dataset": twin.source.dataset,
        "title": twin.title,
        "turn_exif": twin.turn_exif,
        "fgfast": __version__,
        "fingerprint": made,
        "models": made.get("weights"),
        "versions": versions if isinstance(versions, dict) else {},
        "licence": (
            "This file holds masks, boxes and numbers, and no pixel of an image. The images keep the licence of their "
            f"data set ({twin.title}). The masks were made with: "
            + "; ".join(f"{name} ({licence or 'no weights'})" for name, licence in licences.items())
        ),
    }


def carry_out(
    plan: Plan, output: Output, found: Found, stop: threading.Event, collect: Collect
) -> tuple[frozenset[str], tuple[str, ...]]:
    """Make the samples of a pack that are to be made.

    Args:
        plan: of the run.
        output: its output, locked, its ledger open.
        found: what it holds.
        stop: ends this early.
        collect: commits and records results.

    Returns:
        The keys that need nothing more; and those of which the pack has no mask, in the data set's order.

    Raises:
        UsageError: the pack has changed since the plan was made.
        OutputFailedError: the disk is full, read-only or failing; the next run goes on.
    """
    if plan.pack is None:
        return frozenset(), ()
    todo = {plan.dataset.samples[n].key for n in plan.positions} - found.finished.keys()
    fails = plan.settings.otherwise == "none"
    without: dict[str, str] = dict.fromkeys(todo - plan.pack.keys, NOT_THERE)
    made: set[str] = set()
    with captured(), ThreadPoolExecutor(available_cores(), "packed") as pool:
        files = MendedFiles(plan, output, pool)

        def make(outcome: Outcome) -> Result | str:
            return _make(files, outcome)

        for some in _batches(plan.pack, todo):
            if stop.is_set():
                return frozenset(todo), ()
            results = files.map(make, some)
            batch = []
            for outcome, result in zip(some, results, strict=True):
                if isinstance(result, Result):
                    batch.append(result)
                    made.add(outcome.key)
                else:
                    without[outcome.key] = result
            collect(batch)
        order = sorted(without, key=files.positions.__getitem__)
        for start in range(0, len(order) if fails else 0, _AT_ONCE):
            if stop.is_set():
                return frozenset(todo), ()
            some_keys = order[start : start + _AT_ONCE]
            collect(list(pool.map(lambda key: _failed(files, key, without[key]), some_keys)))
    return frozenset(made | set(order)) if fails else frozenset(made), tuple(order)


def _batches(given: Pack, todo: set[str]) -> Iterator[Sequence[Outcome]]:
    for rows in given.rows():
        wanted = [row for row in rows if row.key in todo]
        yield from (wanted[n : n + _AT_ONCE] for n in range(0, len(wanted), _AT_ONCE))


def _make(files: MendedFiles, outcome: Outcome) -> Result | str:
    """Write one sample's files under temporary names; or return why the pack's mask is not its. Called in threads."""
    work = files.work(outcome.key)
    annotation = sample_digest(work.sample)
    assert outcome.source is not None
    sha256 = outcome.source.sha256
    try:
        if outcome.status == "skipped":
            stamp = FileStamp.of(work.sample.path, read_bytes(work.sample.path))
            if stamp.sha256 != sha256:
                return OTHER_IMAGE
            return Result(work.position, replace(outcome, annotation=annotation, source=stamp), ())
        done = remake(replace(outcome, twin=work.twin, annotation=annotation), work, files.stages, sha256)
    except SampleError as error:
        files.discard([Result(work.position, outcome, tuple(work.temp_files))])
        if error.reason == CHANGED:
            return OTHER_IMAGE
        return result_of(Finished(work, "decode" if work.image is None else "cut", error))
    except BaseException:
        files.discard([Result(work.position, outcome, tuple(work.temp_files))])
        raise
    return replace(done, outcome=replace(done.outcome, warnings=work.image.warnings if work.image else ()))


def _failed(files: MendedFiles, key: str, reason: str) -> Result:
    """Return the failure of a sample without a mask: that of its image where it cannot be read at all."""
    work, sentence = (
        files.work(key),
        "its file is another one than there" if reason == OTHER_IMAGE else "it is not there",
    )
    error: SampleError = MaskUnusableError(
        reason, f"{key}: the pack has no mask of it, {sentence}; --otherwise names a segmenter for such images"
    )
    try:
        files.stages.decode(work)
    except SampleError as unreadable:
        error = unreadable
    return result_of(Finished(work, "decode" if work.image is None else "mask", error))
