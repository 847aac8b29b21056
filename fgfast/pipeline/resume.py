"""What an output already holds for a plan: which samples are finished, and what has changed since.

A finished sample stays finished while the data set says the same about it, its image's file is the one that was read,
and its own files are the ones that were written. Everything else is done again. A selection that grows or shrinks harms
nothing that is finished.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from fgfast.data_paths import AnyPath
from fgfast.files import FileStamp
from fgfast.io.ledger_queries import Row
from fgfast.io.output import Output
from fgfast.io.stamps import states
from fgfast.records import Sample, Status
from fgfast.writing import delete_files

# Names in a message; JSON output has all of them.
_NAMED = 5


@dataclass(frozen=True)
class Changes:
    """What differs from the earlier run in the same output, as keys.

    Attributes:
        added: samples that the earlier run did not have.
        gone: samples that the data set no longer has, or whose image cannot be read now; what is finished is kept.
        kept: finished samples outside this selection.
        excluded: samples that this selection leaves out by name; their files are deleted.
        changed: finished samples whose image or annotation has changed since; they are done again.
        damaged: finished samples whose files are lost or damaged; they are done again.
        dropped: such samples outside this selection; they leave the twin.
        decided: samples that this run made from decisions of people, without the models.
        undecided: samples whose decisions are kept, but not applied: their images are missing, or other ones since.
        unpacked: samples of which the pack has no mask: they are not in it, or have another file than there.
    """

    added: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    decided: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()
    unpacked: tuple[str, ...] = ()

    def messages(self) -> list[str]:
        """Return one sentence per kind of change, with the first names."""
        kinds = (
            ("added since the earlier run", self.added),
            ("gone from the data set, or not readable now", self.gone),
            ("kept, outside this selection", self.kept),
            ("excluded, and deleted from the twin", self.excluded),
            ("changed since", self.changed),
            ("lost or damaged", self.damaged),
            ("dropped: lost, damaged or changed, and outside this selection", self.dropped),
            ("made from decisions of people", self.decided),
            ("decided about another image, or one that cannot be read; decisions kept, not applied", self.undecided),
            ("without a mask in the pack: not there, or another file than there", self.unpacked),
        )
        return [f"{kind}: {len(keys):,} ({_some(keys)})" for kind, keys in kinds if keys]


def _some(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _NAMED:,} more" if len(keys) > _NAMED else ""
    return ", ".join(keys[:_NAMED]) + more


@dataclass(frozen=True)
class Found:
    """What an output holds.

    Attributes:
        finished: key -> status of the samples that need not be done, those outside the selection among them.
        selected: the keys of this selection.
        changes: what differs from the earlier run.
    """

    finished: dict[str, Status]
    selected: frozenset[str]
    changes: Changes

    @property
    def total(self) -> int:
        """The number of samples that have an outcome at the end of the run."""
        return len(self.selected | self.finished.keys())


class Expected(Protocol):
    """What a plan expects of an output, by which the results of an earlier run are compared with it.

    Attributes:
        samples: all samples of the data set, in its order.
        positions: positions of the selected samples.
        excluded: keys of samples whose results are deleted.
    """

    @property
    def samples(self) -> tuple[Sample, ...]: ...

    @property
    def positions(self) -> tuple[int, ...]: ...

    @property
    def excluded(self) -> frozenset[str]: ...

    def digest(self, sample: Sample) -> bytes:
        """Return what the result of a selected sample depends on; see `Outcome.annotation`."""

    def owns(self, row: Row) -> bool:
        """Whether the files of a finished sample lie where a run of this kind writes them.

        A ledger may be anybody's: what it says about other files is not believed, and these are not changed.
        """

    def writes(self, row: Row) -> bool:
        """Whether the files of a finished sample of the data set have the names that this plan gives them."""

    def claimed(self) -> Container[str]:
        """Return the paths of all files that this plan writes for the selected samples."""

    def may_write(self, path: str) -> bool:
        """Whether this plan writes a file of this path, for any sample."""


def examine(plan: Expected, output: Output, read: bool) -> Found:
    """Compare the ledger of an open output with the plan; register new samples.

    The rows of samples that are to be done, or done again, are deleted with their files: what the ledger holds is
    finished.

    Args:
        plan: what is expected.
        output: the output.
        read: whether to hash every file, instead of trusting those of the same size and time.
    """
    ledger, samples = output.ledger, plan.samples
    sweep_unrecorded(plan, output)
    excluded = _exclude(plan, output)
    selected = {samples[n].key: samples[n] for n in plan.positions}
    known = ledger.labels()
    ledger.register((n, s) for n, s in enumerate(samples) if s.key in selected or s.key in known)
    present = {sample.key for sample in samples}
    claimed = plan.claimed()
    finished: dict[str, Status] = {}
    changed: dict[str, None] = {}
    foreign: list[str] = []

    def files() -> Iterator[tuple[tuple[str, bool], AnyPath, FileStamp]]:
        """Yield (key, whether it is the source), path and stamp of the files to be compared."""
        for row in ledger.finished():
            if not plan.owns(row):
                foreign.append(row.key)
                continue
            if _other_names(plan, row, selected, present, claimed):
                changed[row.key] = None
                continue
            finished[row.key] = row.status
            if row.source and row.key in selected:
                yield (row.key, True), selected[row.key].path, row.source
            for path, stamp in row.files.items():
                yield (row.key, False), output.out / path, stamp

    damaged: dict[str, None] = {}
    gone: dict[str, None] = {}
    for (key, is_source), state in states(files(), read):
        if is_source and state == "differs":
            changed[key] = None
        elif is_source and state != "same":
            gone[key] = None
        elif state != "same":
            damaged[key] = None
    failed = ledger.keys("failed")
    ledger.intend(foreign, [])  # their files are left alone
    _drop(output, [*changed, *damaged])
    ledger.forget(failed)
    for key in (*changed, *damaged):
        finished.pop(key, None)
    gone.update((key, None) for key in known if key not in present and (key in finished or key in failed))
    return Found(
        finished,
        frozenset(selected),
        Changes(
            added=tuple(key for key in selected if known and key not in known),
            gone=tuple(key for key in gone if key not in changed and key not in damaged),
            kept=tuple(s.key for s in samples if s.key in finished and s.key not in selected),
            excluded=excluded,
            changed=tuple(key for key in changed if key in selected),
            damaged=tuple(key for key in damaged if key in selected and key not in changed),
            dropped=tuple(key for key in {**changed, **damaged} if key not in selected),
        ),
    )


def _other_names(
    plan: Expected, row: Row, selected: Mapping[str, Sample], present: set[str], claimed: Container[str]
) -> bool:
    """Whether a finished sample's files no longer stand for it: other boxes, other names, or names that others need."""
    if row.key in selected and row.annotation != plan.digest(selected[row.key]):
        return True
    if row.twin is None:
        return False
    if row.key in present:
        return not plan.writes(row)
    return any(path in claimed for path in row.files)


def sweep_unrecorded(plan: Expected, output: Output) -> None:
    """Delete the files that a killed run wrote but did not record, of those that this plan writes."""
    committing = set(output.ledger.meta("committing") or ())
    if not committing:
        return
    committing = {path for path in committing if plan.may_write(path)}
    committing.difference_update([path for path in output.ledger.paths() if path in committing])
    delete_files(output.out, committing)
    output.ledger.set_meta({"committing": []})


def _exclude(plan: Expected, output: Output) -> tuple[str, ...]:
    """Delete the files and the rows of the samples that are excluded by name; return those that had files."""
    if not plan.excluded:
        return ()
    had = [row.key for row in output.ledger.finished() if row.key in plan.excluded]
    _drop(output, [*plan.excluded])
    return tuple(had)


def _drop(output: Output, keys: list[str]) -> None:
    """Delete the rows and the files of samples."""
    if keys:
        delete_files(output.out, output.ledger.intend(keys, []))
