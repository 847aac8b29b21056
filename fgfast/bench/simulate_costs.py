"""What each step of an image costs on this machine: CPU time, and the part of it in which it holds the GIL.

CPU time: as many threads as the machine has cores each take images through all steps, as in a run, because cores share
caches and memory; the median of what the system counts for a step's thread is quoted (time.thread_time, which leaves
out waiting).

GIL: while one thread does the step, another one counts in Python, which it can only while it has the GIL. In every gap
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from typing import Any

from fgfast.bench.simulate_clock import Cost
from fgfast.bench.simulate_job import STEPS, TracedWork
from fgfast.machine import available_cores
from fgfast.pipeline.work import Work
from fgfast.runner import BatchedStage, Stage, Step

# Seconds after which a thread that computes in Python lets another one run, as in a worker with a GPU
# (fgfast.runner.worker).
_SWITCH = 0.001
# How often each step is done per thread, after a few times to warm up.
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


def measure(stages: Sequence[Stage[Work]], works: Sequence[TracedWork], times: int = TIMES) -> dict[str, Cost]:
    """Measure the cost of every step.

    Args:
        stages: all stages of an image, with models that sleep.
        works: fresh works; they have gone through all stages afterwards. Several images, so that the median counts.
        times: how often each step is done per thread.
    """
    return costs_of(dict(_calls(stages, works)), times)


def costs_of(steps: Mapping[str, Sequence[Call]], times: int = TIMES) -> dict[str, Cost]:
    """Return what a call of each step costs.

    Args:
        steps: step -> a call per image, which may be repeated.
        times: how often each step is done per thread.
    """
    images = [dict(zip(steps, calls, strict=True)) for calls in zip(*steps.values(), strict=True)]
    for image in itertools.islice(itertools.cycle(images), _WARM_UP):
        for call in image.values():
            call()
    cpu = _cpu_times(images, times)
    return {name: Cost(cpu[name], min(cpu[name], _held(calls, times))) for name, calls in steps.items()}


def _calls(stages: Sequence[Stage[Work]], works: Sequence[Work]) -> Iterator[tuple[str, list[Call]]]:
    """Yield the name and the calls of each step; what comes before it has been done when it is yielded."""
    for stage in stages:
        if not isinstance(stage, BatchedStage):
            name = "detect.choose" if stage.name == "detect" else stage.name
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


def _cpu_times(images: Sequence[Mapping[str, Call]], times: int) -> dict[str, float]:
    """Return the median CPU seconds of each step while every core takes images through all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in images[0]}

    def work(first: int) -> None:
        for image in itertools.islice(itertools.cycle(images), first, first + times):
            for name, call in image.items():
                start = time.thread_time()
                call()
                seconds[name].append(time.thread_time() - start)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(available_cores())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {name: statistics.median(found) for name, found in seconds.items()}


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
