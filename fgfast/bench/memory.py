"""Peak memory of a run with all its processes, sampled by psutil, and of GPUs, sampled by nvidia-smi."""

from __future__ import annotations

import threading
from contextlib import suppress

import psutil

from fgfast.bench.stamp import ask_gpus

# Seconds between two samples. A peak lasts as long as a batch, and one sample takes about a millisecond.
_INTERVAL = 0.1
# nvidia-smi itself takes a tenth of a second.
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
        self._threads = [threading.Thread(target=self._sample, daemon=True)]

    def __enter__(self) -> PeakMemory:
        self._before = gpu_memory()
        if self._before:
            self.gpu_mib = [0.0] * len(self._before)
            self._threads.append(threading.Thread(target=self._sample_gpus, daemon=True))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _sample(self) -> None:
        while True:
            self.mib = max(self.mib, memory_mib())
            if self._stop.wait(_INTERVAL):
                return

    def _sample_gpus(self) -> None:
        while True:
            used = zip(gpu_memory(), self._before, strict=False)
            self.gpu_mib = [max(peak, now - before) for peak, (now, before) in zip(self.gpu_mib, used, strict=False)]
            if self._stop.wait(_GPU_INTERVAL):
                return


def gpu_memory() -> list[float]:
    """MiB in use on each GPU, by any process."""
    return [float(row[0].split()[0]) for row in ask_gpus("memory.used")]


def memory_mib() -> float:
    """MiB that this process and its descendants have for themselves, plus the largest part that one of them shares."""
    root = psutil.Process()
    own, shared = 0, 0
    for process in (root, *root.children(recursive=True)):
        with suppress(psutil.Error):  # it may have ended
            memory = process.memory_info()
            part = getattr(memory, "shared", 0)  # Linux alone counts it
            own += memory.rss - part
            shared = max(shared, part)
    return (own + shared) / 2**20
