"""The check of an output: whether every file is still the one that was written, made from the image that is there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fgfast.data_paths import DataPath
from fgfast.errors import OutputFailedError
from fgfast.files import FileStamp
from fgfast.io.earlier_run import whole_files
from fgfast.io.ledger import Ledger
from fgfast.io.lock import OutputLock
from fgfast.io.portable_paths import resolved
from fgfast.io.stamps import states
from fgfast.pipeline.twin import Source, check_begun, ledger_in


@dataclass(frozen=True)
class Verified:
    """The state of an output. Paths are relative to its folder, keys are those of samples.

    Attributes:
        out: the output folder.
        root: the data set's folder, as recorded.
        files: number of files compared, sources included.
        missing: written files that are no longer there.
        damaged: written files with other content.
        changed: keys of samples whose image's file has other content than the one that was read.
        gone: keys of samples whose image's file is no longer there, or cannot be read.
        clean: whether the last run ended cleanly.
        stale: whether people decided about samples after lists, COCO files and report were written.
    """

    out: Path
    root: Path
    files: int
    missing: tuple[str, ...]
    damaged: tuple[str, ...]
    changed: tuple[str, ...]
    gone: tuple[str, ...]
    clean: bool
    stale: bool = False

    @property
    def intact(self) -> bool:
        """Whether the last run ended cleanly, and every file is as recorded, the lists after the last decision."""
        return self.clean and not (self.stale or self.missing or self.damaged or self.changed or self.gone)


def verify(out: Path, root: Path | None = None) -> Verified:
    """Read and hash every file of an output, and the images that it was made from, and compare them with the ledger.

    Nothing is changed. The same `convert` command repairs what is missing, damaged or changed.

    Args:
        out: the output folder of a run.
        root: the data set's folder, where it has moved.

    Raises:
        UsageError: `root` is not the data set of the run.
        OutputRefusedError: there is no folder, or it holds no run.
        OutputLockedError: a run is writing to it.
    """
    path = ledger_in(out)
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError, OutputFailedError):  # a read-only output has no writer
            held.enter_context(OutputLock(path.with_name("lock")))
        ledger = held.enter_context(Ledger(path, write=False))
        check_begun(ledger, out)
        ledger.check()
        source = ledger.meta("source") or {}
        place: Path = Path(Source.of(ledger, out, root).open().root) if root else resolved(source.get("root", ""), out)
        # The output, and the keys in its ledger, may be anybody's: neither leads anywhere else.
        there, images = DataPath(str(out)), DataPath(str(place), follow=source.get("follow_links") is True)

        def files() -> Iterator[tuple[tuple[str, bool], DataPath, FileStamp]]:
            """Yield (name, whether it is a source), path and stamp."""
            for row in ledger.finished():
                if row.source:
                    yield (row.key, True), images / row.key, row.source
                for name, stamp in row.files.items():
                    yield (name, False), there / name, stamp
            for name, stamp in whole_files(ledger):
                yield (name, False), there / name, stamp

        for _ in ledger.outcomes():  # raises what a value that no run writes raises
            pass
        found: dict[tuple[bool, str], list[str]] = {}
        count = 0
        for (name, is_source), state in states(files(), read=True):
            count += 1
            found.setdefault((is_source, state), []).append(name)
        return Verified(
            out=out,
            root=place,
            files=count,
            missing=tuple(found.get((False, "missing"), ())),
            damaged=(*found.get((False, "differs"), ()), *found.get((False, "unreadable"), ())),
            changed=tuple(found.get((True, "differs"), ())),
            gone=(*found.get((True, "missing"), ()), *found.get((True, "unreadable"), ())),
            clean=ledger.meta("clean") is True and not ledger.meta("being_deleted"),
            stale=bool(ledger.meta("lists_stale") or ledger.meta("reviewing")),
        )
