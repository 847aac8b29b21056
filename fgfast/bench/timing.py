"""Timing in turns, so that other load on the machine affects all contenders alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

# The least seconds of one timing: a hundred thousand times the resolution of the clock, and longer than a time slice of
# the scheduler.
_LEAST = 0.01
_MOST_CALLS = 2000


def in_turns(contenders: Mapping[str, Callable[[], Any]], rounds: int, least: float = _LEAST) -> dict[str, list[float]]:
    """Time each contender once per round; return its seconds per call in each round.

    Args:
        contenders: what to time, by name.
        rounds: the number of rounds.
        least: the least seconds of one timing; quick contenders are called several times.
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


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let OpenCV and, if it is installed, PyTorch use `count` threads while the block runs."""
    import cv2

    limits = [(cv2.getNumThreads(), cv2.setNumThreads)]
    if find_spec("torch"):
        import torch

        limits.append((torch.get_num_threads(), torch.set_num_threads))
    for _, limit in limits:
        limit(count)
    try:
        yield
    finally:
        for before, limit in limits:
            limit(before)
