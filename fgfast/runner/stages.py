"""What the runner runs: steps for one item on a thread of the pool, batched stages for many items on a device, and the
items in flight between them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from fgfast.runner.batching import Batch

T = TypeVar("T")
Item = TypeVar("Item", contravariant=True)


class Step(Protocol[Item]):
    """Work on one item. Several threads call it concurrently; it writes its result into the item.

    A step that takes longer than a worker may be silent for returns an iterator, or is a generator: each thing that it
    yields is a sign of life, and a place to end where the run is stopped; the item then has no result.
    """

    @property
    def name(self) -> str: ...

    def __call__(self, item: Item, /) -> Iterator[object] | None: ...


class SlotModel(Protocol):
    """A model that computes batches on a device, in slots.

    A slot holds the buffers of one batch, and its queue on the device where there is one. The model creates slots; the
    runner keeps a ring of them: threads of the pool fill a slot's rows, the device's own thread launches it, and once
    the device has finished, threads of the pool read its rows. `inputs` is what the model takes per row.

    Attributes:
        device: the device that it occupies; models on one device take turns.
        batch: the most rows of any slot.
        depth: the most batches queued on the device at a time; 1 where launching means computing.
        buckets: the number of buckets among which items are spread in any order. As many batches are open at a time,
            each with a slot.
    """

    @property
    def device(self) -> str: ...

    @property
    def batch(self) -> int: ...

    @property
    def depth(self) -> int: ...

    @property
    def buckets(self) -> int: ...

    def bucket(self, *inputs: Any) -> Any:
        """Return the bucket of these inputs, hashable; inputs of one bucket can share a batch. Any thread; quick."""

    def rows(self, bucket: Any, /) -> int:
        """Return the most rows of a batch of this bucket at present, at most `batch`."""

    def slot(self, bucket: Any, /) -> Any:
        """Create a slot with all its buffers, to be reused for many batches."""

    def fill(self, slot: Any, row: int, /, *inputs: Any) -> None:
        """Write inputs into a row. Any thread; several rows concurrently."""

    def launch(self, slot: Any, rows: int, /) -> None:
        """Queue the first `rows` rows on the device. A row may still hold the inputs of an earlier batch."""

    def wait(self, slot: Any, /) -> None:
        """Block until the results of the slot can be read."""

    def read(self, slot: Any, row: int, /) -> Any:
        """Return the result of a row. Any thread."""

    def shrink(self) -> None:
        """Use smaller shapes, where shapes are fixed, because a batch did not fit into the device's memory.

        The thread that launches batches calls it.
        """


@dataclass(frozen=True, slots=True)
class BatchedStage(Generic[T]):
    """A stage that a model on slots computes.

    Attributes:
        name: the stage's name.
        model: the model.
        inputs: item -> the model's inputs for its row.
        store: writes the result of a row into its item.
        wants: whether the stage applies to an item; other items skip it. None: it applies to all.
    """

    name: str
    model: SlotModel
    inputs: Callable[[T], tuple[Any, ...]]
    store: Callable[[T, Any], None]
    wants: Callable[[T], bool] | None = None


Stage = Step[T] | BatchedStage[T]


@dataclass(slots=True)
class Finished(Generic[T]):
    """An item that needs no more work.

    Attributes:
        item: the item.
        stage: name of the last stage it entered.
        error: what that stage raised, or None.
        seconds: stage name -> seconds spent; for a batch, the item's share.
    """

    item: T
    stage: str = ""
    error: Exception | None = None
    seconds: defaultdict[str, float] = field(default_factory=partial(defaultdict, float))


@dataclass(slots=True, eq=False)
class InFlightItem(Generic[T]):
    """An item in flight.

    Attributes:
        finished: the record to pass on when the item is finished.
        segment: number of the segment whose steps come next; batched stages separate the segments.
        alone: it was in a batch that failed, and no longer shares a batch.
        place: batch and row whose result has not been read yet.
        took: its share of that batch's time, in seconds.
    """

    finished: Finished[T]
    segment: int = 0
    alone: bool = False
    place: tuple[Batch[T], int] | None = None
    took: float = 0.0


@dataclass(frozen=True, slots=True)
class Event:
    """One piece of work of one stage, for measurements.

    Attributes:
        stage: the stage's name; "NAME.fill" prepares a batched one, "NAME.after" reads its results.
        worker: the worker process, "cpu", "cuda:0"; empty for the parent's own work.
        thread: "pool-0", ..., or "device".
        start, end: seconds of time.monotonic(), one clock for all processes of a machine.
        items: number of items.
        waiting: number of items that waited for this stage at `start`.
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
    """The exceptions that mean more than the failure of one item.

    Attributes:
        fatal: no item can be finished any more (the disk is full): the run ends after draining.
        memory: a batch is too large for its device: it is halved.
        broken: the device or the process no longer works: a worker process ends, and its in-flight items are retried.
    """

    fatal: tuple[type[Exception], ...] = ()
    memory: tuple[type[Exception], ...] = ()
    broken: tuple[type[Exception], ...] = ()
