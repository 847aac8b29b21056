"""What each step of an image costs on this machine: the share of its CPU time in which it holds the GIL.

Its CPU time is measured in a run (`StepTimes` in simulate_job.py).

While one thread does the step, another one counts in Python, which it can only while it has the GIL. In every gap
between two counts in which it was put to sleep (a voluntary context switch: it waited for the GIL, and was not merely
interrupted by another process), the CPU time that the step spends counts as held. Waking up takes the counting thread
some microseconds, in which the step may be on without the GIL: what a gap holds where the work needs no GIL (SHA-256)
is taken off every gap. The median of several rounds is quoted.
"""

from __future__ import annotations

import hashlib
import itertools
import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from typing import Any

from fgfast.bench.simulate_job import STEPS, TracedWork, step_name
from fgfast.pipeline.work import Work
from fgfast.runner import BatchedStage, Stage, Step

# Seconds after which a thread that computes in Python lets another one run, as in a worker with a GPU
# (fgfast.runner.worker).
_SWITCH = 0.001
# How often each step is done, after a few times to warm up.
TIMES = 24
_WARM_UP = 3
# Rounds of which the median counts.
_ROUNDS = 6
# Seconds between two counts from which they have a gap: several times what a count takes.
_GAP = 5e-6
# The longest time, in seconds, that waking up takes an idle core.
_WAKING = 1e-4
# Work that needs no GIL: the bytes of one SHA-256, half a millisecond of it, and how many.
_FREE_BYTES, _FREE_TIMES = 1 << 20, 100

Call = Callable[[], object]


def measure(stages: Sequence[Stage[Work]], works: Sequence[TracedWork], times: int = TIMES) -> dict[str, float]:
    """Measure the share of every step's CPU time in which it holds the GIL.

    Args:
        stages: all stages of an image, with models that sleep.
        works: fresh works; they have gone through all stages afterwards. Several images, so that the median counts.
        times: how often each step is done.
    """
    return {name: share_held(calls, times) for name, calls in _calls(stages, works)}


def share_held(calls: Sequence[Call], times: int = TIMES) -> float:
    """Return the share, 0..1, of the CPU time of a call in which it holds the GIL; the calls may be repeated."""
    for call in itertools.islice(itertools.cycle(calls), _WARM_UP):
        call()
    seconds = []
    for call in itertools.islice(itertools.cycle(calls), times):
        start = time.thread_time()
        call()
        seconds.append(time.thread_time() - start)
    cpu = statistics.median(seconds)
    return min(1.0, _held(calls, times) / cpu) if cpu else 0.0


def _calls(stages: Sequence[Stage[Work]], works: Sequence[Work]) -> Iterator[tuple[str, list[Call]]]:
    """Yield the name and the calls of each step; what comes before it has been done when it is yielded."""
    for stage in stages:
        if not isinstance(stage, BatchedStage):
            name = step_name(stage)
            assert name in STEPS, name
            yield name, [partial(_step, stage, _copy(work)) for work in works]
            for work in works:
                stage(work)
            continue
        model: Any = stage.model
        inputs = [stage.inputs(work) for work in works]
        slots = [model.slot(model.bucket(*given)) for given in inputs]
        pairs = list(zip(slots, inputs, strict=True))
        yield f"{stage.name}.fill", [partial(model.fill, slot, 0, *given) for slot, given in pairs]
        yield f"{stage.name}.after", [partial(model.read, slot, 0) for slot in slots]
        for work, slot in zip(works, slots, strict=True):
            stage.store(work, model.read(slot, 0))


def _step(step: Step[Work], work: Work) -> None:
    step(_copy(work))


def _copy(work: Work) -> Work:
    """Return a work that another thread may change at the same time."""
    return replace(work, flags=[], temp_files=[], files={})


def _held(calls: Sequence[Call], times: int) -> float:
    """Return the CPU seconds per call that a step spends with the GIL."""
    found = []
    with _switching(_SWITCH):
        for first in range(0, times, max(1, times // _ROUNDS)):
            turns = list(itertools.islice(itertools.cycle(calls), first, first + max(1, times // _ROUNDS)))
            gaps = _gaps(turns)
            found.append(sum(max(0.0, seconds - _per_gap()) for seconds in gaps) / len(turns))
    return statistics.median(found)


@cache
def _per_gap() -> float:
    """Return the CPU seconds that a gap seems to hold where a step needs the GIL for next to nothing."""
    data = bytes(_FREE_BYTES)
    found = [seconds for seconds in _gaps([partial(hashlib.sha256, data)] * _FREE_TIMES) if seconds]
    return min(_WAKING, statistics.median(found or [0.0]))


def _gaps(calls: Sequence[Call]) -> list[float]:
    """Count in the calling thread while another one works.

    Returns:
        Of every gap between two counts, the CPU seconds that the other thread spent meanwhile.
    """
    begin, done, end = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begin.wait()
        try:
            for call in calls:
                call()
        finally:
            done.set()
            end.wait()  # its clock ends with it

    thread = threading.Thread(target=work)
    thread.start()
    assert thread.ident is not None
    clock, cpu_clock, cpu_of = time.perf_counter, time.pthread_getcpuclockid(thread.ident), time.clock_gettime
    gaps, slept = [], _sleeps()
    begin.set()
    last, cpu = clock(), cpu_of(cpu_clock)
    while not done.is_set():
        now, then = clock(), cpu_of(cpu_clock)
        if now - last > _GAP and (sleeps := _sleeps()) > slept:
            gaps.append(then - cpu)
            slept = sleeps
        last, cpu = now, then
    end.set()
    thread.join()
    return gaps


def _sleeps() -> int:
    """Return how often the calling thread has given up its core to wait."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


@contextmanager
def _switching(seconds: float) -> Iterator[None]:
    """Let threads that compute in Python take turns after so many seconds, as in a worker with a GPU."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
