"""What the runner runs: steps for one item on a thread of the pool, batched stages for many items on a device, and the
items on their way between them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from fgfast.runner.batching import Batch

T = TypeVar("T")
Item = TypeVar("Item", contravariant=True)


class Step(Protocol[Item]):
    """Work on one item. Several threads call it at once; it writes its result into the item."""

    @property
    def name(self) -> str: ...

    def __call__(self, item: Item, /) -> None: ...


class SlotModel(Protocol):
    """A model that computes batches on a device, in slots.

    A slot holds the buffers of one batch and whatever queue the device has for it. The model makes slots; the runner
    keeps a ring of them and hands each around: threads of the pool fill its rows, the device's own thread launches it,
    and when the device is through, threads of the pool read its rows. `inputs` is what the model takes per row.

    Attributes:
        device: what it occupies; models on one device take turns.
        batch: the most rows of any slot.
        depth: how many batches may be queued on the device at a time; 1 where launching means computing.
    """

    @property
    def device(self) -> str: ...

    @property
    def batch(self) -> int: ...

    @property
    def depth(self) -> int: ...

    def bucket(self, *inputs: Any) -> Any:
        """The bucket of these inputs, hashable; inputs of one bucket can share a batch. Any thread; quick."""

    def rows(self, bucket: Any, /) -> int:
        """How many rows a batch of this bucket may have now, at most `batch`."""

    def slot(self, bucket: Any, /) -> Any:
        """A new slot with all its buffers, which is used again and again."""

    def fill(self, slot: Any, row: int, /, *inputs: Any) -> None:
        """Write inputs into a row. Any thread; several rows at once."""

    def launch(self, slot: Any, rows: int, /) -> None:
        """Queue the first `rows` rows on the device. A row may hold what an earlier batch left there."""

    def wait(self, slot: Any, /) -> None:
        """Return when the results of the slot can be read."""

    def read(self, slot: Any, row: int, /) -> Any:
        """The result of a row. Any thread."""

    def shrink(self) -> None:
        """A batch did not fit into the device's memory: where shapes are fixed, go on with smaller ones.

        The thread that launches calls it.
        """


def _always(item: Any) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class BatchedStage(Generic[T]):
    """A stage that a model on slots carries out.

    Attributes:
        name: the stage's name.
        model: what computes it.
        inputs: item -> what the model takes per row.
        store: writes the result of a row into its item.
        wants: whether the stage has anything to do with an item; it passes by what it does not want.
    """

    name: str
    model: SlotModel
    inputs: Callable[[T], tuple[Any, ...]]
    store: Callable[[T, Any], None]
    wants: Callable[[T], bool] = _always

    def bucket(self, item: T) -> Hashable:
        """The bucket of an item; items of one bucket can share a batch."""
        found: Hashable = self.model.bucket(*self.inputs(item))
        return found


Stage = Step[T] | BatchedStage[T]


@dataclass(slots=True)
class Finished(Generic[T]):
    """An item that needs no more work.

    Attributes:
        item: the item.
        stage: name of the last stage it entered.
        error: what that stage raised, or None when all went well.
        seconds: stage name -> seconds spent; of a batch, the item's share.
    """

    item: T
    stage: str = ""
    error: Exception | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def spend(self, stage: str, seconds: float) -> None:
        """Add time spent in a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


@dataclass(slots=True, eq=False)
class InFlightItem(Generic[T]):
    """An item on its way.

    Attributes:
        finished: what will be handed out.
        segment: number of the segment whose steps come next; segments lie between batched stages.
        alone: it was in a batch that failed, and shares no batch any more.
        place: batch and row whose result has not been read yet.
        took: seconds of its share of that batch.
    """

    finished: Finished[T]
    segment: int = 0
    alone: bool = False
    place: tuple[Batch[T], int] | None = None
    took: float = 0.0


class Positions:
    """How many items are in which segment. Every change of an item's segment goes through it, under the flow's lock.

    Args:
        segments: how many there are; ring `n` lies behind segment `n`.
    """

    def __init__(self, segments: int) -> None:
        self._at = [0] * segments

    def count(self) -> int:
        """How many items are in flight."""
        return sum(self._at)

    def enter(self) -> None:
        """A new item is in the first segment."""
        self._at[0] += 1

    def move(self, item: InFlightItem[Any], segment: int) -> None:
        """An item goes on to a segment, or back to one."""
        self._at[item.segment] -= 1
        item.segment = segment
        self._at[segment] += 1

    def leave(self, item: InFlightItem[Any]) -> None:
        """An item is in flight no more."""
        self._at[item.segment] -= 1

    def may_reach(self, ring: int) -> bool:
        """Whether any item in flight may still come to a ring."""
        return any(self._at[: ring + 1])


@dataclass(frozen=True, slots=True)
class Event:
    """One piece of work of one stage, for measurements.

    Attributes:
        stage: its name; "NAME.fill" prepares a batched one, "NAME.after" reads its results.
        worker: the worker process, "cpu", "cuda:0"; empty for the parent's own work.
        thread: "pool-0", ..., or "device".
        start, end: seconds of time.monotonic(), one clock for all processes of a machine.
        items: items in it.
        waiting: items that waited for this stage when it began.
    """

    stage: str
    worker: str
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
        broken: the device or the process is beyond repair: a worker process ends, and its in-flight items are retried.
    """

    fatal: tuple[type[Exception], ...] = ()
    memory: tuple[type[Exception], ...] = ()
    broken: tuple[type[Exception], ...] = ()
