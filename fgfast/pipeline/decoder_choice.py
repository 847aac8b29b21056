"""Which decoder a run uses where several are there: the fastest on its images whose pixels give the same masks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from fgfast.config import DecoderName, Settings
from fgfast.errors import FgfastError, SampleError
from fgfast.io.decode import decode, read_bytes
from fgfast.io.decoders import ON_GPU, Decoder, Gate, available, decoder, judge, rates
from fgfast.machine import available_cores
from fgfast.pipeline.job import ConvertJob
from fgfast.pipeline.plan import Plan
from fgfast.pipeline.stages import Work
from fgfast.records import Bool, Image, Sample
from fgfast.runner import Failures, Finished, Seat, Stage, is_batched

# So many images of the data set are decoded by all and compared: a second's work for a GPU.
_IMAGES = 16
# A decoder must be so much faster than the CPU's before its other pixels are worth having.
_GAIN = 1.1


@dataclass(frozen=True, slots=True)
class GateJob:
    """Chooses a decoder in a worker process of its own, which takes the GPU's memory with it when it ends.

    Its one item is a `Trial`, its result (decoder, why).
    """

    settings: Settings
    subject: tuple[str, ...]
    turn_exif: bool
    parts: int = 1

    @classmethod
    def of(cls, plan: Plan) -> GateJob:
        """For the data set and the models of a plan."""
        return cls(plan.settings, tuple(plan.dataset.subject), plan.dataset.turn_exif)

    def open(self, seat: Seat) -> OpenGate:
        """As fgfast.runner.Job.open. Models are loaded when they are needed."""
        return OpenGate([_Choose(self, seat.device)])

    def convert_job(self) -> ConvertJob:
        """What masks are made with."""
        nowhere = Path()
        settings = replace(self.settings, decoder="cpu")
        return ConvertJob(settings, self.subject, self.turn_exif, nowhere, nowhere, None, 1)


@dataclass(frozen=True, slots=True)
class OpenGate:
    """See `fgfast.runner.messages.Opened`."""

    stages: list[Stage[Any]]
    threads: int = 1
    failures: Failures = field(default_factory=Failures)
    facts: dict[str, Any] = field(default_factory=dict)

    def close(self, finished: Finished[Any]) -> tuple[DecoderName, str]:
        """The decoder, and why."""
        if finished.error is not None:
            return "cpu", f"the others could not be tried: {finished.error}"
        chosen: tuple[DecoderName, str] = finished.item.chosen
        return chosen


class _Choose:
    """The one stage."""

    name = "choose"

    def __init__(self, job: GateJob, device: str) -> None:
        self._job, self._device = job, device

    def __call__(self, trial: Trial) -> None:
        trial.chosen = choose(self._job, self._device, trial.samples)


@dataclass(slots=True)
class Trial:
    """What is to be decided, and the decision."""

    samples: Sequence[Sample]
    chosen: tuple[DecoderName, str] = ("cpu", "")


def sample_of(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Some of the samples, spread evenly over their order."""
    return samples[:: max(1, len(samples) // _IMAGES)][:_IMAGES]


def choose(job: GateJob, device: str, samples: Sequence[Sample]) -> tuple[DecoderName, str]:
    """The decoder for these samples, and why in a sentence."""
    files: dict[str, tuple[Sample, bytes]] = {}
    for sample in samples:
        with suppress(SampleError):
            data = read_bytes(sample.path)
            decode(data, sample.key, job.turn_exif)
            files[sample.key] = sample, data
    if not files:
        return "cpu", "no image of a sample of the data set can be decoded"
    candidates, refused = _candidates(device)
    contents = [data for _, data in files.values()]
    speed = rates([*candidates, decoder("cpu", threads=available_cores())], contents)
    told = ", ".join(f"{name} {rate:.0f}" for name, rate in speed.items()) + " images per second"
    said = [told, *refused]
    for candidate in sorted(candidates, key=lambda c: speed[c.name], reverse=True):
        if speed[candidate.name] < _GAIN * speed["cpu"]:
            break
        gate = _compare(job, device, candidate, files)
        said.append(gate.sentence() if gate else f"{candidate.name} decodes none of the sample")
        if gate and gate.passed:
            return cast(DecoderName, candidate.name), "; ".join(said)
    return "cpu", "; ".join(said)


def _candidates(device: str) -> tuple[list[Decoder], list[str]]:
    """The GPU's decoders that can be made here, and what kept the others from it."""
    made, refused = [], []
    for name in available(device):
        if name in ON_GPU:
            try:
                made.append(decoder(name, device, available_cores()))
            except FgfastError as error:
                refused.append(f"{name} cannot be used: {error}")
    return made, refused


def _compare(job: GateJob, device: str, candidate: Decoder, files: dict[str, tuple[Sample, bytes]]) -> Gate | None:
    """Masks from a decoder's pixels beside those from the CPU's."""
    masks = Masks(job, device)
    theirs = candidate([data for _, data in files.values()], list(files), job.turn_exif)
    pairs, first, second = [], [], []
    for (sample, data), other in zip(files.values(), theirs, strict=True):
        if isinstance(other, SampleError):
            continue
        image = decode(data, sample.key, job.turn_exif)
        pairs.append((other.pixels, image.pixels))
        first.append(masks(sample, other))
        second.append(masks(sample, image))
    return judge(candidate.name, first, second, pairs) if pairs else None


class Masks:
    """Masks of images that are decoded already: the stages of a run between decoding and cutting, one at a time."""

    def __init__(self, job: GateJob, device: str) -> None:
        convert = job.convert_job()
        stages = convert.open(Seat(device, device, (0, convert.parts))).stages
        self._stages = [stage for stage in stages if stage.name in ("detect", "encode", "mask")]

    def __call__(self, sample: Sample, image: Image) -> Bool:
        """The mask (H, W) bool of one image."""
        work = Work(0, sample, sample.key, image=image)
        for stage in self._stages:
            if is_batched(stage):
                batched: Any = stage
                slot = batched.slot(batched.bucket(work))
                batched.fill(slot, 0, work)
                batched.launch(slot, 1)
                batched.wait(slot)
                batched.read(slot, 0, work)
            else:
                step: Any = stage
                step(work)
        assert work.mask is not None
        return work.mask.bits
