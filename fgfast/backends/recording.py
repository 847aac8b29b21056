"""Recordings of CUDA graphs: one at a time in a process, and never again for a graph that cannot be recorded here.

A recording that fails leaves torch 2.13 damaged: `torch.cuda.graph.__exit__` raises in `capture_end`, before it leaves
the stream that it set, and `CUDAGraph::capture_end` (aten/src/ATen/cuda/CUDAGraph.cpp) raises before it takes the
recording's pool from the allocator's list of recordings. While that list is not empty the allocator frees no cached
blocks (c10/cuda/CUDACachingAllocator.cpp), so that later batches meet a lack of memory that is none. What can be
restored is restored here; the list of the allocator of pinned memory cannot be, so the process must end. A note is
stored first, and the process that replaces this one reads it and runs the graph without a recording.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from fgfast import keyed_notes
from fgfast.backends.slots import failure_of
from fgfast.errors import DeviceMemoryError, RecordingFailedError
from fgfast.transfer import cache_folder

log = logging.getLogger("fgfast")

_KIND = "recording"
# Runs before a recording: the first chooses algorithms, the second runs with the chosen ones.
_WARM_UP = 2
# CUDA allows one recording at a time in a process.
_ONE_AT_A_TIME = threading.Lock()
# Graphs whose recording failed. The allocators' lists hold functions that read them, also after an error.
_FAILED: list[torch.cuda.CUDAGraph] = []
# Streams that torch hands out in turn.
_STREAMS = 32
# All pools of this process.
_POOLS: weakref.WeakSet[Pool] = weakref.WeakSet()
# Packages that a graph is made of; with another version of one a recording is tried again.
_PACKAGES = ("torch", "triton", "tensorrt", "fgfast")
# Characters of an error's message that are noted.
_LONGEST = 300


def refusal(what: str, device: torch.device) -> str:
    """Return why a graph must not be recorded on this machine, in words for the log; empty where it may be.

    Args:
        what: the graph, its backend and its sizes: the key of the note that a failed recording leaves.
        device: the GPU.
    """
    if not keyed_notes.private_name(_KIND):
        return (
            "no note could be kept of a recording that fails, so that each new process would fail again; make "
            f"{keyed_notes.key_file()} a file that only you can read, or set XDG_STATE_HOME to a private folder"
        )
    found = keyed_notes.read_sealed(_note(what, device), _KIND)
    return str(found["why"]) if found.get("key") == _key(what, device) else ""


class Pool:
    """The memory that the recordings of one model share: all that a run needs beside its inputs and outputs.

    torch allows that for recordings which are never replayed at the same time, in the order of their making
    (docs/source/notes/cuda.rst, "Sharing memory across captures"). The first holds because a model computes its batches
    one after another on one stream (fgfast.backends.slots.ComputeStream); two models have two streams, so they have two
    pools. The order matters only to outputs that are read after another replay: a recording may write, as intermediate
    values, where the outputs of a later one are. Here outputs are copied before the next replay. What is
    allocated while a recording is made, and still in use, is given to no later one: so outputs do not move. Inputs lie
    outside.

    A pool without recordings is not used again: the allocator asserts that a pool that is shared has a user
    (`create_or_incref_pool`, c10/cuda/CUDACachingAllocator.cpp), so the next recording begins a new one.

    Args:
        device: the GPU.
        stream: on which recordings are made; of the device, and not the default one. By default one of its own: the
            allocator gives memory freed on one stream to no other.

    Attributes:
        device: as given.
    """

    def __init__(self, device: torch.device, stream: torch.cuda.Stream | None = None) -> None:
        self.device, self._stream = device, stream
        self._graphs: weakref.WeakSet[torch.cuda.CUDAGraph] = weakref.WeakSet()
        self._handle: Any = None
        _POOLS.add(self)

    @property
    def stream(self) -> torch.cuda.Stream:
        """The stream on which recordings are made; made when it is first asked for."""
        if self._stream is None:
            self._stream = _own_stream(self.device)
        return self._stream

    def add(self, graph: torch.cuda.CUDAGraph) -> Any:
        """Count a graph as a user, until it is freed or discarded; return torch's name of the pool."""
        if not self._graphs:
            self._handle = torch.cuda.graph_pool_handle()
        self._graphs.add(graph)
        return self._handle

    def discard(self, graph: torch.cuda.CUDAGraph) -> None:
        """Count a graph no longer: its recording failed."""
        self._graphs.discard(graph)


