"""The decoders: the CPU's, DALI's and nvJPEG's.

All obey the rule that `fgfast.io.decode` states. "cpu" and "dali_cpu" give bit-identical pixels. GPU decoders differ
from them by a few grey levels, so `auto` uses one only after a parity check.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol

import numpy as np

from fgfast.config import DECODERS as DECODERS  # re-exported
from fgfast.errors import MissingExtraError, SampleError, UnknownNameError, UsageError
from fgfast.io.batched import BatchedDecoder
from fgfast.io.decode import decode
from fgfast.records import Bool, Image, UInt8

# The least IoU of an image's mask with the one that it has under the CPU decoder: two masks of one image that differ
# less are the same to a classifier; people who draw a mask twice differ by some percent.
GATE_IOU = 0.995

# Images per batch. On the GPU: enough to keep the several engines of a hardware decoder busy, 18 MB of 500-pixel
# images. On the CPU, per thread: several, so that no thread waits long for the last one.
_GPU_BATCH = 32
_CPU_BATCH = 4

# Decoders that need a GPU.
ON_GPU = ("dali", "nvjpeg")
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
        if self._pool is None or len(files) < 2:
            return list(map(_outcome, files, names, turns))
        return list(self._pool.map(_outcome, files, names, turns))

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


@dataclass(frozen=True, slots=True)
class Gate:
    """How a decoder's masks compare with the CPU decoder's on a sample of the data set.

    Attributes:
        decoder: its name.
        images: how many were compared.
        worst_iou: the least IoU of an image's two masks.
        mean_iou: their mean.
        largest_difference: of any channel of any pixel, in grey levels.
        passed: whether `worst_iou` is at least `GATE_IOU`.
    """

    decoder: str
    images: int
    worst_iou: float
    mean_iou: float
    largest_difference: int
    passed: bool

    def sentence(self) -> str:
        """The verdict, for run.json and the console."""
        verdict = "passed" if self.passed else "did not pass"
        return (
            f"{self.decoder} {verdict} the parity gate: on {self.images} images its masks have IoU "
            f"{self.worst_iou:.4f} at worst and {self.mean_iou:.4f} in the mean with the CPU decoder's "
            f"({GATE_IOU} is needed); pixels differ by up to {self.largest_difference} grey levels"
        )


def judge(decoder: str, ours: Sequence[Bool], theirs: Sequence[Bool], pixels: Sequence[tuple[UInt8, UInt8]]) -> Gate:
    """Compare the masks that the same images get under two decoders.

    Args:
        decoder: the name of the one on trial.
        ours: its masks, (H, W) bool each.
        theirs: the CPU decoder's masks of the same images.
        pixels: the images themselves, (H, W, 3) uint8 RGB: its pixels and the CPU decoder's.

    Raises:
        ValueError: there is no image, something of one is missing, or its two versions have different sizes.
    """
    if not ours or len(ours) != len(pixels):
        raise ValueError(f"the parity gate needs per image's masks and pixels, not {len(ours)} and {len(pixels)}")
    overlaps = [_iou(mine, other) for mine, other in zip(ours, theirs, strict=True)]
    differences = [_difference(mine, other) for mine, other in pixels]
    return Gate(
        decoder,
        len(overlaps),
        min(overlaps),
        statistics.fmean(overlaps),
        max(differences),
        min(overlaps) >= GATE_IOU,
    )


def _iou(ours: Bool, theirs: Bool) -> float:
    """Intersection over union; 1 where both are empty."""
    if ours.shape != theirs.shape:
        raise ValueError(f"masks of one image must have one size, not {ours.shape} and {theirs.shape}")
    union = int(np.count_nonzero(ours | theirs))
    return int(np.count_nonzero(ours & theirs)) / union if union else 1.0


def _difference(ours: UInt8, theirs: UInt8) -> int:
    if ours.shape != theirs.shape:
        raise ValueError(f"pixels of one image must have one size, not {ours.shape} and {theirs.shape}")
    return int(np.max(np.maximum(ours, theirs) - np.minimum(ours, theirs), initial=0))


def rates(decoders: Sequence[Decoder], files: Sequence[bytes], rounds: int = 3) -> dict[str, float]:
    """Images a second of each decoder, by name: medians of rounds in which each has its turn.

    Args:
        decoders: with different names.
        files: contents of images of the data set; each decoder gets them in batches as it likes.
        rounds: timed rounds. One before them is not timed, so that what is made at first use exists.
    """
    names = [f"{n}" for n in range(len(files))]
    measured: dict[str, list[float]] = {each.name: [] for each in decoders}
    for number in range(rounds + 1):
        for each in decoders:
            start = time.perf_counter()
            for at in range(0, len(files), each.batch):
                each(files[at : at + each.batch], names[at : at + each.batch], False)
            if number:
                measured[each.name].append(len(files) / (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in measured.items()}
