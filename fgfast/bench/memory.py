"""Peak memory of a run with all its processes, sampled by psutil, and of GPUs, sampled by nvidia-smi."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

import psutil

from fgfast.bench.stamp import query_gpus

# Seconds between two samples. A peak lasts as long as a batch, and one sample takes about a millisecond.
_INTERVAL = 0.1
# Seconds in which a child has called exec, also on a busy machine.
_STARTING = 5.0
# nvidia-smi alone takes a tenth of a second.
_GPU_INTERVAL = 2.0


class PeakMemory:
    """Samples the memory of this process and its descendants while the block runs.

    Attributes:
        mib: the peak of `memory_mib`, in MiB.
        gpu_mib: the peak of each GPU's used memory minus what was used before, in MiB.
    """

    def __init__(self) -> None:
        self.mib = 0.0
        self.gpu_mib: list[float] = []
        self._stop = threading.Event()

    def __enter__(self) -> PeakMemory:
        self._before = gpu_memory()
        self.gpu_mib = [0.0] * len(self._before)
        samplers = [(self._sample, _INTERVAL)] + ([(self._sample_gpus, _GPU_INTERVAL)] if self._before else [])
        self._threads = [threading.Thread(target=self._repeat, args=how, daemon=True) for how in samplers]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, sample: Callable[[], None], interval: float) -> None:
        sample()
        while not self._stop.wait(interval):
            sample()

    def _sample(self) -> None:
        self.mib = max(self.mib, memory_mib())

    def _sample_gpus(self) -> None:
        used = zip(self.gpu_mib, gpu_memory(), self._before, strict=False)
        self.gpu_mib = [max(peak, now - before) for peak, now, before in used]


def gpu_memory() -> list[float]:
    """Return the MiB in use on each GPU, by any process."""
    return [float(row[0].split()[0]) for row in query_gpus("memory.used")]


def memory_mib() -> float:
    """Return the MiB private to this process and its descendants, plus the largest part that one of them shares."""
    root = psutil.Process()
    own, shared = 0, 0
    for process in (root, *root.children(recursive=True)):
        with suppress(psutil.Error):  # the process may have ended
            if process != root and _before_exec(process):
                continue
            memory = process.memory_info()
            part = getattr(memory, "shared", 0)  # reported by Linux only
            own += memory.rss - part
            shared = max(shared, part)
    return (own + shared) / 2**20


def _before_exec(child: psutil.Process) -> bool:
    """Whether the process still is a copy of its parent, whose command line and memory it then shows as its own."""
    parent = child.parent() if time.time() - child.create_time() < _STARTING else None
    return parent is not None and child.cmdline() == parent.cmdline()
