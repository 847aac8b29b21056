"""The decoders: the CPU's, DALI's and nvJPEG's.

All obey the rule that `fgfast.io.decode` states. "cpu" and "dali_cpu" give bit-identical pixels. GPU decoders differ
from them by a few grey levels, so `auto` uses one only after a parity check.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Protocol

from fgfast.config.values import DECODERS, ON_GPU
from fgfast.errors import MissingExtraError, SampleError, UnknownNameError, UsageError
from fgfast.io.batched import BatchedDecoder
from fgfast.io.decode import decode
from fgfast.records import Image

# Images per batch. On the GPU: enough to keep the several engines of a hardware decoder busy, 18 MB of 500-pixel
# images. On the CPU, per thread: several, so that no thread waits long for the last one.
_GPU_BATCH = 32
_CPU_BATCH = 4

# Decoder -> the module it needs, and the extra that installs it.
_NEEDS = {
    "dali": ("nvidia.dali", "gpu"),
    "dali_cpu": ("nvidia.dali", "gpu"),
    "nvjpeg": ("torchvision", "studies"),
}


class Decoder(Protocol):
    """Decodes files to images.

    Attributes:
        name: one of `DECODERS`, without "auto".
        batch: preferred number of files per call.
    """

    name: str
    batch: int

    def __call__(self, files: Sequence[bytes], names: Sequence[str], turn_exif: bool) -> list[Image | SampleError]:
        """Decode files.

        Args:
            files: contents of any number of files.
            names: each file's name in errors.
            turn_exif: apply the EXIF orientation, or keep pixels as stored.

        Returns:
            Each file's image in host memory, or its error, in the order of `files`.
        """
        ...

    def close(self) -> None:
        """Free threads and memory. The decoder cannot be used afterwards."""
        ...


class CpuDecoder:
    """The decoder of `fgfast.io.decode`: libjpeg-turbo and Pillow. It is thread-safe.

    Args:
        threads: number of threads that share the files of a call.
    """

    name = "cpu"

    def __init__(self, threads: int = 1) -> None:
        self.batch = 1 if threads == 1 else _CPU_BATCH * threads
        self._pool = ThreadPoolExecutor(threads, "fgfast-decode") if threads > 1 else None

    def __call__(self, files: Sequence[bytes], names: Sequence[str], turn_exif: bool) -> list[Image | SampleError]:
        """Decode files as `Decoder.__call__` describes."""
        turns = [turn_exif] * len(files)
        each = map if self._pool is None or len(files) < 2 else self._pool.map
        return list(each(_outcome, files, names, turns))

    def close(self) -> None:
        """Stop the threads."""
        if self._pool is not None:
            self._pool.shutdown()


def _outcome(data: bytes, name: str, turn_exif: bool) -> Image | SampleError:
    try:
        return decode(data, name, turn_exif)
    except SampleError as error:
        return error


def available(device: str) -> tuple[str, ...]:
    """Return the decoders that are installed for a device ("cpu", "cuda:N", ...).

    GPU decoders come first, the one expected to be fastest before the other; "cpu", which is always available, comes
    last. Both CPU decoders are libjpeg-turbo, and "cpu" was the faster wherever it was measured
    (`fgfast.bench.decoders`). Packages are located, not imported. The pixels of a decoder are not checked here.
    """
    wanted = ("dali", "nvjpeg", "dali_cpu") if device.startswith("cuda") else ("dali_cpu",)
    return (*(name for name in wanted if _installed(_NEEDS[name][0])), "cpu")


def decoder(name: str, device: str = "cpu", threads: int = 1, batch: int | None = None) -> Decoder:
    """Create a decoder.

    Args:
        name: one of `DECODERS`, without "auto", which the caller resolves.
        device: the device that decodes: "cpu" or "cuda:N".
        threads: CPU threads; a GPU decoder uses them for files that are not plain JPEGs.
        batch: images per call; None takes the decoder's default.

    Raises:
        UnknownNameError: there is no such decoder.
        MissingExtraError: the decoder's package is not installed.
        UsageError: the decoder cannot run on the device.
    """
    if name not in DECODERS:
        raise UnknownNameError("decoder", name, DECODERS)
    if name == "auto":
        raise UsageError(f"the decoder auto is resolved by a measurement; name one of {', '.join(available(device))}")
    if threads < 1 or (batch is not None and batch < 1):
        raise UsageError(f"a decoder needs at least 1 thread and 1 image per batch, not {threads} and {batch}")
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
    except ModuleNotFoundError:  # the parent package is missing
        return False
