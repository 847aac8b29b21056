"""What each step of an image costs on this machine: CPU time, and the part of it in which it holds the GIL.

CPU time: as many threads as the machine has cores do the same step at once, because cores share caches and memory; the
median of what the system counts for the thread is quoted (time.thread_time, which leaves out waiting).

GIL: while one thread does the step, another counts in Python, which it can only while it has the GIL, and adds up the
gaps between two counts. A gap lasts from where the step gets the GIL until it lets it go. Since the step has to ask
for the GIL whenever it comes back to Python, the gaps include what one hand-over costs in a run with several threads.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from fgfast.bench.simulate_clock import SLICE, Cost
from fgfast.bench.simulate_job import STEPS, TracedWork
from fgfast.machine import available_cores
from fgfast.pipeline.work import Work
from fgfast.runner import BatchedStage, Stage, Step

# How often each step is done per thread, after a few times to warm up.
TIMES = 24
_WARM_UP = 3
# Seconds between two counts from which they have a gap: thirty times what a count takes.
_GAP = 3e-6
# Seconds for which the gaps that have other causes are counted.
_QUIET = 0.1

Call = Callable[[], object]


def measure(stages: Sequence[Stage[Work]], works: Sequence[TracedWork], times: int = TIMES) -> dict[str, Cost]:
    """Measure the cost of every step.

    Args:
        stages: all stages of an image, with models that sleep.
        works: fresh works; they have gone through all stages afterwards. Several images, so that the median counts.
        times: how often each step is done per thread.
    """
    found: dict[str, Cost] = {}
    for name, calls in _calls(stages, works):
        assert name in STEPS, name
        found[name] = cost_of(calls, times)
    return found


def cost_of(calls: Sequence[Call], times: int = TIMES) -> Cost:
    """Return the cost of one call; the calls, which may be repeated, take turns."""
    for call in itertools.islice(itertools.cycle(calls), _WARM_UP):
        call()
    cpu = _cpu_time(calls, times)
    return Cost(cpu, min(cpu, _held(calls, times)))


def _calls(stages: Sequence[Stage[Work]], works: Sequence[Work]) -> Iterator[tuple[str, list[Call]]]:
    """Yield the name and the calls of each step; what comes before it has been done when it is yielded."""
    for stage in stages:
        if not isinstance(stage, BatchedStage):
            name = "detect.choose" if stage.name == "detect" else stage.name
            yield name, [partial(_step, stage, work) for work in works]
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


def _cpu_time(calls: Sequence[Call], times: int) -> float:
    """Return the median CPU seconds of a call while every core does the same."""
    seconds: list[float] = []

    def work(first: int) -> None:
        for call in itertools.islice(itertools.cycle(calls), first, first + times):
            start = time.thread_time()
            call()
            seconds.append(time.thread_time() - start)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(available_cores())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statistics.median(seconds)


def _held(calls: Sequence[Call], times: int) -> float:
    """Return the seconds per call in which the GIL is not to be had."""
    with _switching(SLICE):
        start = time.perf_counter()
        other = _gaps(lambda: time.sleep(_QUIET)) / (time.perf_counter() - start)
        turns = itertools.islice(itertools.cycle(calls), times)
        start = time.perf_counter()
        gaps = _gaps(lambda: [call() for call in turns])
        seconds = time.perf_counter() - start
    return max(0.0, gaps - other * seconds) / times


def _gaps(work: Call) -> float:
    """Return the sum of the seconds in which the calling thread could not count while another one works."""
    thread = threading.Thread(target=work)
    thread.start()
    clock, alive, gaps = time.perf_counter, thread.is_alive, 0.0
    last = clock()
    while alive():
        now = clock()
        if now - last > _GAP:
            gaps += now - last
        last = now
    thread.join()
    return gaps


@contextmanager
def _switching(seconds: float) -> Iterator[None]:
    """Let threads that compute in Python take turns after so many seconds, as in a worker with a GPU."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
