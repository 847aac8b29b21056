"""What happens to one image: decode, detect, mask, cut, write. Each stage reads and fills one `Work`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fgfast import ops
from fgfast.config import Background, CropName, MaskFormat
from fgfast.errors import DeviceMemoryError, SampleError
from fgfast.io.decode import decode, read_bytes
from fgfast.io.write import encode, encode_mask, write_temp
from fgfast.ops.background import blurred_background, cover, extended_view
from fgfast.ops.flags import flags
from fgfast.ops.geometry import crop_window
from fgfast.pipeline.prompt import Other, center_box, choose_prompt
from fgfast.records import Bool, Cutout, Detections, Float32, Image, Mask, Outcome, Prompt, Sample, UInt8

if TYPE_CHECKING:
    from fgfast.runner import Finished

log = logging.getLogger("fgfast")


Segmenter = Callable[[UInt8, Float32, int], Mask]
"""(pixels (H, W, 3) uint8 RGB, box (4,) float32, banner rows) -> mask at the same size."""


@dataclass(slots=True)
class Work:
    """One sample on its way. Stages fill it from top to bottom.

    Attributes:
        position: the sample's place in the data set.
        sample: the sample.
        twin: key of its image in the twin.
        mask_name: POSIX path of its mask inside the masks folder.
        low_res: what SAM gave, before it is a mask.
        seconds: stage -> seconds spent in an earlier part of the job, in another process.
    """

    position: int
    sample: Sample
    twin: str
    mask_name: str = ""
    image: Image | None = None
    detections: Detections | None = None
    prompt: Prompt | None = None
    others: tuple[Other, ...] = ()
    flags: list[str] = field(default_factory=list)
    low_res: Any = None
    mask: Mask | None = None
    cutout: Cutout | None = None
    rle: bytes | None = None
    parts: list[tuple[Path, Path]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def packed(self, seconds: Mapping[str, float]) -> Work:
        """This work for another process: what was found, without pixels; with the time it took."""
        self.image = self.detections = None
        self.seconds = _sum(self.seconds, seconds)
        return self


class Detector(Protocol):
    """Finds boxes of the subject in an image."""

    name: str

    def detect(self, sample: Sample, image: Image) -> Detections: ...


class Annotations:
    """The data set's own boxes."""

    name = "annotations"

    def detect(self, sample: Sample, image: Image) -> Detections:
        count = len(sample.boxes)
        return Detections(sample.boxes, np.ones(count, np.float32), ("annotated box",) * count)


class Center:
    """The middle of the image, for images of one centred subject."""

    name = "center"

    def detect(self, sample: Sample, image: Image) -> Detections:
        box = center_box(image.size, sample.banner_rows)
        return Detections(box[None], np.ones(1, np.float32), ("centre of the image",))


@dataclass(frozen=True, slots=True)
class Decode:
    """File -> Image."""

    turn_exif: bool
    name: str = "decode"

    def __call__(self, work: Work) -> None:
        work.image = decode(read_bytes(work.sample.path), work.sample.key, self.turn_exif)


@dataclass(frozen=True, slots=True)
class Detect:
    """Image -> Detections -> Prompt.

    Attributes:
        detector: finds boxes.
        right: names that count as the subject, see `choose_prompt`.
    """

    detector: Detector
    right: frozenset[str] = frozenset()
    name: str = "detect"

    def __call__(self, work: Work) -> None:
        assert work.image is not None
        if work.prompt is None:  # else it comes from another process
            work.detections = self.detector.detect(work.sample, work.image)
            choose(work, self.right)


def choose(work: Work, right: frozenset[str]) -> None:
    """Detections -> Prompt."""
    assert work.image is not None and work.detections is not None
    found = choose_prompt(work.detections, work.sample, work.image.size, right)
    work.prompt, flag, work.others = found
    if flag:
        work.flags.append(flag)


@dataclass(frozen=True, slots=True)
class MaskSubject:
    """Image, Prompt -> Mask. An empty mask is replaced by its box, and flagged, so that no image is lost.

    Attributes:
        segment: the segmenter.
        judge: whether its masks are examined for reasons to doubt them.
    """

    segment: Segmenter
    judge: bool
    name: str = "mask"

    def __call__(self, work: Work) -> None:
        assert work.image is not None and work.prompt is not None
        box, banner = work.prompt.box, work.sample.banner_rows
        keep(work, self.segment(work.image.pixels, box, banner), self.judge)


def keep(work: Work, mask: Mask, judge: bool) -> None:
    """Examine a mask where it is to be judged, and take it, or its box where it is empty."""
    assert work.image is not None and work.prompt is not None
    box, banner = work.prompt.box, work.sample.banner_rows
    if judge:
        work.flags.extend(flags(mask.bits, box, banner))
    if not mask.bits.any():
        mask = Mask(box_mask(work.image.pixels, box, banner), mask.quality)
    work.mask = mask


def box_mask(pixels: UInt8, box: Float32, banner_rows: int) -> Bool:
    """The box itself as a mask, (H, W) bool: the segmenter "box", and the stand-in for an empty mask."""
    height, width = pixels.shape[:2]
    bits = np.zeros((height, width), np.bool_)
    x0, y0 = np.floor(box[:2]).astype(int)
    x1, y1 = np.ceil(box[2:]).astype(int)
    bits[max(0, y0) : y1, max(0, x0) : x1] = True
    if banner_rows and height > banner_rows:
        bits[height - banner_rows :] = False
    return bits


