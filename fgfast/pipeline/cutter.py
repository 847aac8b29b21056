"""A session that cuts the subject out of images without a data set: its models stay loaded."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from fgfast import methods
from fgfast.config import Settings
from fgfast.errors import UsageError
from fgfast.io.cutout import Cutout
from fgfast.pipeline.choices import choose_without_dataset
from fgfast.pipeline.job import detect_stages, segment_stages
from fgfast.pipeline.placement import pool_threads
from fgfast.pipeline.plan import load_background
from fgfast.pipeline.single import GivenWork, TakeImage, given_work
from fgfast.pipeline.stages import Cut
from fgfast.pipeline.work import FAILURES
from fgfast.runner import BatchedStage, SlotModel, Stage, in_order, run_item

if TYPE_CHECKING:
    from fgfast.pipeline.single import Given

Box = Sequence[float]

# Settings about the files of a data set and about several worker processes.
_OF_A_RUN = (
    *("workers_per_device", "placement", "decoder", "format", "keep_names", "quality", "masks", "follow_links"),
    *("decisions", "flags", "flag_rate", "flag_least", "doubt_weights"),
)
# Those of them that saving a cut-out follows, with the way.
_OF_A_FILE = {"format": "the name given to Cutout.save determines it", "quality": "give it to Cutout.save"}


class Cutter(AbstractContextManager["Cutter"]):
    """Cuts the subject out of any number of images. Models are loaded once, when it is made, and stay loaded.

    Any number of threads may use one Cutter. Its models compute one batch at a time; everything else runs in parallel.

    Args:
        settings: methods, device, background and crop; default `Settings()`. Detector "auto" is a model where
            `vocabulary` names the subject and the weights are on this machine, else the centre of the image;
            "annotations" takes the boxes given with the images. Of several GPUs "auto" takes the first.
        turn_exif: apply the EXIF orientation of image files; boxes are then in pixels of the turned image.
        cpu_threads: threads of `cut_many` for everything but the models; default one per core, at most 8.

    Attributes:
        settings: the settings, with every "auto" replaced by a choice.
        choices: one sentence per choice.

    Raises:
        UsageError: a model is missing, or a setting has no effect here.

    Example:
        >>> import fgfast, numpy as np
        >>> image = np.full((80, 120, 3), 90, np.uint8)
        >>> image[20:60, 40:90] = (220, 40, 40)
        >>> with fgfast.Cutter(fgfast.Settings(background="white")) as cutter:
        ...     one = cutter.cut(image, box=(36, 16, 94, 64))
        ...     many = list(cutter.cut_many([image, image[:, ::-1]]))
        >>> one.size, len(many), one.image.getpixel((5, 5))
        (Size(height=80, width=120), 2, (255, 255, 255))
    """

    def __init__(
        self, settings: Settings | None = None, *, turn_exif: bool = True, cpu_threads: int | None = None
    ) -> None:
        settings = settings or Settings()
        _check(settings)
        self._threads = pool_threads(cpu_threads, workers=1)
        background, threads = load_background(settings.fill), settings.model_threads
        self.settings, reasons = choose_without_dataset(settings)
        self.choices = tuple(reasons)
        device = self.settings.places[0]
        if threads is not None and device == "cpu" and self.settings.models:
            from fgfast.models.serving.devices import compute_with

            compute_with(threads, shared=False)
        detector, segmenter = (
            methods.method(self.settings.detector, "detector"),
            methods.method(self.settings.segmenter, "segmenter"),
        )
        stages = [
            *detect_stages(self.settings, detector, (), device),
            *segment_stages(self.settings, segmenter, device),
            Cut(settings.fill, background, settings.crop, settings.pad),
        ]
        lock = threading.Lock()
        take: Any = TakeImage(turn_exif, needs_box=detector.annotated)
        self._stages: list[Stage[GivenWork]] | None = [take, *(_shared(stage, lock) for stage in stages)]

    def cut(self, image: Given, box: Box | None = None) -> Cutout:
        """Cut the subject out of one image.

        Args:
            image: a path, an http or https address, the bytes of an image file, a Pillow image, or an array (H, W, 3)
                RGB or (H, W) grey of uint8 or uint16. The same image has the same pixels in each.
            box: x0 y0 x1 y1 around the subject in pixels; None lets the detector find it.

        Returns:
            The cut-out with its mask; `flags` holds the reasons to doubt it.

        Raises:
            SampleError: the image is missing, too large or damaged.
            UsageError: the array or the box has the wrong shape, or the Cutter is closed.
        """
        work = given_work(0, image, box)
        run_item(self._open(), work)
        assert work.cutout is not None
        return Cutout.of(work.cutout)

    @overload
    def cut_many(
        self, images: Iterable[Given], boxes: Iterable[Box | None] | None = ..., *, return_errors: Literal[False] = ...
    ) -> Iterator[Cutout]: ...
    @overload
    def cut_many(
        self, images: Iterable[Given], boxes: Iterable[Box | None] | None = ..., *, return_errors: bool
    ) -> Iterator[Cutout | Exception]: ...
    def cut_many(
        self, images: Iterable[Given], boxes: Iterable[Box | None] | None = None, *, return_errors: bool = False
    ) -> Iterator[Cutout | Exception]:
        """Cut the subject out of many images, in batches where a model runs, on several threads otherwise.

        Images are read somewhat ahead of the cut-out that is yielded; only a bounded number is in memory.

        Args:
            images: as for `cut`; any iterable, which is consumed in the calling thread.
            boxes: one per image, or None for an image without one.
            return_errors: what happens to an image that fails. False raises its error when its turn comes, which ends
                the iteration; True yields the error in its place and goes on.

        Yields:
            One cut-out per image, in their order.

        Raises:
            UsageError: there are more images than boxes, or fewer, or the Cutter is closed.
            DeviceFailedError: the device failed, whatever `return_errors` says.
        """
        if isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike, np.ndarray)) or hasattr(
            images, "convert"
        ):
            raise UsageError("cut_many takes several images, for example a list; for one image there is cut")
        return self._cut_many(self._open(), _paired(images, boxes), return_errors)

    def _cut_many(
        self, stages: list[Stage[GivenWork]], works: Iterator[GivenWork], return_errors: bool
    ) -> Iterator[Cutout | Exception]:
        for finished in in_order(works, stages, threads=self._threads, failures=FAILURES):
            if finished.error is None:
                assert finished.item.cutout is not None
                yield Cutout.of(finished.item.cutout)
            elif return_errors:
                yield finished.error
            else:
                raise finished.error

    def close(self) -> None:
        """Release the models. Iterations that have begun go on; a second call does nothing."""
        self._stages = None

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _open(self) -> list[Stage[GivenWork]]:
        if self._stages is None:
            raise UsageError("this Cutter is closed: make a new one")
        return self._stages


class _Shared:
    """A model on slots that several threads launch: one batch at a time."""

    def __init__(self, model: SlotModel, lock: threading.Lock) -> None:
        self._model, self._lock = model, lock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def launch(self, slot: Any, rows: int) -> None:
        with self._lock:
            self._model.launch(slot, rows)

    def shrink(self) -> None:
        with self._lock:
            self._model.shrink()


def _shared(stage: Any, lock: threading.Lock) -> Any:
    return replace(stage, model=_Shared(stage.model, lock)) if isinstance(stage, BatchedStage) else stage


def cut_out(
    image: Given, box: Box | None = None, *, settings: Settings | None = None, turn_exif: bool = True
) -> Cutout:
    """Cut the subject out of one image. For more than one, `Cutter` loads the models only once.

    Args:
        image: as for `Cutter.cut`.
        box: x0 y0 x1 y1 around the subject in pixels; None lets the detector find it.
        settings: as for `Cutter`. A detector other than "auto" has no effect where the box is given.
        turn_exif: apply the EXIF orientation of an image file; the box is then in pixels of the turned image.

    Returns:
        The cut-out with its mask; `flags` holds the reasons to doubt it.

    Raises:
        SampleError: the image is missing, too large or damaged.
        UsageError: the array or the box has the wrong shape, a model is missing, or a setting has no effect.

    Example:
        >>> import fgfast, numpy as np
        >>> image = np.full((80, 120, 3), 90, np.uint8)
        >>> image[20:60, 40:90] = (220, 40, 40)
        >>> cutout = fgfast.cut_out(image, box=(36, 16, 94, 64))
        >>> cutout.size, bool(cutout.mask.bits[40, 60]), bool(cutout.mask.bits[5, 5])
        (Size(height=80, width=120), True, False)
    """
    settings = settings or Settings()
    if box is not None:
        for name, allowed in (("detector", ("auto", "annotations")), ("vocabulary", (None,))):
            if (value := getattr(settings, name)) not in allowed:
                raise UsageError(f"{name} {value} has no effect where the box is given")
        settings = replace(settings, detector="annotations")
    if settings.batch is None and any(map(methods.may_be_model, (settings.detector, settings.segmenter))):
        settings = replace(settings, batch=1)
    with Cutter(settings, turn_exif=turn_exif) as cutter:
        return cutter.cut(image, box)


def _check(settings: Settings) -> None:
    """Raise UsageError for settings that only the conversion of a data set follows."""
    defaults = {f.name: f.default for f in fields(Settings)}
    for name in _OF_A_RUN:
        value = getattr(settings, name)
        if value != defaults[name] and (name, value) != ("decoder", "cpu"):
            instead = f": {_OF_A_FILE[name]}" if name in _OF_A_FILE else ", only in the conversion of a data set"
            raise UsageError(f"{name.replace('_', '-')} {value} has no effect on single images{instead}")
    if len(settings.places) > 1:
        raise UsageError(f"a Cutter works on one device, not on {','.join(settings.places)}: make one for each")


def _paired(images: Iterable[Given], boxes: Iterable[Box | None] | None) -> Iterator[GivenWork]:
    """Yield the work of each image with its box."""
    if boxes is None:
        yield from (given_work(n, image, None) for n, image in enumerate(images))
        return
    try:
        for n, (image, box) in enumerate(zip(images, boxes, strict=True)):
            yield given_work(n, image, box)
    except ValueError as error:
        if not str(error).startswith("zip()"):
            raise
        raise UsageError(f"there must be one box, or None, per image: {error}") from None
