"""The choice of a decoder where several are available: the fastest with correct pixels.

Pixels and rates are compared with the CPU decoder's once per machine and package versions, on a sample of the data set;
that takes seconds, needs no models, and is cached. `fgfast bench decoders` also compares masks; its verdict has
precedence.
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

from fgfast.config.values import ON_GPU, DecoderName
from fgfast.errors import SampleError
from fgfast.io.batched import BatchedDecoder, header_for_library
from fgfast.io.decode import decode, read_bytes
from fgfast.io.decoders import Decoder, available, decoder
from fgfast.io.output import Mode, Output
from fgfast.machine import available_cores
from fgfast.models.files import measured
from fgfast.pipeline.plan import Plan
from fgfast.records import Sample, UInt8
from fgfast.runner import Failures, Finished, Supervisor, WorkerSpec

# Number of images of the data set that all decoders decode for the comparison: a second's work for a GPU; and number of
# files that are read to find as many plain JPEGs, because decoders on a GPU pass everything else to the CPU's.
_IMAGES, _FILES = 16, 64
# A comparison of fewer images holds for this run only.
_ENOUGH = 8
# A decoder must be faster than the CPU's by this factor to justify its different pixels.
_GAIN = 1.1
# Largest mean difference of a correct decoder's pixels over an image, in grey levels. Different rounding and chroma
# interpolation stay below one level on photographs; swapped channels, a limited range of values or a rotated image
# differ by five or more.
MEAN_LEVELS = 1.0


@dataclass(frozen=True, slots=True)
class Parity:
    """The comparison of a decoder with the CPU's on a sample.

    Attributes:
        decoder: the decoder's name.
        images: number of images compared.
        mean_levels: the mean difference of the pixels of the worst image, in grey levels.
        largest_levels: the largest difference of any channel of any pixel, in grey levels.
        rate: images per second.
        cpu_rate: images per second of the CPU's decoder, measured in turns with it.
        refused: the reason why it could not be tried; empty where it was.
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
        """Whether its pixels are correct."""
        return not self.refused and self.images > 0 and self.mean_levels <= MEAN_LEVELS

    @property
    def faster(self) -> bool:
        """Whether it is sufficiently faster than the CPU's decoder."""
        return self.rate >= _GAIN * self.cpu_rate

    def sentence(self) -> str:
        """Return the finding, for run.json and the console."""
        if self.refused:
            return f"{self.decoder} cannot be used: {self.refused}"
        return (
            f"{self.decoder} {self.rate:.0f} images per second, cpu {self.cpu_rate:.0f}; pixels of {self.images} "
            f"images differ by {self.mean_levels:.2f} grey levels on average at most ({MEAN_LEVELS:g} is allowed), by "
            f"{self.largest_levels} at most"
        )


def check_pixels(ours: Sequence[UInt8], theirs: Sequence[UInt8]) -> tuple[float, int]:
    """Compare a decoder's pixels with the CPU decoder's, for the same images, (H, W, 3) uint8 each.

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
    plan: Plan,
    output: Output,
    mode: Mode,
    *,
    stop: threading.Event,
    in_process: bool,
    deadline: float,
    on_message: Callable[[str], None],
) -> Plan:
    """Return the plan with a decoder: that of the run to resume, or else the fastest with correct pixels here."""
    if plan.settings.decoder != "auto":
        return plan
    device = next(device for device in plan.settings.places if available(device)[0] in ON_GPU)
    before = None if mode == "overwrite" else output.recorded()
    if before is not None and before.get("decoder") in available(device):
        name, reason = before["decoder"], "that of the resumed run"
    else:
        name, reason = fastest(findings(plan, device, stop, in_process, deadline), device, plan.settings.segmenter)
    reason = f"decoder {name}: {reason}"
    on_message(reason)
    return replace(
        plan,
        settings=replace(plan.settings, decoder=cast(DecoderName, name)),
        reasons=(*plan.reasons, reason),
        fingerprint={**plan.fingerprint, "decoder": name},
    )


def fastest(found: Sequence[Parity], device: str, segmenter: str) -> tuple[str, str]:
    """Return the decoder to use, and the reason."""
    reasons = [parity.sentence() for parity in found]
    for parity in sorted((parity for parity in found if not parity.refused), key=lambda parity: -parity.rate):
        verdict = measured.recall(verdict_key(parity.decoder, device, segmenter))
        if verdict is not None:
            reasons.append(f"`fgfast bench decoders` found {parity.decoder}'s masks {'right' if verdict else 'wrong'}")
        if parity.faster and (parity.right if verdict is None else verdict):
            return parity.decoder, "; ".join(reasons)
    return "cpu", "; ".join(reasons) or "there is no plain JPEG in a sample of the data set to compare decoders with"


def verdict_key(name: str, device: str, segmenter: str) -> str:
    """Return the key of the verdict of `fgfast bench decoders` on a decoder in fgfast.models.files.measured.

    A verdict concerns one segmenter: pixels that change the masks of one may not change those of another.
    """
    return measured.key_of(f"decoder {name} by masks of {segmenter}", device)


def findings(plan: Plan, device: str, stop: threading.Event, in_process: bool, deadline: float) -> list[Parity]:
    """Return the cached findings about a GPU's decoders on this machine, or find them now.

    They are cached if every decoder could be tried, on enough images.
    """
    key = measured.key_of("decoders by pixels", device)
    with suppress(TypeError):  # nothing is cached, or something else
        return [Parity(**parity) for parity in measured.recall(key)]
    samples = plan.selected
    trial = Trial(samples[:: max(1, len(samples) // _FILES)][:_FILES], plan.dataset.turn_exif, device)
    found = _tried(trial, stop, in_process, deadline)
    if found and all(not parity.refused and parity.images >= _ENOUGH for parity in found):
        measured.remember(key, [asdict(parity) for parity in found])
    return found


@dataclass(slots=True)
class Trial:
    """The item of a `TrialJob`.

    Attributes:
        samples: the samples whose images are decoded.
        turn_exif: see `fgfast.io.decode.decode`.
        device: the GPU.
        found: the findings, one per decoder.
    """

    samples: Sequence[Sample]
    turn_exif: bool
    device: str
    found: list[Parity] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TrialJob:
    """Tries decoders in a worker process, whose end frees the GPU's memory; the job, its runtime and its only stage."""

    name: str = "decode"
    phases: int = 1
    threads: int = 1
    failures: Failures = field(default_factory=Failures)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def stages(self) -> list[TrialJob]:
        """This job."""
        return [self]

    def open(self, spec: WorkerSpec) -> TrialJob:
        """Return this job: it loads nothing in advance."""
        return self

    def __call__(self, trial: Trial) -> None:
        trial.found = try_decoders(trial.samples, trial.turn_exif, trial.device)

    def result_of(self, finished: Finished[Trial]) -> list[Parity]:
        """Return the findings; that no decoder can be used where the trial failed."""
        return finished.item.found if finished.error is None else all_refused(finished.item, str(finished.error))


