"""Batched stages in a flow: full batches, time limits, buckets, halving, retries, stopping."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from fgfast.runner import BatchedStage, Event, Failures, Finished, run, warm_up


class TooLargeError(Exception):
    """Stands for a device out of memory."""


class BrokenError(Exception):
    """Stands for a device beyond repair."""


@dataclass
class Item:
    number: int
    bucket: int = 0
    found: dict[str, int] = field(default_factory=dict)


@dataclass
class Model:
    """Gives every item its own number back, by way of the slot."""

    name: str = "model"
    device: str = "fake:0"
    batch: int = 4
    depth: int = 2
    buckets: int = 1
    seconds: float = 0.0
    fits: int = 1000
    bad: tuple[int, ...] = ()
    unfillable: tuple[int, ...] = ()
    broken: tuple[int, ...] = ()
    skips: tuple[int, ...] = ()
    slots: int = 0
    launches: list[list[int]] = field(default_factory=list)
    busy: int = 0
    most: int = 0

    def wants(self, item: Item) -> bool:
        return item.number not in self.skips

    def bucket(self, item: Item) -> int:
        return item.bucket

    def rows(self, bucket: int) -> int:
        return self.batch

    def slot(self, bucket: int) -> dict[str, Any]:
        self.slots += 1
        return {"bucket": bucket, "rows": [-1] * self.batch, "out": []}

    def fill(self, slot: dict[str, Any], row: int, item: Item) -> None:
        assert slot["bucket"] == item.bucket
        if item.number in self.unfillable:
            raise ValueError(f"{item.number} does not fit into its row")
        slot["rows"][row] = item.number

    def launch(self, slot: dict[str, Any], rows: int) -> None:
        numbers = slot["rows"][:rows]
        self.busy += 1
        self.most = max(self.most, self.busy)
        self.launches.append(list(numbers))
        if rows > self.fits:
            self.busy -= 1
            raise TooLargeError(rows)
        if set(numbers) & set(self.broken):
            raise BrokenError(numbers)
        if set(numbers) & set(self.bad):
            self.busy -= 1
            raise ValueError(f"{numbers} holds a bad one")
        slot["out"] = list(numbers)

    def wait(self, slot: dict[str, Any]) -> None:
        time.sleep(self.seconds)
        self.busy -= 1

    def read(self, slot: dict[str, Any], row: int) -> int:
        number: int = slot["out"][row]
        return number

    def shrink(self) -> None:
        """Its shapes are not fixed."""


def as_stages(stages: list[Any]) -> list[Any]:
    """Models become batched stages that write what was read into the item."""

    def stage(model: Model) -> BatchedStage[Item]:
        def store(item: Item, number: int) -> None:
            item.found[model.name] = number

        return BatchedStage(model.name, model, lambda item: (item,), store, model.wants)

    return [stage(s) if isinstance(s, Model) else s for s in stages]


@dataclass
class Note:
    name: str

    def __call__(self, item: Item) -> None:
        item.found[self.name] = item.number


def through(items: Any, stages: list[Any], **options: Any) -> list[Finished[Item]]:
    finished: list[Finished[Item]] = []
    options.setdefault("stop", threading.Event())
    options.setdefault("threads", 3)
    options.setdefault("failures", Failures(memory=(TooLargeError,), broken=(BrokenError,)))
    run(items, as_stages(stages), lambda done: done, finished.extend, **options)
    return finished


def test_every_item_gets_its_own_result() -> None:
    stages = [Note("before"), Model("one"), Note("between"), Model("two", batch=3), Note("after")]
    finished = through((Item(n, n % 3) for n in range(500)), stages)
    assert sorted(f.item.number for f in finished) == list(range(500))
    names = {"before", "one", "between", "two", "after"}
    assert all(f.error is None and f.item.found == dict.fromkeys(names, f.item.number) for f in finished)
    assert all(names <= set(f.seconds) for f in finished)


def test_batches_are_full_while_items_come_and_the_rest_is_not_waited_for() -> None:
    model = Model(batch=4)
    start = time.monotonic()
    through((Item(n) for n in range(42)), [model], linger=30.0)
    assert time.monotonic() - start < 5  # the last two do not wait for the time limit
    assert sorted(map(len, model.launches)) == [2] + [4] * 10


def test_a_batch_goes_after_its_time_although_it_is_not_full() -> None:
    model, first = Model(batch=4), threading.Event()

    class Late:
        """The rest comes only once the first has come out."""

        name = "late"

        def __call__(self, item: Item) -> None:
            if item.number == 0:
                first.set()

    def items() -> Iterator[Item]:
        yield Item(0)
        yield Item(1)

    class Hold:
        name = "hold"

        def __call__(self, item: Item) -> None:
            if item.number == 1:
                assert first.wait(10), "the first never came out"

    finished = through(items(), [Hold(), model, Late()], linger=0.05)
    assert [f.error for f in finished] == [None, None]
    assert model.launches == [[0], [1]]


def test_rare_buckets_do_not_starve_and_the_ring_stays_small() -> None:
    model = Model(batch=8)
    finished = through((Item(n, n if n % 10 == 0 else -1) for n in range(400)), [model], linger=0.01)
    assert len(finished) == 400 and all(f.item.found["model"] == f.item.number for f in finished)
    assert max(map(len, model.launches)) == 8


def test_no_more_batches_are_on_a_device_than_it_may_queue() -> None:
    one, two = Model("one", depth=2, seconds=0.001), Model("two", depth=2, seconds=0.001)
    through((Item(n) for n in range(200)), [one, two])
    assert max(one.most, two.most) <= 3  # two queued, and one that is launched when the first is through


def test_a_batch_that_does_not_fit_is_halved_and_grows_back() -> None:
    model = Model(batch=8, fits=3)
    finished = through((Item(n) for n in range(400)), [model])
    assert all(f.error is None for f in finished) and len(finished) == 400
    sizes = [len(numbers) for numbers in model.launches]
    assert sizes[0] == 8
    assert max(sizes[20:]) <= 4  # it tries one more now and then
    failed = sum(size > 3 for size in sizes)
    assert failed < 20, sizes


def test_an_item_that_does_not_fit_alone_fails_alone() -> None:
    model = Model(batch=4, fits=0)
    finished = through((Item(n) for n in range(3)), [model])
    assert {type(f.error) for f in finished} == {TooLargeError}
    assert [f.stage for f in finished] == ["model"] * 3


def test_slots_for_which_there_is_no_memory_are_done_without() -> None:
    class Tight(Model):
        def slot(self, bucket: int) -> dict[str, Any]:
            if self.slots == 2:
                raise TooLargeError("no memory for a third slot")
            return super().slot(bucket)

    model = Tight(batch=2)
    finished = through((Item(n) for n in range(60)), [model])
    assert len(finished) == 60 and all(f.error is None for f in finished)


def test_a_lone_item_is_tried_again_when_its_graph_has_become_smaller() -> None:
    @dataclass
    class Fixed(Model):
        """Computes as many rows as its graph has, however many are asked for."""

        graph: int = 4

        def rows(self, bucket: int) -> int:
            return self.graph

        def launch(self, slot: dict[str, Any], rows: int) -> None:
            if self.graph > 1:
                raise TooLargeError(self.graph)
            super().launch(slot, rows)

        def shrink(self) -> None:
            self.graph //= 2

    finished = through([Item(0)], [Fixed()])
    assert [f.error for f in finished] == [None] and finished[0].item.found == {"model": 0}


def test_one_bad_item_does_not_spoil_its_batch() -> None:
    model = Model(batch=4, bad=(5, 6, 30), unfillable=(9,))
    finished = through((Item(n) for n in range(40)), [Note("before"), model, Note("after")])
    errors = {f.item.number: f.error for f in finished}
    assert {n for n, error in errors.items() if error} == {5, 6, 9, 30}
    assert all(f.item.found["model"] == f.item.number for f in finished if f.error is None)
    assert "does not fit into its row" in str(errors[9])
    assert str(errors[5]) == "[5] holds a bad one"


def test_what_a_stage_does_not_want_goes_past_it() -> None:
    model = Model(batch=4, skips=tuple(range(0, 40, 2)))
    finished = through((Item(n) for n in range(40)), [model, Note("after")])
    assert {f.item.number for f in finished if "model" in f.item.found} == set(range(1, 40, 2))
    assert all(f.item.found["after"] == f.item.number for f in finished)


def test_a_broken_device_ends_the_flow_at_once() -> None:
    finished: list[Finished[Item]] = []
    model = Model(batch=2, broken=(20,))
    with pytest.raises(BrokenError):
        run(
            (Item(n) for n in range(10_000)),
            as_stages([model]),
            lambda done: done,
            finished.extend,
            threads=2,
            stop=threading.Event(),
            failures=Failures(broken=(BrokenError,)),
        )
    numbers = {f.item.number for f in finished}
    assert 20 not in numbers and len(numbers) < 100


def test_stopping_finishes_what_a_device_has_begun_and_gives_the_rest_back() -> None:
    stop = threading.Event()
    first, second = Model("one", batch=1, depth=1, seconds=0.02), Model("two", batch=1, depth=1, seconds=0.02)

    class Stop:
        name = "stop"

        def __call__(self, item: Item) -> None:
            if item.number == 5:
                stop.set()

    finished = through((Item(n) for n in range(1000)), [first, second, Stop()], stop=stop)
    numbers = {f.item.number for f in finished}
    assert set(range(6)) <= numbers and len(numbers) < 12
    launched = {n for numbers in first.launches for n in numbers}
    assert launched == numbers  # begun on the device means finished


def test_two_stages_of_one_device_take_turns_the_later_one_first() -> None:
    one, two = Model("one", batch=1, depth=1), Model("two", batch=1, depth=1)
    order: list[tuple[str, int]] = []
    for model in (one, two):
        launch = model.launch

        def noted(slot: Any, rows: int, launch: Any = launch, name: str = model.name) -> None:
            order.append((name, slot["rows"][0]))
            time.sleep(0.002)
            launch(slot, rows)

        model.launch = noted  # type: ignore[method-assign]
    through((Item(n) for n in range(30)), [one, two])
    ahead = [sum(n == "one" for n, _ in order[:k]) - sum(n == "two" for n, _ in order[:k]) for k in range(len(order))]
    assert max(ahead) <= 4, order


def test_events_tell_of_each_piece_of_work() -> None:
    events: list[Event] = []
    model = Model(batch=4, seconds=0.001)
    through((Item(n) for n in range(40)), [Note("before"), model], watch=events.append, worker="fake:0")
    batches = [e for e in events if e.thread == "device"]
    assert sum(e.items for e in batches) == 40 and {e.stage for e in batches} == {"model"}
    assert {e.stage for e in events} == {"before", "model.fill", "model", "model.after"}
    assert all(e.start <= e.end and e.worker == "fake:0" for e in events)
    batches.sort(key=lambda e: e.start)
    assert all(a.end <= b.start for a, b in itertools.pairwise(batches))


def test_threads_that_have_nothing_to_do_sleep() -> None:
    """While a device computes, batches wait for it, and nobody else needs the processor."""
    model = Model(batch=1, depth=1, seconds=0.1)
    start = time.process_time()
    through((Item(n) for n in range(10)), [Note("before"), model, Note("after")])
    assert time.process_time() - start < 0.3


def test_memory_stays_flat() -> None:
    """Nothing of an item stays behind: 100,000 of them, each with 100 kB, go through 200 MB."""
    import resource

    class Load:
        name = "load"

        def __call__(self, item: Item) -> None:
            item.found["size"] = len(bytearray(100_000))
            item.ballast = bytearray(100_000)  # type: ignore[attr-defined]

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = 0

    def collect(batch: list[int]) -> None:
        nonlocal count
        count += len(batch)

    run(
        (Item(n) for n in range(100_000)),
        as_stages([Load(), Model(batch=8), Note("after")]),
        lambda done: done.item.number,
        collect,
        threads=2,
        stop=threading.Event(),
    )
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert count == 100_000
    assert grown < 100_000, f"{grown} KiB"


def test_warming_up_shrinks_a_model_whose_batch_does_not_fit_but_not_one_without_a_slot() -> None:
    class Shrinks(Model):
        def shrink(self) -> None:
            self.batch //= 2

    class NoSlot(Shrinks):
        def slot(self, bucket: int) -> dict[str, Any]:
            raise TooLargeError("no memory for its buffers")

    model = Shrinks(fits=2)
    warm_up(model, (Item(7),), (TooLargeError,))
    assert (model.launches, model.batch) == ([[7, 7, 7, 7]], 2)
    with pytest.raises(TooLargeError, match="buffers"):
        warm_up(NoSlot(), (Item(7),), (TooLargeError,))
