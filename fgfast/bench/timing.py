"""Timing in turns, so that other load on the machine affects all contenders alike."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

# The least seconds of one timing: a hundred thousand times the resolution of the clock, and longer than a time slice of
# the scheduler.
_LEAST = 0.01
_MOST_CALLS = 2000


def in_turns(contenders: Mapping[str, Callable[[], Any]], rounds: int, least: float = _LEAST) -> dict[str, list[float]]:
    """Time each contender in each round; return the seconds of one call. Quick ones are called several times per round.

    Args:
        contenders: what to time, by name.
        rounds: how often each has its turn.
        least: the least seconds of one timing.
    """
    calls = {}
    for name, call in contenders.items():
        start = time.perf_counter()
        call()
        calls[name] = max(1, min(_MOST_CALLS, round(least / max(time.perf_counter() - start, 1e-9))))
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            start = time.perf_counter()
            for _ in range(calls[name]):
                call()
            seconds[name].append((time.perf_counter() - start) / calls[name])
    return seconds


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Let OpenCV and, where it is installed, PyTorch use `count` threads while the block runs."""
    import cv2

    with contextlib.suppress(ImportError):
        import torch

        before_torch = torch.get_num_threads()
        torch.set_num_threads(count)
    before = cv2.getNumThreads()
    cv2.setNumThreads(count)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
        with contextlib.suppress(ImportError):
            import torch

            torch.set_num_threads(before_torch)
