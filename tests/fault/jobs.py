"""Jobs for worker processes that do nothing but what a test asks of them."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fgfast.errors import DeviceMemoryError, RecordingFailedError
from fgfast.pipeline.placement import Cost
from fgfast.runner import Failures, Finished, Handoff, WorkerSpec


class DeviceBrokenError(Exception):
    """Stands for a CUDA error."""


class FullError(Exception):
    """Stands for a full disk."""


@dataclass
class Item:
    """What to do with it: see `Act`."""

    number: int
    act: str = ""
    note: str = ""
    phases: list[str] = field(default_factory=list)


@dataclass
class Act:
    """Does to its process what the item says."""

    folder: Path
    name: str = "act"
    seconds: float = 0.0
    breaks: bool = False

    def __call__(self, item: Item) -> Iterator[None] | None:
        if item.act.startswith("long"):
            return self._long(item)
        time.sleep(self.seconds)
        if self.breaks:
            raise DeviceBrokenError("CUDA error: unspecified launch failure")
        first = not (self.folder / f"seen-{item.number}").exists()
        if item.act:
            (self.folder / f"seen-{item.number}").touch()
        once = item.act.endswith(" once")
        act = item.act.removesuffix(" once")
        if once and not first:
            return None
        if act == "segfault":
            ctypes.string_at(0)  # a real one, in this very thread
        elif act == "hang":
            time.sleep(1000)
        elif act == "break":
            raise DeviceBrokenError("CUDA error: an illegal memory access was encountered")
        elif act in ("unsendable", "unreadable"):
            item.note = act
        elif act == "full":
            raise FullError("no space left")
        elif act == "fail":
            raise ValueError(f"item {item.number} cannot be done")
        return None

    def _long(self, item: Item) -> Iterator[None]:
        """Take three seconds, with a sign of life five times a second, or without any."""
        for _ in range(15):
            time.sleep(0.2)
            if item.act == "long":
                yield


class Crossing(tuple[Any, ...]):
    """A result that cannot be pickled, or cannot be read back."""

    def __new__(cls, number: int, act: str) -> Crossing:
        made = super().__new__(cls, (number, "done", ()))
        made.act = act  # type: ignore[attr-defined]
        return made

    def __reduce__(self) -> Any:
        if self.act == "unsendable":  # type: ignore[attr-defined]
            raise TypeError("unsendable")
        return _fail_to_read, ()


def _fail_to_read() -> None:
    raise RuntimeError("unreadable")


@dataclass
class Runtime:
    stages: list[Any]
    last: bool
    threads: int = 2
    failures: Failures = field(default_factory=lambda: Failures(fatal=(FullError,), broken=(DeviceBrokenError,)))
    facts: dict[str, Any] = field(default_factory=lambda: {"pid": os.getpid()})

    def result_of(self, finished: Finished[Item]) -> Any:
        if not self.last and finished.error is None:
            return Handoff(finished.item)
        if finished.item.note:
            return Crossing(finished.item.number, finished.item.note)
        how = f"{type(finished.error).__name__}: {finished.error}" if finished.error else "done"
        return finished.item.number, how, tuple(finished.item.phases)


@dataclass
class Phase:
    """Notes which worker did a phase of an item."""

    phase: int
    worker: str
    name: str = "phase"

    def __call__(self, item: Item) -> None:
        if len(item.phases) <= self.phase:
            item.phases.append(f"{self.worker}/{self.phase}")


@dataclass
class TestJob:
    """Opens everywhere but on devices named in `unable`, and there no more once `after` exists.

    `records` is the number of graphs that cannot be recorded, each of which ends one process of a device.
    """

    __test__ = False

    folder: Path
    phases: int = 1
    seconds: float = 0.0
    threads: int = 2
    unable: tuple[str, ...] = ()
    breaks: tuple[str, ...] = ()
    slow_again: float = 0.0
    refuse: bool = False
    records: int = 0

    def open(self, spec: WorkerSpec) -> Runtime:
        if self.refuse:
            raise FullError("refused")
        if self.records:
            failed = len(list(self.folder.glob(f"recording {spec.device} *")))
            if failed < self.records:
                (self.folder / f"recording {spec.device} {failed}").touch()
                raise RecordingFailedError(f"graph {failed} cannot be recorded")
        if spec.device in self.unable and (self.folder / f"dead {spec.device}").exists():
            os._exit(9)
        if (self.folder / f"dead {spec.device}").exists():
            time.sleep(self.slow_again)
        (self.folder / f"dead {spec.device}").touch()
        first, end = spec.phases
        stages: list[Any] = [Phase(phase, spec.name) for phase in range(first, end)]
        if end == self.phases:
            stages.append(Act(self.folder, seconds=self.seconds, breaks=spec.device in self.breaks))
        return Runtime(stages, end == self.phases, self.threads)


def quarantined(item: Item, reason: str, detail: str) -> tuple[int, str, tuple[str, ...]]:
    """What the tests' supervisors make of an item that is quarantined."""
    return item.number, f"quarantined: {reason}: {detail}", ()


@dataclass(frozen=True)
class PlacedJob:
    """A job of two phases on devices that take a given time; on some both phases do not fit."""

    costs: dict[str, tuple[float, float]]
    small: tuple[str, ...] = ()
    measure: bool = False
    phases: int = 2
    threads: int = 4
    held: float = 0.0
    memory: tuple[int, int] = (90, 100)
    room: int = 9

    @property
    def cost(self) -> Cost:
        return Cost(1.0, 1.0)

    def open(self, spec: WorkerSpec) -> Runtime:
        if int(spec.name.partition("#")[2] or 1) > self.room:
            raise DeviceMemoryError(f"{spec.device} holds {self.room} workers")
        if spec.device in self.small and spec.phases == (0, 2):
            raise DeviceMemoryError(f"{spec.device} holds one model only")
        first, end = spec.phases
        detect, encode = self.costs[spec.device]
        facts = {"seconds": {"detect": detect, "encode": encode}} if self.measure else {}
        if self.measure and self.held:
            facts |= {"held": self.held, "memory": self.memory}
        return Runtime([Phase(phase, spec.name) for phase in range(first, end)], end == 2, facts=facts)
