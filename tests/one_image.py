"""Traces one image through a run: which files of fgfast have a function called, in the parent and in the worker."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fgfast
from fgfast.pipeline import run
from fgfast.pipeline.job import ConvertJob
from fgfast.pipeline.plan import Plan
from fgfast.runner import Finished, WorkerSpec

_ROOT = Path(fgfast.__path__[-1])


class Trace:
    """Notes files while it is `on`."""

    def __init__(self) -> None:
        self.on = False
        self.files: set[str] = set()

    def __call__(self, frame: Any, event: str, argument: Any) -> None:
        name = frame.f_code.co_filename
        if self.on and event == "call" and name.startswith(str(_ROOT)):
            self.files.add(Path(name).relative_to(_ROOT).as_posix())

    def install(self) -> None:
        """From now on, in this thread and in those that it starts."""
        threading.setprofile(self)
        sys.setprofile(self)


@dataclass
class TracedRuntime:
    runtime: Any
    trace: Trace
    file: Path

    def __getattr__(self, name: str) -> Any:
        return getattr(self.runtime, name)

    def result_of(self, finished: Finished[Any]) -> Any:
        result = self.runtime.result_of(finished)
        self.file.write_text("\n".join(sorted(self.trace.files)))
        return result


@dataclass
class TracedJob:
    """A ConvertJob that writes the files that an image passes in its worker process."""

    job: ConvertJob
    file: Path

    @property
    def settings(self) -> Any:
        return self.job.settings

    @property
    def detector(self) -> Any:
        return self.job.detector

    @property
    def segmenter(self) -> Any:
        return self.job.segmenter

    @property
    def phases(self) -> int:
        return self.job.phases

    def open(self, spec: WorkerSpec) -> TracedRuntime:
        trace = Trace()
        runtime = self.job.open(spec)
        trace.install()
        trace.on = True  # the flow starts when this returns, and has one image to carry
        return TracedRuntime(runtime, trace, self.file)


@contextmanager
def _without() -> Iterator[None]:
    try:
        yield
    finally:
        threading.setprofile(None)
        sys.setprofile(None)


def files_of_one_image(plan: Plan, folder: Path, monkeypatch: Any) -> list[str]:
    """The files that the one image of a plan passes, from the plan's sample to its row in the ledger."""
    trace, made, todo = Trace(), run.convert_job, run.todo
    monkeypatch.setattr(run, "convert_job", lambda *given: TracedJob(made(*given), folder / "worker.txt"))

    def first(*given: Any) -> Iterator[Any]:
        trace.on = True
        yield from todo(*given)

    def record(*given: Any, recorded: Any = run.record) -> None:
        recorded(*given)
        trace.on = False

    monkeypatch.setattr(run, "todo", first)
    monkeypatch.setattr(run, "record", record)
    with _without():
        trace.install()
        report = run.run(plan, cpu_threads=1)
    assert report.counts["failed"] == 0 and report.total == 1
    return sorted(trace.files | set((folder / "worker.txt").read_text().splitlines()))