def all_refused(trial: Trial, reason: str) -> list[Parity]:
    """Return the findings of a trial that failed as a whole."""
    return [Parity(name, refused=reason) for name in available(trial.device) if name in ON_GPU]


def _tried(trial: Trial, stop: threading.Event, in_process: bool, deadline: float) -> list[Parity]:
    if in_process:
        return try_decoders(trial.samples, trial.turn_exif, trial.device)
    found: list[list[Parity]] = []

    def crashed(trial: Trial, reason: str, detail: str) -> list[Parity]:
        return all_refused(trial, f"{reason}: {detail}" if detail else reason)

    with Supervisor(TrialJob(), [WorkerSpec(trial.device, trial.device)], crashed, deadline=deadline) as supervisor:
        supervisor.open(stop)
        supervisor.run([trial], found.extend, stop)
    return found[0] if found else all_refused(trial, "the trial was stopped")


def try_decoders(samples: Sequence[Sample], turn_exif: bool, device: str) -> list[Parity]:
    """Compare the pixels and rates of a GPU's decoders with the CPU's."""
    files: dict[str, bytes] = {}
    pixels: dict[str, UInt8] = {}
    for sample in samples:
        with suppress(SampleError):
            data = read_bytes(sample.path)
            if len(files) < _IMAGES and header_for_library(data, turn_exif) is not None:
                pixels[sample.key] = decode(data, sample.key, turn_exif).pixels
                files[sample.key] = data
    found = []
    for name in available(device) if files else ():
        if name in ON_GPU:
            try:
                found.append(_parity(decoder(name, device, available_cores()), files, pixels, turn_exif))
            except Exception as error:  # libraries raise many kinds; the others are tried all the same
                found.append(Parity(name, refused=str(error) or type(error).__name__))
    return found


def _parity(theirs: Decoder, files: dict[str, bytes], pixels: dict[str, UInt8], turn_exif: bool) -> Parity:
    contents, names = list(files.values()), list(files)
    images = zip(theirs(contents, names, turn_exif), pixels.values(), strict=True)
    pairs = [(image.pixels, wanted) for image, wanted in images if not isinstance(image, SampleError)]
    # A file that the library refuses has the pixels of the CPU's decoder.
    if isinstance(theirs, BatchedDecoder) and theirs.counts["batched"] < len(files):
        return Parity(theirs.name, refused=f"it decodes {theirs.counts['batched']} of {len(files)} plain JPEGs")
    mean, largest = check_pixels([mine for mine, _ in pairs], [wanted for _, wanted in pairs])
    speed = rates([theirs, decoder("cpu", threads=available_cores())], contents)
    return Parity(theirs.name, len(pairs), mean, largest, speed[theirs.name], speed["cpu"])


def rates(decoders: Sequence[Decoder], files: Sequence[bytes], rounds: int = 3) -> dict[str, float]:
    """Return each decoder's images per second, by name: medians of rounds in which they take turns.

    Args:
        decoders: decoders with different names.
        files: contents of image files; each decoder gets them in batches of its preferred size.
        rounds: number of timed rounds, after one that is not timed and creates what is needed at first use.
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
