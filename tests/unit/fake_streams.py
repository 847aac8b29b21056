"""A fake of CUDA's streams for machines without a GPU: tensors stay on the CPU, but copies happen when they must.

It proves nothing about CUDA. What is queued on a stream waits until someone synchronizes with an event behind it; then
whatever that depends on is done, in a random order that keeps to the streams and to what they were told to wait for. An
order that was not asked for therefore goes wrong now and then.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch


class Work:
    """Something queued, and what must be done before it."""

    def __init__(self, does: Callable[[], object], after: set[Work]) -> None:
        self.does, self.after, self.done = does, after, False


class Gpu:
    """Streams and what is queued on them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.current: Stream | None = None
        self.emptied = 0

    def queue(self, does: Callable[[], object]) -> None:
        """Put something on the current stream."""
        assert self.current is not None, "on the default stream, which would wait"
        self.current.last = {Work(does, self.current.last)}

    def finish(self, wanted: set[Work]) -> None:
        """Do something, and first what it depends on."""
        left: list[Work] = []
        found = list(wanted)
        while found:
            work = found.pop()
            if not work.done and work not in left:
                left.append(work)
                found.extend(work.after)
        while left:
            work = self.random.choice([w for w in left if all(before.done for before in w.after)])
            work.does()
            work.done = True
            left.remove(work)


class Stream:
    gpu: Gpu

    def __init__(self, device: Any = None) -> None:
        self.last: set[Work] = set()

    def wait_stream(self, other: Stream) -> None:
        self.last = {Work(lambda: None, self.last | other.last)}

    def synchronize(self) -> None:
        self.gpu.finish(self.last)


class Event:
    def __init__(self, blocking: bool = False) -> None:
        self.behind: set[Work] = set()

    def record(self, stream: Stream) -> None:
        self.behind = stream.last

    def synchronize(self) -> None:
        Stream.gpu.finish(self.behind)


def install(monkeypatch: Any, seed: int = 0) -> Gpu:
    """Put the fakes in place. A ComputeStream whose `stream` is one of these Streams makes slots as on a GPU."""
    gpu = Stream.gpu = Gpu(seed)
    zeros, empty, copy = torch.zeros, torch.empty, torch.Tensor.copy_

    def copy_(target: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
        if non_blocking:
            gpu.queue(lambda: copy(target, source))
            return target
        return copy(target, source)

    @contextmanager
    def stream(chosen: Stream | None) -> Iterator[None]:
        before, gpu.current = gpu.current, chosen or gpu.current
        yield
        gpu.current = before

    def empty_cache() -> None:
        gpu.emptied += 1

    monkeypatch.setattr(torch, "zeros", lambda *a, pin_memory=False, **k: zeros(*a, **k))
    monkeypatch.setattr(torch, "empty", lambda *a, pin_memory=False, **k: empty(*a, **k))
    monkeypatch.setattr(torch.Tensor, "copy_", copy_)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
    fakes = {"Stream": Stream, "Event": Event, "stream": stream, "device": nullcontext, "empty_cache": empty_cache}
    for name, instead in fakes.items():
        monkeypatch.setattr(torch.cuda, name, instead)
    return gpu
