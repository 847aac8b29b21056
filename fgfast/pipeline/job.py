"""The job of a worker process: the stages of the settings, on one device."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fgfast import methods, ops
from fgfast.config import Settings
from fgfast.errors import FgfastError, UsageError
from fgfast.io import warned
from fgfast.io.decoders import decoder
from fgfast.io.encode import FORMAT_SUFFIXES
from fgfast.methods import Method, ModelSpec
from fgfast.models.serving import chosen
from fgfast.pipeline.annotated import ReadMask
from fgfast.pipeline.batched_stages import (
    ChoosePrompt,
    DecoderModel,
    FinishMask,
    Rechecked,
    decode_stage,
    detect_stage,
    encode_stage,
)
from fgfast.pipeline.host_time import seconds_held
from fgfast.pipeline.judging import Judge, weights_of
from fgfast.pipeline.placement import Cost, asked
from fgfast.pipeline.stages import Cut, Decode, Detect, MaskSubject, Write, annotations_detector
from fgfast.pipeline.work import FAILURES, ConvertRuntime, Work
from fgfast.records import Float32, Image, UInt8, plain
from fgfast.runner import BatchedStage, SlotModel, Stage, WorkerSpec, warm_up
from fgfast.writing import TempFiles

# Characters of a library's message that are passed on; some come with a page of advice.
_LONGEST = 300
# (height, width) in pixels, the most common size in the supported data sets; and a box in it.
_SIZE, _BOX = (375, 500), (100, 75, 300, 300)


@dataclass(frozen=True, slots=True, eq=False)
class ConvertJob:
    """Makes cut-outs. It is pickled and opened in each worker process.

    Attributes:
        settings: the settings, with every "auto" replaced.
        detector, segmenter: their entries in the table of methods.
        subject: the subject of the images, in the data set's words.
        turn_exif: see `fgfast.io.decode.decode`.
        out: the output folder.
        images: folder of the twin.
        masks: folder of the masks.
        background: pixels of the background's image, (H, W, 3) uint8 RGB, if there is one.
        threads: number of threads in each worker's pool.
        measure: whether to time the models when the job is opened.
        per_device: the number of images for each device; None where it is not known.
    """

    settings: Settings
    detector: Method
    segmenter: Method
    subject: tuple[str, ...]
    turn_exif: bool
    out: Path
    images: str
    masks: str
    background: UInt8 | None
    threads: int
    measure: bool = False
    per_device: int | None = None

    @property
    def phases(self) -> int:
        """Two where there are two models, else one."""
        return 2 if self.detector.is_model and self.segmenter.is_model else 1

    @property
    def cost(self) -> Cost:
        """The multiply-accumulates of both models."""
        return Cost(self.detector.gmac or 1.0, self.segmenter.gmac or 1.0)

    def open(self, spec: WorkerSpec) -> ConvertRuntime:
        """Load the models and create the stages.

        Raises:
            ModelNotCachedError: a model's weights are not on this machine.
            MissingExtraError: a package is not installed.
            UsageError: the subject of the images is not known, or a library cannot run a model on this device.
        """
        warned.capture_for_good()
        ops.implementation()  # resolved now, so that a broken one raises here and not once per image
        self._set_threads(spec.device)
        detects, segments = (self.phases == 1 or phase in range(*spec.phases) for phase in (0, 1))
        stages = [self._decode(spec.device)]
        if detects and not self.segmenter.annotated:
            stages += detect_stages(self.settings, self.detector, self.subject, spec.device, self.per_device)
        if segments:
            stages += segment_stages(self.settings, self.segmenter, spec.device, self.per_device)
            cut = Cut(self.settings.fill, self.background, self.settings.crop, self.settings.pad)
            suffix = FORMAT_SUFFIXES.get(self.settings.format)
            temp_files = TempFiles(self.out)
            write = Write(temp_files, self.images, self.masks, self.settings.masks, suffix, self.settings.quality)
            told = not (self.segmenter.annotated or self.detector.annotated)
            masks = self.segmenter.flagged and not self.segmenter.annotated
            stages += [Judge(weights_of(self.settings), masks, told), cut, write]
        facts: dict[str, Any] = {"process": os.getpid(), "device": spec.device}
        models = {s.name: s for s in stages if isinstance(s, BatchedStage) and s.name in ("detect", "encode")}
        for stage in models.values():
            with explained(self._model_of(stage), self.settings, spec.device):
                _try_out(stage)
        if self.measure:
            facts["seconds"] = {name: self._seconds(stage) for name, stage in models.items()}
            if models and spec.device.startswith("cuda"):
                facts |= self._load(spec.device, stages)
        facts["chosen"] = chosen.sentences()
        return ConvertRuntime(stages, self.threads, segments, facts)

    def _set_threads(self, device: str) -> None:
        """Set the threads of OpenCV, which runs in the pool's threads, and of the models, which have torch's."""
        import cv2

        cv2.setNumThreads(1)
        if device == "cpu" and (self.detector.is_model or self.segmenter.is_model):
            from fgfast.models.serving.devices import compute_with

            compute_with(self.settings.model_threads, shared=self._on_cpu() > 1)

    def _on_cpu(self) -> int:
        """Return the number of workers on the CPU."""
        return self.settings.places.count("cpu") * (asked(self.settings.workers_per_device) or 1)

    def _decode(self, device: str) -> Stage[Work]:
        name = self.settings.decoder
        if name == "cpu":
            return Decode(self.turn_exif)
        return decode_stage(DecoderModel(decoder(name, device, self.threads), self.turn_exif, f"{device} decoder"))

    def _seconds(self, stage: BatchedStage[Work]) -> float:
        """Return a model's seconds per image in full batches, measured once per machine."""
        from fgfast.models.serving.forms import form_of
        from fgfast.models.serving.speed import remembered, seconds_per_image

        settings, model = self.settings, stage.model
        name, at_once = self._model_of(stage), settings.places.count(model.device)
        how = settings.backend
        if how == "torch":
            how += f" {form_of(settings.spec(name, model.device, self.per_device))}"
        key = f"{name} {settings.precision} in batches of {model.batch}, {at_once} at once"
        inputs = _inputs(stage, *_SIZE)
        seconds = remembered(key, model.device, how, lambda: seconds_per_image(model, inputs))
        assert seconds is not None
        return seconds

    def _model_of(self, stage: BatchedStage[Work]) -> str:
        return self.settings.detector if stage.name == "detect" else self.settings.segmenter

    def _load(self, device: str, stages: list[Stage[Work]]) -> dict[str, Any]:
        """Return the facts by which the number of workers on this GPU is chosen: the seconds per image for which this
        process holds Python's lock, measured once per machine, or why they are not known; free and total bytes of the
        device's memory.
        """
        from fgfast.models.serving.devices import memory
        from fgfast.models.serving.speed import remembered

        s = self.settings
        key = f"Python's lock in {s.detector} {s.segmenter} {s.precision} {s.batch} {s.decoder} {s.format} {s.masks}"
        try:
            held = remembered(key, device, s.backend, lambda: seconds_held(stages, _SIZE, _BOX, self.threads))
        except FAILURES.broken:
            raise
        except Exception as error:
            return {"not_held": f"{type(error).__name__}: {error}"}
        return {"held": held, "memory": memory(device)}