@dataclass(frozen=True, slots=True)
class Cut:
    """Image, Mask -> Cutout.

    Attributes:
        background: what takes the background's place.
        background_image: pixels of the background image where there is one.
        crop, pad: see `fgfast.config.Settings`.
    """

    background: Background
    background_image: UInt8 | None
    crop: CropName
    pad: float
    name: str = "cut"

    def __call__(self, work: Work) -> None:
        assert work.image is not None and work.mask is not None and work.prompt is not None
        pixels, bits = work.image.pixels, work.mask.bits
        window = (0, 0, *work.image.size)
        if self.crop != "none":
            width, height = work.image.size
            scene = (width, max(1, height - work.sample.banner_rows))  # a crop does not take the banner in
            window = crop_window(work.prompt.box, scene, self.crop, self.pad)
        if self.background.kind == "transparent":
            cut = ops.composite(pixels, bits, np.zeros(3, np.uint8), window, alpha=True)
        else:
            cut = ops.composite(pixels, bits, self._background(pixels, bits, window), window)
        work.cutout = Cutout(cut, work.mask, work.prompt, window[:2], tuple(work.flags))

    def _background(self, pixels: UInt8, bits: Bool, window: tuple[int, int, int, int]) -> UInt8:
        if self.background.kind == "blur":
            return extended_view(blurred_background(pixels, bits), window)
        if self.background_image is not None:
            return cover(self.background_image, window[2] - window[0], window[3] - window[1])
        return np.array(self.background.colour, np.uint8)


@dataclass(frozen=True, slots=True)
class Write:
    """Cutout -> files of the twin, still under temporary names.

    Attributes:
        images: folder of the twin; keys are relative to it.
        masks: folder of the masks.
        mask_format: "png" writes a file a mask; "rle" and "none" do not.
        suffix: the format as a suffix, or None to go by the twin's name.
        quality: see `fgfast.io.write.encode`.
    """

    images: Path
    masks: Path
    mask_format: MaskFormat
    suffix: str | None
    quality: int
    name: str = "write"

    def __call__(self, work: Work) -> None:
        assert work.cutout is not None and work.mask is not None
        suffix = self.suffix or PurePosixPath(work.twin).suffix.lower()
        path = self.images / work.twin
        work.parts.append((write_temp(path, encode(work.cutout.pixels, suffix, self.quality)), path))
        if self.mask_format == "png":
            mask = self.masks / work.mask_name
            work.parts.append((write_temp(mask, encode_mask(work.mask.bits)), mask))
        work.rle = ops.rle_encode(work.mask.bits)


@dataclass(frozen=True, slots=True)
class Closed:
    """What is kept of a finished work: its outcome, and where its files went.

    Attributes:
        position: the sample's place in the data set.
        outcome: how it ended.
        parts: its files under their temporary and their own names, to be committed before the outcome is recorded.
    """

    position: int
    outcome: Outcome
    parts: tuple[tuple[str, str], ...]


def close(finished: Finished[Work]) -> Closed:
    """The outcome of a finished work, without its pixels."""
    work, error = finished.item, finished.error
    seconds = _sum(work.seconds, finished.seconds)
    # As text: Python keeps the parts of every Path that is made, and the parent makes none of an image this way.
    parts = tuple((str(part), str(path)) for part, path in work.parts)
    if error is None:
        return Closed(work.position, _success(work, seconds), parts)
    reason, detail = "internal error", f"{type(error).__name__}: {error}; please report it with this image"
    if isinstance(error, SampleError):
        reason, detail = error.reason, error.detail
        log.info("%s: %s (stage %s)", work.sample.key, detail, finished.stage)
    elif isinstance(error, DeviceMemoryError):
        reason, detail = "out of memory", f"{work.sample.key}: {error}; scale it down, or take a smaller model"
        log.warning("%s", detail)
    else:
        log.error("%s: internal error in stage %s", work.sample.key, finished.stage, exc_info=error)
    outcome = Outcome(
        key=work.sample.key,
        status="failed",
        stage=finished.stage,
        reasons=(reason,),
        detail=detail,
        size=work.image.size if work.image else None,
        box=work.prompt.box if work.prompt else None,
        box_reason=work.prompt.reason if work.prompt else "",
        seconds=seconds,
    )
    return Closed(work.position, outcome, parts)


def given_up(work: Work, reason: str, detail: str) -> Closed:
    """The outcome of a work whose worker process died of it."""
    log.warning("%s: %s", work.sample.key, detail)
    detail = f"{work.sample.key}: {detail}; look at this image, then start the same command again"
    outcome = Outcome(key=work.sample.key, status="failed", stage="worker", reasons=(reason,), detail=detail)
    return Closed(work.position, outcome, ())


def _sum(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    return {stage: first.get(stage, 0.0) + second.get(stage, 0.0) for stage in (*first, *second)}


def _success(work: Work, seconds: Mapping[str, float]) -> Outcome:
    assert work.image is not None
    assert work.prompt is not None
    assert work.mask is not None
    assert work.cutout is not None
    return Outcome(
        key=work.sample.key,
        status="flagged" if work.flags else "done",
        stage="write",
        reasons=tuple(work.flags),
        twin=work.twin,
        size=work.image.size,
        twin_size=work.cutout.size,
        offset=work.cutout.offset,
        box=work.prompt.box,
        box_reason=work.prompt.reason,
        others=work.others,
        area=int(np.count_nonzero(work.mask.bits)),
        rle=work.rle,
        quality=work.mask.quality,
        seconds=seconds,
    )
