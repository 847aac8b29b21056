"""The job of a simulated run: the stages of a conversion with Detic and SAM, the models asleep.

With measured costs, the steps on the CPU sleep too: each takes a core's token for its time, and the GIL's for its share
of it. Without, they are the real ones. The runner, the ledger and the commit of files are the real ones either way;
simulated steps write files of one byte.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fgfast.bench.simulate_clock import CoreTokens, Cost, SimulatedCpu
from fgfast.bench.simulate_models import SleepingDetic, SleepingDevice, SleepingModel, SleepingSam, Timed
from fgfast.config import Settings
from fgfast.files import FileStamp
from fgfast.io.encode import FORMAT_SUFFIXES
from fgfast.pipeline.batched_stages import ChoosePrompt, FinishMask, detect_stage, encode_stage
from fgfast.pipeline.judging import Judge, weights_of
from fgfast.pipeline.stages import Cut, Decode, Write
from fgfast.pipeline.work import ConvertRuntime, Result, Work
from fgfast.records import Mask, Size
from fgfast.runner import BatchedStage, Finished, Handoff, SlotModel, Stage, Step, WorkerSpec
from fgfast.writing import TempFiles

STEPS = (
    *("decode", "detect.fill", "detect.after", "detect.choose", "encode.fill", "encode.after"),
    *("mask", "judge", "cut", "write"),
)
"""The pieces of work of an image on the CPU; "X.fill" prepares the input of a model, "X.after" reads its output."""


@dataclass(slots=True)
class Trace:
    """What became of an image.

    Attributes:
        spans: worker, start and end of each batch that it was in, time.monotonic().
        cpu: worker, time.monotonic() and the process's CPU seconds, when each of its phases was finished.
        waited: seconds for which its steps waited for a core or for the GIL.
        steps: where the work on the CPU is real, the sums of `StepTimes` when it was finished.
    """

    spans: list[tuple[str, float, float]] = field(default_factory=list)
    cpu: list[tuple[str, float, float]] = field(default_factory=list)
    waited: float = 0.0
    steps: Mapping[str, tuple[float, int]] = field(default_factory=dict)


@dataclass(slots=True)
class TracedWork(Work):
    """A sample in flight, and what became of it."""

    trace: Trace = field(default_factory=Trace)


@dataclass(frozen=True, slots=True)
class TracedResult(Result):
    """The result of an image, and what became of it."""

    trace: Trace = field(default_factory=Trace)


class StepTimes:
    """The CPU time that a worker's threads spend in each step, as the system counts it. For any number of threads."""

    def __init__(self) -> None:
        self._sums = dict.fromkeys(STEPS, (0.0, 0))
        self._lock = threading.Lock()

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that calls another one and adds the time of its thread to a step."""

        def timed(*arguments: Any) -> Any:
            start = time.thread_time()
            found = call(*arguments)
            spent = time.thread_time() - start
            with self._lock:
                seconds, times = self._sums[name]
                self._sums[name] = seconds + spent, times + 1
            return found

        return timed

    def sums(self) -> dict[str, tuple[float, int]]:
        """Return step -> CPU seconds, and how often it was done."""
        with self._lock:
            return dict(self._sums)


@dataclass(frozen=True, slots=True)
class TracedRuntime(ConvertRuntime):
    """The opened job.

    Attributes:
        worker: its worker's name.
        times: of its steps, where the work on the CPU is real.
    """

    worker: str = ""
    times: StepTimes | None = None

    def result_of(self, finished: Finished[Work]) -> Result | Handoff[Work]:
        """Return the result of an image with its trace, or the image for the worker that segments."""
        trace: Trace = finished.item.trace  # type: ignore[attr-defined]
        trace.cpu.append((self.worker, time.monotonic(), time.process_time()))
        if self.times is not None:
            trace.steps = self.times.sums()
        found = ConvertRuntime.result_of(self, finished)
        if isinstance(found, Handoff):
            return found
        return TracedResult(found.position, found.outcome, found.temp_files, trace)


@dataclass(frozen=True, slots=True, eq=False)
class Simulated:
    """What takes the place of the work on the CPU.

    Attributes:
        costs: what each of `STEPS` costs.
        beside: what the runner computes for real beside each step.
        tokens: the simulated cores.
        templates: works that went through the real stages; they lend the simulated ones their results.
        canvases: size of an image -> Detic's canvas.
    """

    costs: Mapping[str, Cost]
    beside: Cost
    tokens: CoreTokens
    templates: tuple[Work, ...]
    canvases: Mapping[Size, Size]


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedJob:
    """Makes cut-outs with models that sleep. It is pickled and opened in each worker process.

    Attributes:
        settings: of the conversion.
        turn_exif: see `fgfast.io.decode.decode`.
        out, images, masks: the output folder, and the folders of the twin and of the masks in it.
        threads: of each worker's pool.
        seconds: stage of a model -> the device's seconds per image.
        cpu: what takes the place of the work on the CPU; None leaves it as it is.
    """

    settings: Settings
    turn_exif: bool
    out: Path
    images: str
    masks: str
    threads: int
    seconds: Mapping[str, float]
    cpu: Simulated | None = None
    phases: int = 2

    def open(self, spec: WorkerSpec) -> TracedRuntime:
        """Create the stages of a worker."""
        detects, segments = (phase in range(*spec.phases) for phase in (0, 1))
        times = None
        if self.cpu is None:
            import cv2

            cv2.setNumThreads(1)
            times = StepTimes()
            stages = [_timed(stage, times) for stage in self.real_stages(spec.name, detects, segments)]
        else:
            stages = self._simulated(spec.name, self.cpu, detects, segments)
        return TracedRuntime(stages, self.threads, segments, {"process": os.getpid()}, worker=spec.name, times=times)

    def real_stages(self, worker: str, detects: bool = True, segments: bool = True) -> list[Stage[Work]]:
        """Return the stages that do all work on the CPU."""
        from fgfast.models.sam.segmenter import finish

        device = SleepingDevice(worker)
        models = (SleepingDetic(device, self.seconds["detect"]), SleepingSam(device, self.seconds["encode"]))
        return self._stages(models, finish, detects, segments)

    def _stages(
        self, models: Sequence[SlotModel], finish: Callable[[Any, int, int], Mask], detects: bool, segments: bool
    ) -> list[Stage[Work]]:
        """Return the stages in the order of ConvertJob.open."""
        stages: list[Stage[Work]] = [Decode(self.turn_exif)]
        if detects:
            stages += [_traced(detect_stage(models[0])), ChoosePrompt(frozenset())]
        if segments:
            given = self.settings
            cut = Cut(given.fill, None, given.crop, given.pad)
            suffix, files = FORMAT_SUFFIXES.get(given.format), TempFiles(self.out)
            stages += [_traced(encode_stage(models[1])), FinishMask(finish)]
            stages += [Judge(weights_of(given), masks=True, boxes=True), cut]
            stages += [Write(files, self.images, self.masks, given.masks, suffix, given.quality)]
        return stages

    def _simulated(self, worker: str, given: Simulated, detects: bool, segments: bool) -> list[Stage[Work]]:
        cpu, device = SimulatedCpu(given.tokens, given.beside), SleepingDevice(worker)
        pay = _Payment(given.costs, cpu)
        by_model = {"detect": given.canvases, "encode": None}
        models = [
            _PaidModel(SleepingModel(device, self.seconds[name], cpu.late, own), name, pay)
            for name, own in by_model.items()
        ]
        stages = self._stages(models, _no_mask, detects, segments)
        return [stage if isinstance(stage, BatchedStage) else self._slept(stage, given, pay) for stage in stages]

    def _slept(self, stage: Step[Work], given: Simulated, pay: _Payment) -> _Slept:
        effect = _EFFECTS.get(stage.name, _nothing)
        if isinstance(stage, Write):
            effect = _Stub(stage)
        return _Slept(stage.name, step_name(stage), given.templates, effect, pay)


def step_name(stage: Step[Work]) -> str:
    """Return the name of a step among `STEPS`."""
    return "detect.choose" if stage.name == "detect" else stage.name


@dataclass(frozen=True, slots=True)
class _TimedStep:
    """A step whose time is added up."""

    name: str
    call: Callable[[Work], None]

    def __call__(self, work: Work) -> None:
        self.call(work)


def _timed(stage: Stage[Work], times: StepTimes) -> Stage[Work]:
    """Return a stage that adds up the CPU time of what it does with an image."""
    if not isinstance(stage, BatchedStage):
        return _TimedStep(stage.name, times.timed(step_name(stage), stage))
    model: Any = stage.model
    model.fill = times.timed(f"{stage.name}.fill", model.fill)
    model.read = times.timed(f"{stage.name}.after", model.read)
    return stage


def _traced(stage: BatchedStage[Work]) -> BatchedStage[Work]:
    """Return the same stage, which also notes in each work when the device computed it."""

    def store(work: Work, found: Timed) -> None:
        work.trace.spans.append((found.worker, found.start, found.end))  # type: ignore[attr-defined]
        stage.store(work, found.value)

    return replace(stage, store=store)


def _no_mask(found: Any, height: int, width: int) -> Mask:
    raise AssertionError("a simulated step makes no mask")


class _Payment:
    """Spends the costs of pieces of work.

    The steps pass the work on; models, which only see their inputs, spend theirs within the same thread. What they
    waited is kept per thread until a step of that thread adds it to its work.
    """

    def __init__(self, costs: Mapping[str, Cost], cpu: SimulatedCpu) -> None:
        self._costs, self._cpu = costs, cpu
        self._waited = threading.local()

    def __call__(self, name: str, work: Work | None = None) -> None:
        waited = self._cpu.work(self._costs[name]) + getattr(self._waited, "seconds", 0.0)
        self._waited.seconds = waited
        if work is not None:
            work.trace.waited += waited  # type: ignore[attr-defined]
            self._waited.seconds = 0.0


class _PaidModel(SleepingModel):
    """A sleeping model whose filling and reading cost what the real ones cost."""

    def __init__(self, model: SleepingModel, name: str, pay: _Payment) -> None:
        super().__init__(model._on, model._seconds, model._late, model._canvases)
        self._name, self._pay = name, pay

    def fill(self, slot: Any, row: int, *inputs: Any) -> None:
        """Spend the cost of filling a row."""
        self._pay(f"{self._name}.fill")

    def read(self, slot: Any, row: int) -> Timed:
        """Spend the cost of reading a row; return the time of the batch."""
        self._pay(f"{self._name}.after")
        return super().read(slot, row)


@dataclass(frozen=True, slots=True)
class _Slept:
    """A step that sleeps, and takes its results from a template.

    Attributes:
        name: of the step.
        cost: its name among the costs.
        templates: see Simulated.
        effect: copies the results of the step from a template into a work.
        pay: spends its cost.
    """

    name: str
    cost: str
    templates: tuple[Work, ...]
    effect: Callable[[Work, Work], None]
    pay: _Payment

    def __call__(self, work: Work) -> None:
        self.pay(self.cost, work)
        self.effect(work, self.templates[work.position % len(self.templates)])


def _decoded(work: Work, template: Work) -> None:
    work.image, work.source = template.image, template.source


def _chosen(work: Work, template: Work) -> None:
    work.prompt, work.others = template.prompt, template.others


def _masked(work: Work, template: Work) -> None:
    work.mask, work.numbers, work.flags = template.mask, template.numbers, list(template.flags)


def _judged(work: Work, template: Work) -> None:
    work.doubt = template.doubt


def _cut(work: Work, template: Work) -> None:
    work.cutout = template.cutout


def _nothing(work: Work, template: Work) -> None:
    pass


_EFFECTS = {"decode": _decoded, "detect": _chosen, "mask": _masked, "judge": _judged, "cut": _cut}


@dataclass(frozen=True, slots=True)
class _Stub:
    """Writes files of one byte, so that the parent has as many files to commit.

    Attributes:
        write: the real step, which knows their names.
    """

    write: Write

    def __call__(self, work: Work, template: Work) -> None:
        real = self.write
        for name in (f"{real.images}/{work.twin}", f"{real.masks}/{work.mask_name}"):
            temp, mtime_ns = real.temp_files.write(name, b"\0")
            work.temp_files.append((temp, name))
            work.files[name] = FileStamp(1, mtime_ns, bytes(32))
        work.rle = template.rle