def detect_stages(
    settings: Settings, detector: Method, subject: tuple[str, ...], device: str, images: int | None = None
) -> list[Stage[Work]]:
    """Create the stages from the image to the prompt, for so many images on this device.

    Raises:
        UsageError: a model is to detect, and neither the data set nor the settings name the subject.
    """
    build = methods.resolve(detector.build)
    if not detector.is_model:
        return [Detect(build(methods.ModelSpec(detector.name), ""))]
    words = settings.vocabulary or ",".join(subject)
    if not words:
        raise UsageError('name the subject: --vocabulary "bird,car", lvis, or a file with one name per line')
    spec = settings.spec(detector.name, device, images)
    with explained(detector.name, settings, device):
        model = build(spec, words)
    return [
        detect_stage(_rechecked(model, spec, lambda exact: build(exact, words))),
        ChoosePrompt(right_words(settings, subject)),
    ]


def right_words(settings: Settings, subject: Sequence[str]) -> frozenset[str]:
    """Return the names that count as the subject, in the form of `plain`; empty where every name does.

    They are the data set's words for its subject, or the user's own vocabulary, unless that is all of LVIS.
    """
    from fgfast.models.vocabulary import read_names

    if settings.vocabulary and settings.vocabulary != "lvis":
        return frozenset(plain(name) for name in read_names(settings.vocabulary))
    return frozenset(plain(word) for word in subject)


