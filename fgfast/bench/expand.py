"""Measures expansions: images per second of each kind with one and with several workers, beside a plain loop.

The plain loop is what a script would do on one thread: read, decode, unpack the mask, call the kind's own step, encode,
write. It has no runner, ledger, hashes, syncs or tables, so the difference is what these cost. Its files must be the
same, byte for byte.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import psutil

from fgfast import ops
from fgfast.bench.expand_birds import make_birds, make_places
from fgfast.bench.result import Result, Row, envelope
from fgfast.bench.timing import threads
from fgfast.config import Selection, Settings
from fgfast.expand import table
from fgfast.expand.job import paths_of, suffix_of
from fgfast.expand.kind import Subject
from fgfast.expand.plan import ExpandPlan, make_plan
from fgfast.expand.run import run
from fgfast.io.decode import decode
from fgfast.io.encode import encode
from fgfast.pipeline import plan as conversion
from fgfast.pipeline.run import run as convert
from fgfast.records import Outcome, Sample, Status
from fgfast.writing import Target, make_folder, remove_tree, scratch_folder

# A kind takes as many images as the plain loop makes in this many seconds, so that slow kinds do not take hours; but at
# least so many, of which the last ones, while some worker has none left, are a small part.
_SECONDS, _LEAST = 10.0, 32
# The plain loop makes this many images to see how long one takes, and to load what is loaded at first use.
_FIRST = 8
_LOOP = "plain loop"


@dataclass(frozen=True, slots=True)
class Spent:
    """What a turn took.

    Attributes:
        seconds: from the first image to the last ledger entry, of the loop to the last file.
        cpu: CPU seconds of all processes in that time, of users and of the system.
        before: seconds until workers are ready and the output is open.
        after: seconds for lists, tables, report and the like.
    """

    seconds: float
    cpu: float
    before: float = 0.0
    after: float = 0.0


def measure(*, kinds: Iterable[str], images: int, rounds: int, workers: int, folder: Path) -> Result:
    """Time expansions and the plain loop in turns on the same images.

    Args:
        kinds: names of kinds; none for all.
        images: the number of images, at most; see `_SECONDS`.
        rounds: how often each is timed; medians are quoted.
        workers: the larger number of worker processes.
        folder: the folder to work in; its disk is measured.

    Returns:
        Rates, their ratios, CPU time per image, and what is paid once.

    Raises:
        UnknownNameError: there is no kind of a name.
        MissingExtraError: a kind, or its tables, need a package that is not installed.
        AssertionError: a file differs from the loop's, or an image failed.
    """
    chosen = [table.kind(name).name for name in kinds] or list(table.names())
    rows: list[Row] = []
    with scratch_folder("fgfast-bench-", folder) as scratch:
        average = make_birds(scratch / "CUB_200_2011", images)
        make_places(scratch / "places", images)
        settings = Settings(detector="annotations", segmenter="annotations", masks="none")
        report = convert(conversion.make_plan("cub", scratch / "run", root=scratch, settings=settings))
        assert report.counts["failed"] == 0, report.failures
        for kind in chosen:
            rows += _of_kind(Bench(scratch, kind), images, rounds, workers)
    notes = [
        f"{images:,} images, 500x375 JPEGs of {average / 1000:.0f} kB: drawn birds with exact masks; of slow kinds as "
        f"many as the loop makes in {_SECONDS:g} s, and at least {_LEAST}.",
        "The loop: one thread, no runner, ledger, hashes, syncs or tables. All files are the same, byte for byte.",
        "CPU time is that of all processes, of users and of the system, in the time that the rate is of.",
        "Start-up, and lists, tables and report at the end, are paid once and are in no rate.",
    ]
    keys = [f"{kind}: {name}" for kind in chosen for name in (_times(workers), "overhead of 1 worker")]
    return envelope(
        "expand",
        rows,
        title="Expansions beside a plain loop over the same library calls",
        rounds=rounds,
        notes=notes,
        headline=keys,
        images=images,
        workers=workers,
    )


def _times(workers: int) -> str:
    return f"{workers} workers over the loop"


@dataclass(frozen=True, slots=True)
class Bench:
    """A kind, and the folder with what it is measured on.

    Attributes:
        scratch: the folder; it has the run in "run", and Places in "places".
        kind: the name of the kind.
    """

    scratch: Path
    kind: str

    def plan(self, limit: int) -> ExpandPlan:
        """Plan the expansion of `limit` images, with the kind's defaults; a context manager."""
        options = table.resolve(table.kind(self.kind).options)
        more = {"places": str(self.scratch / "places")} if self.kind == "waterbirds" else {}
        return make_plan(
            self.scratch / "run",
            self.kind,
            self.scratch / "expanded",
            options=options(**more),
            selection=Selection(limit=limit),
        )

    @property
    def theirs(self) -> Path:
        """The folder of the loop."""
        return self.scratch / "loop"

    def loop(self, limit: int) -> Spent:
        """Run the plain loop."""
        remove_tree(Target(self.theirs))
        with self.plan(limit) as plan, threads(1):
            works = [(sample, plan.request.outcome(sample.key)) for sample in plan.selected]
            works = [work for work in works if work[0].key not in plan.planned.unused]
            for sample, _ in works:
                for path in plan.names.fixed(sample.key):
                    make_folder(Target(self.theirs, path).parent)
                for path in plan.names.folders:
                    make_folder(Target(self.theirs, plan.names.several(path, sample.key)))
            kept: list[Any] = []
            start, cpu = time.perf_counter(), time.process_time()
            for work in works:
                for path, content in _made(plan, *work, kept):
                    (self.theirs / path).write_bytes(content)
            return Spent(time.perf_counter() - start, time.process_time() - cpu)

    def run(self, limit: int, workers: int) -> Spent:
        """Run the expansion, in a new output.

        Raises:
            AssertionError: an image failed.
        """
        remove_tree(Target(self.scratch / "expanded"))
        seen: list[tuple[float, float]] = []

        def progress(counts: dict[Status, int], total: int) -> None:
            done = sum(counts.values())
            if not done or done == total:
                seen.append((time.perf_counter(), _cpu_seconds()))

        with self.plan(limit) as plan:
            start = time.perf_counter()
            report = run(plan, mode="overwrite", workers=workers, progress=progress)
            end = time.perf_counter()
        assert not report.counts["failed"], f"{self.kind}: {report.failures}"
        (first, cpu), (last, later) = seen[0], seen[-1]
        return Spent(last - first, later - cpu, first - start, end - last)

    def compare(self) -> None:
        """Raise AssertionError where a file of the expansion is not that of the loop."""
        files = [file for file in sorted(self.theirs.rglob("*")) if file.is_file()]
        assert files, f"{self.kind} made no file"
        for file in files:
            name = file.relative_to(self.theirs)
            other = self.scratch / "expanded" / name
            assert other.is_file() and other.read_bytes() == file.read_bytes(), f"{self.kind}: {name} is another file"


