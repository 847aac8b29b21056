"""Which decoder a run uses where several are there: the fastest whose pixels are right.

Whether a decoder is right and faster than the CPU's is asked once per machine and version of the packages, on a sample
of the data set, and remembered: rates and pixels, no models, seconds. `fgfast bench decoders` compares masks, too; its
verdict overrules.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, cast

import numpy as np

from fgfast.config import DecoderName
from fgfast.errors import FgfastError, SampleError
from fgfast.io.decode import decode, read_bytes
from fgfast.io.decoders import ON_GPU, Decoder, available, decoder
from fgfast.io.output import Mode, Output
from fgfast.machine import available_cores
from fgfast.models.files import measured
from fgfast.pipeline.plan import Plan
from fgfast.records import Sample, UInt8
from fgfast.runner import Failures, Finished, Stage, Supervisor, WorkerSpec, run_item

# So many images of the data set are decoded by all and compared: a second's work for a GPU.
_IMAGES = 16
# A decoder must be so much faster than the CPU's before its other pixels are worth having.
_GAIN = 1.1
# The most that a right decoder's pixels are off on average over an image, in grey levels. Other roundings and another
# interpolation of chroma stay below one level on photographs; channels in another order, a limited range of values or a
# turned image are off by five and more.
MEAN_LEVELS = 1.0


@dataclass(frozen=True, slots=True)
class Parity:
    """How a decoder compares with the CPU's on a sample.

    Attributes:
        decoder: its name.
        images: how many were compared.
        mean_levels: the mean difference of the pixels of the image that is furthest off, in grey levels.
        largest_levels: the largest difference of any channel of any pixel, in grey levels.
        rate: images per second.
        cpu_rate: images per second of the CPU's decoder in the same turns.
        refused: why it could not be tried; empty where it was.
    """

    decoder: str
    images: int = 0
    mean_levels: float = 0.0
    largest_levels: int = 0
    rate: float = 0.0
    cpu_rate: float = 0.0
    refused: str = ""

    @property
    def right(self) -> bool:
        """Whether its pixels are right."""
        return not self.refused and self.images > 0 and self.mean_levels <= MEAN_LEVELS

    @property
    def faster(self) -> bool:
        """Whether it is enough faster than the CPU's decoder."""
        return self.rate >= _GAIN * self.cpu_rate

    def sentence(self) -> str:
        """The finding, for run.json and the console."""
        if self.refused:
            return f"{self.decoder} cannot be used: {self.refused}"
        return (
            f"{self.decoder} {self.rate:.0f} images per second, cpu {self.cpu_rate:.0f}; pixels of {self.images} "
            f"images differ by {self.mean_levels:.2f} grey levels on average at most ({MEAN_LEVELS:g} is allowed), by "
            f"{self.largest_levels} at most"
        )


def check_pixels(ours: Sequence[UInt8], theirs: Sequence[UInt8]) -> tuple[float, int]:
    """The parity check of a decoder's pixels with the CPU decoder's, of the same images, (H, W, 3) uint8 each.

    Returns:
        The largest mean difference of an image, and the largest difference of any channel of any pixel, in grey levels.

    Raises:
        ValueError: there is no image, or the two versions of one have different sizes.
    """
    if not ours or len(ours) != len(theirs):
        raise ValueError(f"the parity check needs both versions of each image, not {len(ours)} and {len(theirs)}")
    mean, largest = 0.0, 0
    for mine, other in zip(ours, theirs, strict=True):
        if mine.shape != other.shape:
            raise ValueError(f"both versions of an image must have one size, not {mine.shape} and {other.shape}")
        difference = np.maximum(mine, other) - np.minimum(mine, other)
        mean, largest = max(mean, float(difference.mean())), max(largest, int(difference.max(initial=0)))
    return mean, largest


def choose_decoder(
    plan: Plan, output: Output, mode: Mode, *, in_process: bool, deadline: float, on_message: Callable[[str], None]
) -> Plan:
    """A plan whose decoder is chosen: that of the run that is resumed, else the fastest that is right here."""
    if plan.settings.decoder != "auto":
        return plan
    device = next(device for device in plan.settings.places if available(device)[0] in ON_GPU)
    before = None if mode == "overwrite" else output.recorded()
    if before is not None and before.get("decoder") in available(device):
        name, reason = before["decoder"], "the one of the run that is resumed"
    else:
        name, reason = fastest(findings(plan, device, in_process, deadline), device, plan.settings.segmenter)
    reason = f"decoder {name}: {reason}"
    on_message(reason)
    return replace(
        plan,
        settings=replace(plan.settings, decoder=cast(DecoderName, name)),
        reasons=(*plan.reasons, reason),
        fingerprint={**plan.fingerprint, "decoder": name},
    )


def fastest(found: Sequence[Parity], device: str, segmenter: str) -> tuple[str, str]:
    """The decoder to take, and why in a sentence."""
    reasons = [parity.sentence() for parity in found]
    for parity in sorted(found, key=lambda parity: -parity.rate):
        verdict = measured.recall(verdict_key(parity.decoder, device, segmenter))
        if verdict is not None:
            reasons.append(f"`fgfast bench decoders` found {parity.decoder} {'right' if verdict else 'wrong'} by masks")
        if parity.faster and (parity.right if verdict is None else verdict):
            return parity.decoder, "; ".join(reasons)
    return "cpu", "; ".join(reasons) or "no image of a sample of the data set can be decoded"


