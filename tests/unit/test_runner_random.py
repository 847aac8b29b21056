"""Random flows of every kind: each item ends once, with its own results, and no run hangs."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from fgfast.runner import BatchedStage, Failures, Finished, run


class TooLargeError(Exception):
    """Stands for a device out of memory."""


@dataclass
class Item:
    number: int
    bucket: int
    found: dict[str, int] = field(default_factory=dict)


@dataclass
class Model:
    """Hands numbers through its slots; fails where it is told to."""

    name: str
    device: str
    batch: int
    depth: int
    seconds: float
    fits: int
    bad: frozenset[int]
    unfillable: frozenset[int]
    skips: frozenset[int]
    buckets: int
    memory_for: int
    made: int = 0

    def wants(self, item: Item) -> bool:
        return item.number not in self.skips

    def bucket(self, item: Item) -> int:
        return item.bucket

    def rows(self, bucket: int) -> int:
        return max(1, self.batch - bucket)

    def slot(self, bucket: int) -> list[int]:
        self.made += 1
        if self.made % (self.memory_for + 1) == 0:
            raise TooLargeError
        return [-1] * self.batch

    def fill(self, slot: list[int], row: int, item: Item) -> None:
        if item.number in self.unfillable:
            raise ValueError("unfillable")
        slot[row] = item.number

    def launch(self, slot: list[int], rows: int) -> None:
        if rows > self.fits:
            raise TooLargeError
        if self.bad & set(slot[:rows]):
            raise ValueError("bad")

    def wait(self, slot: list[int]) -> None:
        time.sleep(self.seconds)

    def read(self, slot: list[int], row: int) -> int:
        return slot[row]

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
class Step:
    name: str

    def __call__(self, item: Item) -> None:
        item.found[self.name] = item.number


def random_stages(chance: random.Random, count: int) -> list[Any]:
    def some(share: float) -> frozenset[int]:
        return frozenset(n for n in range(count) if chance.random() < share)

    stages: list[Any] = []
    for n in range(chance.randint(1, 5)):
        if chance.random() < 0.5:
            stages.append(Step(f"step {n}"))
            continue
        model = Model(
            f"model {n}",
            chance.choice("aab"),
            chance.randint(1, 9),
            chance.randint(1, 3),
            chance.choice([0.0, 0.0, 0.0005]),
            chance.choice([1000, 1000, 3, 1]),
            some(0.03),
            some(0.03),
            some(chance.choice([0.0, 0.3, 1.0])),
            chance.choice([1, 1, 2, 7, 20]),
            chance.choice([1000, 1000, 3, 1, 0]),
        )
        stages.append(model)
    return stages


def _keep(done: Finished[Item]) -> Finished[Item]:
    return done


@pytest.mark.parametrize("first", range(0, 400, 40))
def test_every_item_ends_once_with_its_own_results(first: int) -> None:
    for seed in range(first, first + 40):
        chance = random.Random(seed)
        count, buckets = chance.choice([0, 1, 2, 5, 50, 200]), chance.choice([1, 2, 7])
        stages, stops, stop = random_stages(chance, count), chance.random() < 0.25, threading.Event()
        finished: list[Finished[Item]] = []
        over = threading.Event()
        if stops:
            threading.Timer(chance.random() * 0.02, stop.set).start()

        def work(count: int = count, buckets: int = buckets, stages: Any = stages, **more: Any) -> None:
            items = (Item(n, n % buckets) for n in range(count))
            run(items, as_stages(stages), _keep, failures=Failures(memory=(TooLargeError,)), **more)

        options = {
            "collect": finished.extend,
            "threads": chance.randint(1, 4),
            "stop": stop,
            "linger": chance.choice([0.001, 0.05]),
        }

        def guarded(work: Any = work, options: Any = options, over: threading.Event = over) -> None:
            work(**options)
            over.set()

        threading.Thread(target=guarded, daemon=True).start()
        assert over.wait(30), f"seed {seed} hangs"
        numbers = [f.item.number for f in finished]
        assert len(set(numbers)) == len(numbers), f"seed {seed}"
        assert stops or sorted(numbers) == list(range(count)), f"seed {seed}"
        for done in finished:
            number, found = done.item.number, done.item.found
            wanted = {s.name for s in stages if not isinstance(s, Model) or number not in s.skips}
            assert set(found.values()) <= {number}, f"seed {seed}"
            assert done.error is not None or set(found) == wanted, f"seed {seed}"
