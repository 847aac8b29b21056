"""What a worker process does: the stages that the settings ask for, on one seat."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fgfast.config import MODEL_DETECTORS, SAM_SEGMENTERS, Settings
from fgfast.errors import DeviceFailedError, DeviceMemoryError, OutputFailedError
from fgfast.io.decoders import decoder
from fgfast.io.write import FORMAT_SUFFIXES
from fgfast.pipeline import choices as methods
from fgfast.pipeline.batched_stages import (
    BatchDetector,
    BatchSegmenter,
    ChoosePrompt,
    DecodeBatch,
    DetectBatch,
    EncodeBatch,
    FinishMask,
)
from fgfast.pipeline.stages import Closed, Cut, Decode, Detect, MaskSubject, Work, Write, close
from fgfast.records import Float32, Image, UInt8
from fgfast.runner import Failures, Finished, Passed, Seat, Stage

# What a stage's exception means beyond the failure of an image.
FAILURES = Failures(fatal=(OutputFailedError,), memory=(DeviceMemoryError,), broken=(DeviceFailedError,))


@dataclass(frozen=True, slots=True, eq=False)
class ConvertJob:
    """Makes cut-outs. It is pickled and opened in each worker process.

    Attributes:
        settings: with every "auto" replaced.
        subject: what the images show, in the data set's words.
        turn_exif: see `fgfast.io.decode.decode`.
        images: folder of the twin.
        masks: folder of the masks.
        background: pixels of the background's image, (H, W, 3) uint8 RGB, where there is one.
        threads: of each seat's pool.
        measure: time the models when the job is opened.
    """

    settings: Settings
    subject: tuple[str, ...]
    turn_exif: bool
    images: Path
    masks: Path
    background: UInt8 | None
    threads: int
    measure: bool = False

    @property
    def parts(self) -> int:
        """Two where there are two models, else one."""
        return 2 if methods.both_are_models(self.settings) else 1

    def open(self, seat: Seat) -> OpenJob:
        """Load models and make stages; errors as for `fgfast.pipeline.choices.detector_model`."""
        self._prepare(seat.device)
        detects, segments = (self.parts == 1 or part in range(*seat.parts) for part in (0, 1))
        models: dict[str, Any] = {}
        stages: list[Stage[Work]] = [self._decode(seat.device)]
        if detects:
            stages += self._detect(seat.device, models)
        if segments:
            stages += self._segment(seat.device, models)
        for stage, model in models.items():
            _try_out(stage, model)
        facts = {"process": os.getpid(), "device": seat.device}
        if self.measure:
            facts["seconds"] = {name: self._seconds(name, seat.device, model) for name, model in models.items()}
        return OpenJob(stages, self.threads, segments, facts)

    def _prepare(self, device: str) -> None:
        """Threads: the pool's are for what is done to one image; the models' are torch's own."""
        import cv2

        cv2.setNumThreads(1)
        used = {self.settings.detector, self.settings.segmenter}
        if device == "cpu" and used & {*MODEL_DETECTORS, *SAM_SEGMENTERS}:
            from fgfast.models.serving.devices import compute_with

            compute_with(self.settings.threads, shared=self.settings.places.count("cpu") > 1)

    def _decode(self, device: str) -> Stage[Work]:
        name = self.settings.decoder
        if name == "cpu":
            return Decode(self.turn_exif)
        return DecodeBatch(decoder(name, device, self.threads), self.turn_exif, f"{device} decoder")

    def _detect(self, device: str, models: dict[str, Any]) -> list[Stage[Work]]:
        right = methods.right_words(self.settings, self.subject)
        if self.settings.detector not in MODEL_DETECTORS:
            return [Detect(methods.simple_detector(self.settings), right)]
        model: BatchDetector = methods.detector_model(self.settings, self.subject, device)
        models["detect"] = model
        return [DetectBatch(model), ChoosePrompt(right)]

    def _segment(self, device: str, models: dict[str, Any]) -> list[Stage[Work]]:
        settings = self.settings
        cut = Cut(settings.fill, self.background, settings.crop, settings.pad)
        suffix = FORMAT_SUFFIXES.get(settings.format)
        write = Write(self.images, self.masks, settings.masks, suffix, settings.quality)
        if settings.segmenter not in SAM_SEGMENTERS:
            return [MaskSubject(methods.segmenter(settings), judge=settings.segmenter != "box"), cut, write]
        from fgfast.models.sam.segmenter import finish

        model: BatchSegmenter = methods.sam_model(settings, device)
        models["encode"] = model
        return [EncodeBatch(model), FinishMask(finish), cut, write]

    def _seconds(self, stage: str, device: str, model: Any) -> float:
        """Seconds per image of a model in full batches, measured once on each machine."""
        from fgfast.models.serving.speed import remembered, seconds_a_image

        settings = self.settings
        name = settings.detector if stage == "detect" else settings.segmenter
        sharers = settings.places.count(device)
        key = f"{name} {settings.precision} in batches of {model.batch}, {sharers} at once"
        image, boxes = _image(*_SIZE), _boxes(stage)
        seconds = remembered(key, device, settings.exact_backend, lambda: seconds_a_image(model, image, *boxes))
        assert seconds is not None
        return seconds


# (height, width) in pixels: the commonest of the data sets that this is made for.
_SIZE = (375, 500)


def _image(height: int, width: int) -> Image:
    return Image(np.full((height, width, 3), 127, np.uint8))


def _boxes(stage: str) -> tuple[Float32, ...]:
    """What a model is given beside an image."""
    return () if stage == "detect" else (np.array([100, 75, 300, 300], np.float32),)


def _try_out(stage: str, model: Any) -> None:
    """Let a GPU compute one batch of each orientation: what is compiled or recorded at first use is so now, and a
    device that fails does so before it has anything in its hands. A CPU has nothing to prepare.
    """
    if not model.device.startswith("cuda"):
        return
    for size in (_SIZE, _SIZE[::-1]):
        image = _image(*size)
        slot, rows = model.slot(model.bucket(image)), model.rows(model.bucket(image))
        for row in range(rows):
            model.fill(slot, row, image, *_boxes(stage))
        try:
            model.launch(slot, rows)
            model.wait(slot)
        except DeviceMemoryError:
            return  # batches are halved as they come


@dataclass(frozen=True, slots=True)
class OpenJob:
    """See `fgfast.runner.messages.Opened`.

    Attributes:
        last: whether the images are written here.
    """

    stages: list[Stage[Work]]
    threads: int
    last: bool
    facts: dict[str, Any] = field(default_factory=dict)
    failures: Failures = FAILURES

    def close(self, finished: Finished[Work]) -> Closed | Passed[Work]:
        """What is kept of an image, or the image for whoever segments."""
        if finished.error is None and not self.last:
            return Passed(finished.item.packed(finished.seconds))
        return close(finished)
