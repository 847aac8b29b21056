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
from fgfast.pipeline import run, work
from fgfast.pipeline.finish import Report
from fgfast.pipeline.job import ConvertJob
from fgfast.pipeline.plan import Plan
from fgfast.runner import Finished, WorkerSpec

_ROOT = Path(fgfast.__path__[-1])


class Trace:
    """Collects the files whose functions are called while it is `on`.

    What a session calls is the network, in whichever backend computes it, and is left out.
    """

    def __init__(self) -> None:
        self.on = False
        self.files: set[str] = set()
        self._thread = threading.local()

    def __call__(self, frame: Any, event: str, argument: Any) -> None:
        if event not in ("call", "return") or not frame.f_code.co_filename.startswith(str(_ROOT)):
            return
        file = Path(frame.f_code.co_filename).relative_to(_ROOT).as_posix()
        session = getattr(self._thread, "session", None)
        if event == "call" and session is None:
            if self.on:
                self.files.add(file)
            if file == "backends/torch.py" and frame.f_code.co_name == "run":
                self._thread.session = frame
        elif event == "return" and session is frame:
            self._thread.session = None

    def install(self) -> None:
        """Trace this thread and those that it starts."""
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
    """A ConvertJob that also writes the list of files that an image passes in its worker process."""

    job: ConvertJob
    file: Path

    @property
    def cost(self) -> Any:
        return self.job.cost

    @property
    def phases(self) -> int:
        return self.job.phases

    @property
    def threads(self) -> int:
        return self.job.threads

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


def run_and_trace(plan: Plan, folder: Path, monkeypatch: Any) -> tuple[Report, list[str]]:
    """Run a plan of one image; return its report, and the files that the image passes from sample to ledger row."""
    trace, made, todo = Trace(), run.convert_job, run.todo
    monkeypatch.setattr(run, "convert_job", lambda *given: TracedJob(made(*given), folder / "worker.txt"))

    def first(*given: Any) -> Iterator[Any]:
        trace.on = True
        yield from todo(*given)

    def record(*given: Any, recorded: Any = work.record) -> Any:
        outcomes = recorded(*given)
        trace.on = False
        return outcomes

    monkeypatch.setattr(run, "todo", first)
    monkeypatch.setattr(work, "record", record)
    with _without():
        trace.install()
        report = run.run(plan, cpu_threads=1)
    assert report.counts["failed"] == 0 and report.total == 1
    return report, sorted(trace.files | set((folder / "worker.txt").read_text().splitlines()))