def _made(plan: ExpandPlan, sample: Sample, before: Outcome, kept: list[Any]) -> Iterator[tuple[str, bytes]]:
    """Make the products of an image as a plain loop does; yield path and content of its files."""
    image = decode(sample.path.read_bytes(), sample.key, plan.dataset.turn_exif)
    assert before.rle is not None
    bits = ops.rle_decode(before.rle, *image.size)
    given = plan.planned.given(sample.key)
    names = (plan.request.seed, plan.kind.name, sample.key)
    product = plan.planned.step(Subject(sample, image.pixels, bits, given, names))
    kept.append(product.rows)
    if product.skipped:
        return
    paths, suffix = paths_of(plan.names, sample.key), suffix_of(plan.how.format)
    for folder, pixels in product.images.items():
        own = suffix or PurePosixPath(paths[folder]).suffix.lower()
        yield paths[folder], encode(np.ascontiguousarray(pixels), own, plan.how.quality)
    for folder, content in product.files.items():
        yield paths[folder], content
    for (folder, name), content in product.several.items():
        yield f"{paths[folder]}/{name}", content


def _cpu_seconds() -> float:
    """Return the CPU seconds that this process and its descendants have taken, those that have ended among them."""
    own, found = psutil.Process(), 0.0
    for process in (*own.children(recursive=True), own):  # itself last: a child may end meanwhile
        with suppress(psutil.NoSuchProcess):
            found += sum(process.cpu_times()[:4])  # user, system, and of children that have ended
    return found


def _of_kind(bench: Bench, images: int, rounds: int, workers: int) -> list[Row]:
    """Measure a kind; return its rows."""
    first = min(_FIRST, images)
    bench.loop(first)
    each = bench.loop(first).seconds / first
    count = max(min(_LEAST, images), min(images, round(_SECONDS / each)))
    turns: dict[str, Callable[[], Spent]] = {
        _LOOP: lambda: bench.loop(count),
        "1 worker": lambda: bench.run(count, 1),
        f"{workers} workers": lambda: bench.run(count, workers),
    }
    spent: dict[str, list[Spent]] = {name: [] for name in turns}
    for _ in range(rounds):
        for name, turn in turns.items():
            spent[name].append(turn())
            if name != _LOOP:
                bench.compare()
    return _rows(bench.kind, count, spent, workers)


def _rows(kind: str, count: int, spent: dict[str, list[Spent]], workers: int) -> list[Row]:
    loop, one, more = spent.values()
    rows = [Row.of(name, [count / s.seconds for s in own], "images/s", "higher", kind) for name, own in spent.items()]
    ratios = [a.seconds / b.seconds for a, b in zip(loop, more, strict=True)]
    rows.append(Row.of(_times(workers), ratios, "times", "higher", kind))
    wall = [100 * (b.seconds / a.seconds - 1) for a, b in zip(loop, one, strict=True)]
    rows.append(Row.of("overhead of 1 worker", wall, "%", "lower", kind))
    for name, own in spent.items():
        rows.append(Row.of(f"CPU time, {name}", [1e3 * s.cpu / count for s in own], "ms/image", "lower", kind))
    cpu = [100 * (b.cpu / a.cpu - 1) for a, b in zip(loop, one, strict=True)]
    rows.append(Row.of("overhead of 1 worker in CPU time", cpu, "%", "lower", kind))
    for name, own in list(spent.items())[1:]:
        rows.append(Row.of(f"start-up, {name}", [s.before for s in own], "s", "lower", kind))
    rows.append(Row.of("lists, tables, report", [s.after for s in more], "s", "lower", kind))
    return [*rows, Row("images", count, group=kind)]