def _own_stream(device: torch.device) -> torch.cuda.Stream:
    """Return a stream that no other pool has.

    torch hands out 32 streams in turn (c10/cuda/CUDAStream.cpp), and cuBLAS's workspace belongs to a stream
    (`getCurrentCUDABlasHandle`, aten/src/ATen/cuda/CublasHandlePool.cpp): the recordings of two models would share it.
    """
    taken = {pool._stream.cuda_stream for pool in _POOLS if pool._stream is not None}
    for _ in range(_STREAMS):
        stream = torch.cuda.Stream(device)
        if stream.cuda_stream not in taken:
            break
    return stream


def record(what: str, run: Callable[[], Any], pool: Pool, warm_up: int = _WARM_UP) -> tuple[torch.cuda.CUDAGraph, Any]:
    """Record a run as a CUDA graph.

    Args:
        what: as for `refusal`, which must have found nothing.
        run: queues the work on the current stream, and allocates there.
        pool: of the model's recordings.
        warm_up: number of runs before the recording.

    Returns:
        The graph; and what `run` returned, which is in the graph's memory.

    Raises:
        RecordingFailedError: the run cannot be recorded. That is noted, and this process must end.
        Exception: what `run` raises before the recording; and a lack of memory during the recording, after which
            everything is as before.
    """
    stream = pool.stream
    with _ONE_AT_A_TIME, torch.cuda.device(pool.device):
        caller = torch.cuda.current_stream(pool.device)
        if warm_up:
            stream.wait_stream(caller)
            with torch.cuda.stream(stream):
                for _ in range(warm_up):
                    run()
            caller.wait_stream(stream)
        return _capture(what, run, pool, caller)


def _capture(
    what: str, run: Callable[[], Any], pool: Pool, caller: torch.cuda.Stream
) -> tuple[torch.cuda.CUDAGraph, Any]:
    # The allocator can be told that the recording has ended, because the pool's number is known.
    graph = torch.cuda.CUDAGraph()
    handle = pool.add(graph)
    raised: Exception | None = None
    try:
        # Only this capture mode allows other threads to use the GPU meanwhile.
        with torch.cuda.graph(graph, pool=handle, stream=pool.stream, capture_error_mode="thread_local"):
            try:
                outputs = run()
            except Exception as error:
                raised = error
                raise
    except Exception as error:
        if error is raised and failure_of(error) is DeviceMemoryError:
            raise  # __exit__ has put everything in order
        pool.discard(graph)
        _restore(graph, handle, caller)
        raise _failed(what, pool.device, raised or error) from error
    return graph, outputs


def _restore(graph: Any, handle: Any, caller: torch.cuda.Stream) -> None:
    """Restore what a failed recording leaves behind: the current stream, and the allocator of the GPU's memory.

    The pool keeps its other recordings: the allocator counts one user for each recording that was begun.
    """
    _FAILED.append(graph)
    torch.cuda.set_stream(caller)
    with suppress(RuntimeError):
        graph.reset()
    # An error says that the recording had ended for the allocator, in which case the graph has released its pool.
    with suppress(RuntimeError):
        torch._C._cuda_endAllocateToPool(caller.device.index, handle)
        torch._C._cuda_releasePool(caller.device.index, handle)


def _failed(what: str, device: torch.device, error: Exception) -> RecordingFailedError:
    """Note that a graph cannot be recorded; return the error to raise."""
    why = " ".join(str(error).split())[:_LONGEST] or type(error).__name__
    note = _note(what, device)
    keyed_notes.write_sealed(note, _KIND, {"key": _key(what, device), "why": f"{why} (noted in {note})"})
    noted = bool(refusal(what, device))
    then = (
        "a new process, or the same command again, runs it without one"
        if noted
        else f"and {note} cannot be written; make room there"
    )
    log.warning("%s cannot be recorded as a CUDA graph on %s: %s", what, device, why)
    return RecordingFailedError(
        f"{what} cannot be recorded as a CUDA graph on {device}: {why}. This process must end; {then}"
    )


def _note(what: str, device: torch.device) -> Path:
    return cache_folder() / "recordings" / f"{hashlib.sha256(_key(what, device).encode()).hexdigest()[:32]}.json"


def _key(what: str, device: torch.device) -> str:
    """Return the key of a note: the graph, the GPU, and the versions of CUDA and packages."""
    versions = [f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"]
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{package} {importlib.metadata.version(package)}")
    return f"{what} | {', '.join(versions)}"
