"""What the runner runs: steps for one item on a thread of the pool, and batched stages for many items on a device."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")
Item = TypeVar("Item", contravariant=True)


class Step(Protocol[Item]):
    """Work on one item. Called from several threads at once; writes its result into the item."""

    @property
    def name(self) -> str: ...

    def __call__(self, item: Item, /) -> None: ...


class Batched(Protocol[Item]):
    """Work on many items at once, on a device.

    A slot holds the buffers of one batch and whatever queue the device has for it. The stage makes slots, the runner
    keeps a ring of them and hands each around: its rows are filled by threads of the pool, the device's own thread
    launches it, and when the device is through, threads of the pool read its rows.

    Attributes:
        name: of the stage.
        device: what it occupies; stages of one device take turns.
        batch: most rows of any slot.
        depth: batches that may be queued on the device at a time; 1 where launching means computing.
    """

    @property
    def name(self) -> str: ...

    @property
    def device(self) -> str: ...

    @property
    def batch(self) -> int: ...

    @property
    def depth(self) -> int: ...

    def wants(self, item: Item, /) -> bool:
        """Whether it has anything to do with an item; what it does not want goes past it."""

    def bucket(self, item: Item, /) -> Hashable:
        """Items of one bucket can share a batch."""

    def rows(self, bucket: Any, /) -> int:
        """Rows that a slot of this bucket has, at most `batch`."""

    def slot(self, bucket: Any, /) -> Any:
        """A new slot with all its buffers, to be used again and again."""

    def fill(self, slot: Any, row: int, item: Item, /) -> None:
        """Write an item into its row. Called for several rows at once."""

    def launch(self, slot: Any, rows: int, /) -> None:
        """Queue the first `rows` rows on the device. A row may hold what an earlier batch left there."""

    def wait(self, slot: Any, /) -> None:
        """Return when the results of the slot can be read."""

    def read(self, slot: Any, row: int, item: Item, /) -> None:
        """Write the result of a row into its item."""


Stage = Step[Item] | Batched[Item]


def is_batched(stage: object) -> bool:
    """Whether a stage works on batches."""
    return hasattr(stage, "launch")


@dataclass(slots=True)
class Finished(Generic[T]):
    """An item that needs no more work.

    Attributes:
        item: the item.
        stage: name of the last stage it entered.
        error: what that stage raised, or None when all went well.
        seconds: stage name -> seconds spent; of a batch the item's share.
    """

    item: T
    stage: str = ""
    error: Exception | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def spend(self, stage: str, seconds: float) -> None:
        """Add time spent in a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


@dataclass(frozen=True, slots=True)
class Event:
    """One piece of work of one stage, for those who measure.

    Attributes:
        stage: its name; "NAME.fill" is the preparation of a batched one, "NAME.after" reading what came of it.
        seat: the worker process, "cpu", "cuda:0"; empty for the parent's own work.
        thread: "pool-0", ..., or "device".
        start, end: seconds of time.monotonic(), one clock for all processes of a machine.
        items: items in it.
        waiting: items that waited for this stage when it began.
    """

    stage: str
    seat: str
    thread: str
    start: float
    end: float
    items: int
    waiting: int


Watch = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Failures:
    """Which exceptions mean more than that an item failed.

    Attributes:
        fatal: nothing more can be done at all (the disk is full): the run ends after draining.
        memory: a batch was too large for its device: it is halved.
        broken: the device or the process is beyond repair: a worker process ends, and what it held is tried again.
    """

    fatal: tuple[type[Exception], ...] = ()
    memory: tuple[type[Exception], ...] = ()
    broken: tuple[type[Exception], ...] = ()
