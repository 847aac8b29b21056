"""Which decoder: the CPU's, DALI's or nvJPEG's; how fast each is here, and whether its pixels give the same masks.

All give what `fgfast.io.decode` says: its docstring has the one rule. "cpu" and "dali_cpu" are equal to the bit. GPU
decoders differ from them by a few grey levels, so they are used after a parity gate only: `judge`.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Protocol

from fgfast.config import DECODERS as DECODERS  # here as well, beside what it names
from fgfast.errors import MissingExtraError, SampleError, UnknownNameError, UsageError
from fgfast.io.batched import BatchedDecoder
from fgfast.io.decode import decode
from fgfast.records import Image

# Images per batch. On the GPU: enough to keep the several engines of a hardware decoder busy, and 18 MB of 500-pixel
# images. On the CPU: some for each thread, so that none waits long for the last one.
_GPU_BATCH = 32
_CPU_BATCH = 4

# Those that need a GPU.
ON_GPU = ("dali", "nvjpeg")
# The module of each, and the extra that brings it.
_NEEDS = {
    "dali": ("nvidia.dali", "gpu"),
    "dali_cpu": ("nvidia.dali", "gpu"),
    "nvjpeg": ("torchvision", "studies"),
}


class Decoder(Protocol):
    """Turns files into images.

    Attributes:
        name: one of `DECODERS`, without "auto".
        batch: how many files a call it likes.
    """

    name: str
    batch: int

    def __call__(self, files: Sequence[bytes], names: Sequence[str], turn_exif: bool) -> list[Image | SampleError]:
        """Decode files.

        Args:
            files: the files' contents, any number of them.
            names: what to call each in errors.
            turn_exif: turn them as their EXIF orientation says, or leave them as stored.

        Returns:
            In the same order, each file's image, in host memory, or its error.
        """
        ...

    def close(self) -> None:
        """Free what it holds. It is of no use afterwards."""
        ...


class CpuDecoder:
    """libjpeg-turbo and Pillow. Threads may share it.

    Args:
        threads: how many decode a call's files.
    """

    name = "cpu"

    def __init__(self, threads: int = 1) -> None:
        self.batch = 1 if threads == 1 else _CPU_BATCH * threads
        self._pool = ThreadPoolExecutor(threads, "fgfast-decode") if threads > 1 else None

    def __call__(self, files: Sequence[bytes], names: Sequence[str], turn_exif: bool) -> list[Image | SampleError]:
        """See `Decoder`."""
        turns = [turn_exif] * len(files)
        if self._pool is None or len(files) < 2:
            return list(map(_outcome, files, names, turns))
        return list(self._pool.map(_outcome, files, names, turns))

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()


def _outcome(data: bytes, name: str, turn_exif: bool) -> Image | SampleError:
    try:
        return decode(data, name, turn_exif)
    except SampleError as error:
        return error


def available(device: str) -> tuple[str, ...]:
    """The decoders that are installed for a device ("cpu", "cuda:N", ...).

    Those on the GPU come first, the fastest expected before the others, and "cpu", which is always there, last. Of the
    last two, "cpu" was the faster wherever we measured (`fgfast.bench.decoders`): both are libjpeg-turbo. Looks for
    packages without importing them. That one is listed says nothing of its pixels: see `judge`.
    """
    wanted = ("dali", "nvjpeg", "dali_cpu") if device.startswith("cuda") else ("dali_cpu",)
    return (*(name for name in wanted if _installed(_NEEDS[name][0])), "cpu")


def decoder(name: str, device: str = "cpu", threads: int = 1, batch: int | None = None) -> Decoder:
    """Make a decoder.

    Args:
        name: one of `DECODERS`. "auto" is for the caller to resolve, with `available`, `judge` and `rates`.
        device: where it decodes: "cpu" or "cuda:N".
        threads: CPU threads; those of a GPU decoder decode what is not a plain JPEG.
        batch: images per call; None takes what suits the decoder.

    Raises:
        UnknownNameError: there is no such decoder.
        MissingExtraError: its package is not installed.
        UsageError: the device is not one for it, or does not work.
    """
    if name not in DECODERS:
        raise UnknownNameError("decoder", name, DECODERS)
    if name == "auto":
        raise UsageError(f"the decoder auto is chosen by measuring; make one of {', '.join(available(device))}")
    if threads < 1 or (batch is not None and batch < 1):
        raise UsageError(f"a decoder needs at least 1 thread and 1 image a batch, not {threads} and {batch}")
    alone = CpuDecoder(threads)
    if name == "cpu":
        return alone
    if name in ON_GPU and not device.startswith("cuda"):
        raise UsageError(f"the decoder {name} needs a CUDA device, not {device}; take dali_cpu or cpu")
    package, extra = _NEEDS[name]
    if not _installed(package):
        raise MissingExtraError(package, extra, f"the decoder {name}")
    if name == "nvjpeg":
        from fgfast.io.nvjpeg import NvJpegs

        return BatchedDecoder(name, NvJpegs(device), batch or _GPU_BATCH, alone)
    from fgfast.io.dali import DaliJpegs

    on_gpu = name in ON_GPU
    batch = batch or (_GPU_BATCH if on_gpu else _CPU_BATCH * threads)
    return BatchedDecoder(name, DaliJpegs(device if on_gpu else "cpu", threads, batch), batch, alone)


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # its parent is missing
        return False