def segment_stages(settings: Settings, segmenter: Method, device: str, images: int | None = None) -> list[Stage[Work]]:
    """Create the stages from the prompt to the mask; for annotated masks, those from the image to prompt and mask."""
    build = methods.resolve(segmenter.build)
    if segmenter.annotated:
        spec = methods.ModelSpec(segmenter.name)
        return [ReadMask(build(spec), annotations_detector(spec, ""))]
    if not segmenter.is_model:
        look = settings.second_look
        return [MaskSubject(build(methods.ModelSpec(segmenter.name)), segmenter.flagged, look)]

    def looking(spec: ModelSpec) -> SlotModel:
        model = build(spec)
        if settings.second_look:
            model.second_look = True
        made: SlotModel = model
        return made

    spec = settings.spec(segmenter.name, device, images)
    with explained(segmenter.name, settings, device):
        model: Any = looking(spec)
    return [encode_stage(_rechecked(model, spec, looking)), FinishMask(model.finish)]


def _rechecked(model: SlotModel, spec: ModelSpec, build: Callable[[ModelSpec], SlotModel]) -> Rechecked:
    """Return the model of a spec, with the same model in PyTorch and float32 behind it, if it has another precision."""
    exact = replace(spec, precision="fp32", backend="torch", batch=1, form="eager")
    return Rechecked(model, None if spec.precision == "fp32" else lambda: build(exact))


@contextmanager
def explained(model: str, settings: Settings, device: str) -> Iterator[None]:
    """Convert a library's error inside, which is about this model on this device, to one that says what else to try.

    fgfast's own errors say that already; those of Python itself pass, because they are bugs.

    Raises:
        UsageError: a library cannot run the model on the device: no kernel for this GPU, a layer without an algorithm.
    """
    try:
        yield
    except Exception as error:
        foreign = isinstance(error, RuntimeError) or type(error).__module__.startswith("onnxruntime")
        if isinstance(error, FgfastError) or not foreign:
            raise
        from fgfast.models.serving.devices import described

        message = " ".join(str(error).split())[:_LONGEST] or type(error).__name__
        others = {"--precision fp32": settings.precision, "--backend torch": settings.backend, "--devices cpu": device}
        ways = [option for option, now in others.items() if option.split()[1] != now]
        raise UsageError(
            f"{model} in {settings.precision} ({settings.backend}) does not run on {described(device)}: {message}; "
            f"try {', '.join(ways)} or another model (fgfast doctor lists what this machine can run)"
        ) from error


def _inputs(stage: BatchedStage[Work], height: int, width: int) -> tuple[Any, ...]:
    """Return a model's inputs for a grey image."""
    image = Image(np.full((height, width, 3), 127, np.uint8))
    box: Float32 = np.array(_BOX, np.float32)
    return (image,) if stage.name == "detect" else (image, box)


def _try_out(stage: BatchedStage[Work]) -> None:
    """Compute one batch per orientation on a GPU; a CPU has nothing to prepare.

    Everything compiled or recorded at first use exists afterwards, and a failing device fails before the first image.
    """
    if stage.model.device.startswith("cuda"):
        for size in (_SIZE, _SIZE[::-1]):
            warm_up(stage.model, _inputs(stage, *size), FAILURES.memory)
