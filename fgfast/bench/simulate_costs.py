"""What each step of an image costs on this machine: the share of its time in which it holds the GIL.

Its CPU time is measured in a run (`StepTimes` in simulate_job.py).

While one thread does the step again and again, another one sleeps for short times of random length, and wants the GIL
at the end of each. How often it has to wait for it (a voluntary context switch beside that of its sleep) is the share
of the time in which the step holds it. Whoever waits for the GIL all the time measures too much: waking up takes some
50 us, and what a step computes without the GIL for less than that, nobody else can use. Such gaps would count as held,
though only who waits just then is hindered.
"""

from __future__ import annotations

import itertools
import random
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from fgfast.bench.simulate_job import STEPS, TracedWork, step_name
from fgfast.pipeline.work import Work
from fgfast.runner import BatchedStage, Stage, Step

# Seconds after which a thread that computes in Python lets another one run, as in a worker with a GPU
# (fgfast.runner.worker).
_SWITCH = 0.001
# How often the GIL is wanted: the share is then known to 3 in 100.
TIMES = 200
_WARM_UP = 3
# The least and the longest sleep in between, in seconds: it falls in step with nothing, and is long beside the time in
# which a step that had to give the GIL up wakes again.
_LEAST, _MOST = 5e-4, 2.5e-3

Call = Callable[[], object]


def measure(stages: Sequence[Stage[Work]], works: Sequence[TracedWork], times: int = TIMES) -> dict[str, float]:
    """Measure the share of every step's time in which it holds the GIL.

    Args:
        stages: all stages of an image, with models that sleep.
        works: fresh works; they have gone through all stages afterwards. Several images, so that their mean counts.
        times: how often the GIL is wanted during each step.
    """
    return {name: share_held(calls, times) for name, calls in _calls(stages, works)}


def share_held(calls: Sequence[Call], times: int = TIMES) -> float:
    """Return the share, 0..1, of the time of a call in which it holds the GIL; the calls may be repeated.

    Raises:
        Exception: whatever a call raises.
    """
    for call in itertools.islice(itertools.cycle(calls), _WARM_UP):
        call()
    begun, enough = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            begun.set()
            for call in itertools.cycle(calls):
                if enough.is_set():
                    return
                call()
        except BaseException as error:  # handed to the calling thread
            errors.append(error)

    thread = threading.Thread(target=work)
    numbers = random.Random(0)
    with _switching(_SWITCH):
        thread.start()
        begun.wait()
        waited = sum(_waits(numbers.uniform(_LEAST, _MOST)) for _ in range(times))
        enough.set()
        thread.join()
    if errors:
        raise errors[0]
    return waited / times


def _waits(seconds: float) -> bool:
    """Sleep; return whether the calling thread then had to wait for the GIL."""
    before = _sleeps()
    time.sleep(seconds)
    return _sleeps() - before > 1


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
