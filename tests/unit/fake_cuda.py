"""A fake of torch.cuda's streams and CUDA graphs, for machines without a GPU. It proves nothing about CUDA.

`torch.cuda.graph` is the installed torch's own code. What it calls is replaced, and does what torch's C++ sources say
(aten/src/ATen/cuda/CUDAGraph.cpp and c10/cuda/CUDACachingAllocator.cpp at 2.13): a recording that has met an error
cannot be ended, and stays in the allocator's list.
"""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from typing import Any

import torch


class Stream:
    """Stands for torch.cuda.Stream: remembers whom it waits for."""

    _numbers = itertools.count(1)

    def __init__(self, device: Any = None) -> None:
        self.cuda_stream, self.waited = next(Stream._numbers), list[Stream]()
        self.device = torch.device("cpu", 0)

    def wait_stream(self, other: Stream) -> None:
        self.waited.append(other)

    def synchronize(self) -> None: ...


class Cuda:
    """The state of one process.

    Attributes:
        current: the current stream of the only thread.
        recordings: pools in the allocator's list of recordings.
        pools: pool -> number of users.
        invalid: whether the recording under way has met an error.
        recorded: number of recordings that were begun.
        under_way: the graph that is, or was last, recorded.
    """

    def __init__(self) -> None:
        self.default = self.current = Stream()
        self.recordings: list[Any] = []
        self.pools: dict[Any, int] = {}
        self.invalid, self.recorded = False, 0
        self.under_way: CUDAGraph | None = None

    def forbidden(self) -> None:
        """Do what CUDA allows outside of recordings only."""
        if self.recordings:
            self.invalid = True
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    def stream(self, stream: Stream | None) -> Any:
        return _Current(self, stream) if stream is not None else nullcontext()

    def set_stream(self, stream: Stream) -> None:
        self.current = stream

    def end(self, device: int, pool: Any) -> None:
        if pool not in self.recordings:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.recordings.remove(pool)

    def release(self, device: int, pool: Any) -> None:
        self.pools[pool] -= 1

    def graph(self) -> CUDAGraph:
        return CUDAGraph(self)


class CUDAGraph:
    """Stands for torch.cuda.CUDAGraph; `replayed` is called by a replay."""

    def __init__(self, cuda: Cuda) -> None:
        self.cuda, self.ended, self.pool = cuda, False, None
        self.replayed: Any = lambda: None

    def capture_begin(self, pool: Any, **_: Any) -> None:
        assert self.cuda.current is not self.cuda.default, "graphs are recorded on a stream of their own"
        assert not self.cuda.recordings, "one recording at a time"
        self.pool, self.cuda.invalid, self.cuda.under_way = pool, False, self
        self.cuda.recorded += 1
        self.cuda.recordings.append(pool)
        assert self.cuda.pools.get(pool, 1) > 0, "a pool that is shared has a user (create_or_incref_pool)"
        self.cuda.pools[pool] = self.cuda.pools.get(pool, 0) + 1

    def capture_end(self) -> None:
        if self.cuda.invalid:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
        self.cuda.end(0, self.pool)
        self.ended = True

    def reset(self) -> None:
        if self.ended:
            self.cuda.release(0, self.pool)
        self.ended = False

    def __del__(self) -> None:
        self.reset()

    def replay(self) -> None:
        assert self.ended
        self.replayed()


class _Current:
    def __init__(self, cuda: Cuda, stream: Stream) -> None:
        self.cuda, self.stream, self.before = cuda, stream, cuda.current

    def __enter__(self) -> None:
        self.before, self.cuda.current = self.cuda.current, self.stream

    def __exit__(self, *_: object) -> None:
        self.cuda.current = self.before


def install(monkeypatch: Any, *, name: str = "Fake GPU") -> Cuda:
    """Put the fakes in place; tensors stay on the CPU."""
    cuda = Cuda()
    pools = itertools.count(1)
    fakes = {
        "Stream": Stream,
        "CUDAGraph": cuda.graph,
        "graph_pool_handle": lambda: (0, next(pools)),
        "stream": cuda.stream,
        "set_stream": cuda.set_stream,
        "current_stream": lambda device=None: cuda.current,
        "device": lambda device: nullcontext(),
        "synchronize": lambda device=None: None,
        "empty_cache": lambda: None,
        "is_available": lambda: True,
        "mem_get_info": lambda device=None: (8 << 30, 16 << 30),
        "get_device_name": lambda device=None: name,
        "get_device_capability": lambda device=None: (9, 0),
    }
    for attribute, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, attribute, fake)
    monkeypatch.setattr(torch._C, "_host_emptyCache", lambda: None, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", cuda.end, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", cuda.release, raising=False)
    return cuda
