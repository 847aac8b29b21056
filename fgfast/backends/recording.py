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


def record(
    what: str, run: Callable[[], Any], stream: torch.cuda.Stream, device: torch.device, warm_up: int = _WARM_UP
) -> tuple[torch.cuda.CUDAGraph, Any]:
    """Record a run as a CUDA graph.

    Args:
        what: as for `refusal`, which must have found nothing.
        run: queues the work on the current stream, and allocates there.
        stream: on which it is recorded; of the device, and not the default one.
        device: the GPU.
        warm_up: number of runs before the recording.

    Returns:
        The graph; and what `run` returned, which is in the graph's memory.

    Raises:
        RecordingFailedError: the run cannot be recorded. That is noted, and this process must end.
        Exception: what `run` raises before the recording; and a lack of memory during the recording, after which
            everything is as before.
    """
    with _ONE_AT_A_TIME, torch.cuda.device(device):
        caller = torch.cuda.current_stream(device)
        if warm_up:
            stream.wait_stream(caller)
            with torch.cuda.stream(stream):
                for _ in range(warm_up):
                    run()
            caller.wait_stream(stream)
        return _capture(what, run, stream, caller)


def _capture(
    what: str, run: Callable[[], Any], stream: torch.cuda.Stream, caller: torch.cuda.Stream
) -> tuple[torch.cuda.CUDAGraph, Any]:
    # The allocator can be told that the recording has ended, because the pool's number is known.
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    raised: Exception | None = None
    try:
        # Only this capture mode allows other threads to use the GPU meanwhile.
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            try:
                outputs = run()
            except Exception as error:
                raised = error
                raise
    except Exception as error:
        if error is raised and failure_of(error) is DeviceMemoryError:
            raise  # __exit__ has put everything in order
        _restore(graph, pool, caller)
        raise _failed(what, stream.device, raised or error) from error
    return graph, outputs


def _restore(graph: Any, pool: Any, caller: torch.cuda.Stream) -> None:
    """Restore what a failed recording leaves behind: the current stream, and the allocator of the GPU's memory."""
    _FAILED.append(graph)
    torch.cuda.set_stream(caller)
    with suppress(RuntimeError):
        graph.reset()
    # An error says that the recording had ended for the allocator, in which case the graph has released its pool.
    with suppress(RuntimeError):
        torch._C._cuda_endAllocateToPool(caller.device.index, pool)
        torch._C._cuda_releasePool(caller.device.index, pool)


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