def verdict_key(name: str, device: str, segmenter: str) -> str:
    """Where `fgfast bench decoders` keeps its verdict on a decoder, see fgfast.models.files.measured.

    A verdict is about one segmenter: what changes the masks of one may leave those of another.
    """
    return measured.key_of(f"decoder {name} by masks of {segmenter}", device)


def findings(plan: Plan, device: str, in_process: bool, deadline: float) -> list[Parity]:
    """What is known of a GPU's decoders on this machine; found out now if nothing is."""
    key = measured.key_of("decoders by pixels", device)
    known = measured.recall(key)
    if known is None:
        samples = plan.selected
        trial = Trial(samples[:: max(1, len(samples) // _IMAGES)][:_IMAGES], plan.dataset.turn_exif)
        known = [asdict(parity) for parity in _tried(trial, WorkerSpec(device, device), in_process, deadline)]
        if any(not parity["refused"] for parity in known):
            measured.remember(key, known)
    return [Parity(**parity) for parity in known]


@dataclass(slots=True)
class Trial:
    """What is to be found out, and what was.

    Attributes:
        samples: whose images are decoded.
        turn_exif: see `fgfast.io.decode.decode`.
        found: one entry per decoder.
    """

    samples: Sequence[Sample]
    turn_exif: bool
    found: list[Parity] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TrialJob:
    """Tries decoders in a worker process of its own, which takes the GPU's memory with it when it ends."""

    phases: int = 1

    def open(self, spec: WorkerSpec) -> TrialRuntime:
        """Nothing is loaded yet."""
        return TrialRuntime([_TryDecoders(spec.device)])


@dataclass(frozen=True, slots=True)
class TrialRuntime:
    """A TrialJob, opened; see `fgfast.runner.JobRuntime`."""

    stages: list[Stage[Trial]]
    threads: int = 1
    failures: Failures = field(default_factory=Failures)
    facts: dict[str, Any] = field(default_factory=dict)

    def result_of(self, finished: Finished[Trial]) -> list[Parity]:
        """What was found; nothing where the trial failed."""
        return [] if finished.error is not None else finished.item.found


@dataclass(frozen=True, slots=True)
class _TryDecoders:
    """The one stage of the trial."""

    device: str
    name: str = "decode"

    def __call__(self, trial: Trial) -> None:
        trial.found = try_decoders(trial.samples, trial.turn_exif, self.device)


def _tried(trial: Trial, spec: WorkerSpec, in_process: bool, deadline: float) -> list[Parity]:
    if in_process:
        run_item(TrialJob().open(spec).stages, trial)
        return trial.found
    found: list[list[Parity]] = []
    stop = threading.Event()
    with Supervisor(TrialJob(), [spec], lambda trial, reason, detail: [], deadline=deadline) as supervisor:
        supervisor.open(stop)
        supervisor.run([trial], found.extend, stop)
    return found[0] if found else []


def try_decoders(samples: Sequence[Sample], turn_exif: bool, device: str) -> list[Parity]:
    """Pixels and rates of the decoders that a GPU has, beside the CPU's."""
    files: dict[str, bytes] = {}
    pixels: dict[str, UInt8] = {}
    for sample in samples:
        with suppress(SampleError):
            data = read_bytes(sample.path)
            pixels[sample.key] = decode(data, sample.key, turn_exif).pixels
            files[sample.key] = data
    found = []
    for name in available(device) if files else ():
        if name in ON_GPU:
            try:
                found.append(_parity(decoder(name, device, available_cores()), files, pixels, turn_exif))
            except FgfastError as error:
                found.append(Parity(name, refused=str(error)))
    return found


def _parity(theirs: Decoder, files: dict[str, bytes], pixels: dict[str, UInt8], turn_exif: bool) -> Parity:
    contents, names = list(files.values()), list(files)
    images = zip(theirs(contents, names, turn_exif), pixels.values(), strict=True)
    pairs = [(image.pixels, wanted) for image, wanted in images if not isinstance(image, SampleError)]
    if not pairs:
        return Parity(theirs.name, refused="it decodes none of the sample")
    mean, largest = check_pixels([mine for mine, _ in pairs], [wanted for _, wanted in pairs])
    speed = rates([theirs, decoder("cpu", threads=available_cores())], contents)
    return Parity(theirs.name, len(pairs), mean, largest, speed[theirs.name], speed["cpu"])


def rates(decoders: Sequence[Decoder], files: Sequence[bytes], rounds: int = 3) -> dict[str, float]:
    """Images per second of each decoder, by name: medians of rounds in which each has its turn.

    Args:
        decoders: with different names.
        files: contents of images; each decoder gets them in batches of the size that it prefers.
        rounds: timed rounds. One before them is not timed, so that what is made at first use exists.
    """
    names = [f"{n}" for n in range(len(files))]
    found: dict[str, list[float]] = {each.name: [] for each in decoders}
    for number in range(rounds + 1):
        for each in decoders:
            start = time.perf_counter()
            for at in range(0, len(files), each.batch):
                each(files[at : at + each.batch], names[at : at + each.batch], False)
            if number:
                found[each.name].append(len(files) / (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in found.items()}
