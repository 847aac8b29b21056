"""Peak memory of a run with all its processes, sampled from /proc; of GPUs from nvidia-smi."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

from fgfast.bench.stamp import ask_gpus

# Seconds between two samples: a peak lasts as long as a batch, and one sample takes about a millisecond.
_EVERY = 0.1
# nvidia-smi takes a tenth of a second itself.
_EVERY_GPU = 2.0
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


class PeakMemory:
    """Watches this process and its descendants while the block runs.

    Attributes:
        mib: the largest sum of what each has for itself, plus the largest of what one shares with others, in MiB; 0
            where there is no /proc.
        gpu_mib: the largest of each GPU's used memory, less what was used before, in MiB.
    """

    def __init__(self) -> None:
        self.mib = 0.0
        self.gpu_mib: list[float] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._watch, daemon=True)]

    def __enter__(self) -> PeakMemory:
        self._before = gpu_memory()
        if self._before:
            self.gpu_mib = [0.0] * len(self._before)
            self._threads.append(threading.Thread(target=self._watch_gpus, daemon=True))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _watch(self) -> None:
        while True:
            self.mib = max(self.mib, memory_of(family(os.getpid())))
            if self._stop.wait(_EVERY):
                return

    def _watch_gpus(self) -> None:
        while True:
            used = zip(gpu_memory(), self._before, strict=False)
            self.gpu_mib = [max(peak, now - before) for peak, (now, before) in zip(self.gpu_mib, used, strict=False)]
            if self._stop.wait(_EVERY_GPU):
                return


def gpu_memory() -> list[float]:
    """MiB in use on each GPU, by whomever."""
    return [float(row[0].split()[0]) for row in ask_gpus("memory.used")]


def memory_of(processes: list[int]) -> float:
    """MiB that processes have for themselves, and once the largest part that one of them shares."""
    own, shared = 0, 0
    for process in processes:
        with suppress(OSError, ValueError, IndexError):  # it may have ended
            fields = Path(f"/proc/{process}/statm").read_text().split()
            own += int(fields[1]) - int(fields[2])
            shared = max(shared, int(fields[2]))
    return (own + shared) * _PAGE / 2**20


def family(root: int) -> list[int]:
    """A process and all its descendants."""
    children = defaultdict(list)
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):  # it may have ended
            # The name, in brackets, may hold anything.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            children[int(fields[1])].append(int(folder.name))
    found = [root]
    for process in found:
        found += children[process]
    return found
