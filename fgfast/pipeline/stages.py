"""The stages that process one image: decode, detect, mask, cut, write. Each reads and fills one `Work`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np

from fgfast import ops
from fgfast.background import Background
from fgfast.config.values import CropName, MaskFormat
from fgfast.errors import BAD_NAME, ImageRefusedError, NameRefusedError
from fgfast.files import FileStamp
from fgfast.io.decode import decode, read_bytes
from fgfast.io.encode import encode, encode_bilevel
from fgfast.io.pixels import MAX_PIXELS
from fgfast.methods import ModelSpec
from fgfast.models.grabcut_again import look_again
from fgfast.ops.background import blurred_background, cover, extended_view
from fgfast.ops.evidence import evidence
from fgfast.ops.flags import flags
from fgfast.ops.geometry import crop_window, mask_box
from fgfast.ops.second_look import boxes
from fgfast.pipeline.prompt import center_box, choose_prompt
from fgfast.pipeline.work import Work
from fgfast.records import Bool, Cutout, Detections, Float32, Image, Mask, Prompt, Sample, Size, UInt8
from fgfast.writing import TempFiles

Segmenter = Callable[[UInt8, Float32, int], Mask]
"""(pixels (H, W, 3) uint8 RGB, box (4,) float32, banner rows) -> mask at the same size."""


Detector = Callable[[Sample, Image], Detections]
"""Finds boxes of the subject in one image."""


def annotations_detector(spec: ModelSpec, words: str) -> Detector:
    """Build the method "annotations": the data set's own boxes."""

    def detect(sample: Sample, image: Image) -> Detections:
        count = len(sample.boxes)
        return Detections(sample.boxes, np.ones(count, np.float32), ("annotated box",) * count)

    return detect


def center_detector(spec: ModelSpec, words: str) -> Detector:
    """Build the method "center": the middle of the image, for images of one centred subject."""

    def detect(sample: Sample, image: Image) -> Detections:
        box = center_box(image.size, sample.banner_rows)
        return Detections(box[None], np.ones(1, np.float32), ("centre of the image",), guess=True)

    return detect


@dataclass(frozen=True, slots=True)
class Decode:
    """File -> Image."""

    turn_exif: bool
    name: str = "decode"

    def __call__(self, work: Work) -> None:
        work.image = decode(read_source(work), work.sample.key, self.turn_exif)


def read_source(work: Work) -> bytes:
    """Read the sample's file, and note what it held."""
    data = read_bytes(work.sample.path)
    work.source = FileStamp.of(work.sample.path, data)
    return data


@dataclass(frozen=True, slots=True)
class Detect:
    """Image -> Detections -> Prompt, for works without a prompt."""

    detector: Detector
    name: str = "detect"

    def __call__(self, work: Work) -> None:
        assert work.image is not None
        if work.prompt is not None:
            return
        work.detections = self.detector(work.sample, work.image)
        set_prompt(work)


def set_prompt(work: Work, right: frozenset[str] = frozenset()) -> Prompt:
    """Detections -> Prompt, which is returned as well.

    Args:
        work: the sample.
        right: names that count as the subject; see `choose_prompt`.
    """
    assert work.image is not None and work.detections is not None
    work.prompt, flag, work.others = choose_prompt(work.detections, work.sample, work.image.size, right)
    if flag:
        work.flags.append(flag)
        work.numbers |= {flag: 1.0} if flag in ("no box", "not detected") else {}
    return work.prompt


@dataclass(frozen=True, slots=True)
class MaskSubject:
    """Image, Prompt -> Mask.

    Attributes:
        segment: the segmenter.
        flagged: whether its masks are checked for reasons to doubt them.
        second_look: whether the segmenter also gets other boxes; see `fgfast.models.grabcut_again`.
    """

    segment: Segmenter
    flagged: bool = True
    second_look: bool = False
    name: str = "mask"

    def __call__(self, work: Work) -> None:
        assert work.image is not None and work.prompt is not None
        pixels, box, banner = work.image.pixels, work.prompt.box, work.sample.banner_rows
        mask = self.segment(pixels, box, banner)
        if self.second_look:
            scene = Size(max(1, len(pixels) - banner), pixels.shape[1])
            again = [self.segment(pixels, other, banner).bits for other in boxes(box, scene, mask_box(mask.bits))]
            found = look_again(pixels, box, mask.bits, again, banner, work.prompt.guess)
            mask = replace(mask, numbers=found)
        set_mask(work, mask, self.flagged)


def set_mask(work: Work, mask: Mask, flagged: bool = True) -> None:
    """Store a mask, and its flags and numbers if `flagged`; an empty mask is replaced by its box: no image is lost."""
    assert work.image is not None and work.prompt is not None
    box, banner = work.prompt.box, work.sample.banner_rows
    if flagged:
        found = flags(mask.bits, box, banner, work.prompt.guess)
        work.flags.extend(found)
        work.numbers |= found | evidence(work.image.pixels, mask.bits, box, banner, work.prompt.guess)
        work.numbers |= mask.numbers
        for name, estimate in (("low quality", mask.quality), ("low stability", mask.stability)):
            if estimate is not None:
                work.numbers[name] = min(max(1 - estimate, 0.0), 1.0)
    if not mask.bits.any():
        mask = replace(mask, bits=box_mask(work.image.pixels, box, banner))
    work.mask = mask


def box_segmenter(spec: ModelSpec) -> Segmenter:
    """Build the method "box"."""
    return lambda pixels, box, banner: Mask(box_mask(pixels, box, banner))


def box_mask(pixels: UInt8, box: Float32, banner_rows: int) -> Bool:
    """Return the box as a mask, (H, W) bool: the segmenter "box", and the replacement of an empty mask."""
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
        background: the new background.
        background_image: its pixels, (H, W, 3) uint8 RGB, if it is an image.
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
        height, width = work.image.size
        window = (0, 0, width, height)
        if self.crop != "none":
            scene = Size(max(1, height - work.sample.banner_rows), width)  # a crop excludes the banner
            window = crop_window(work.prompt.box, scene, self.crop, self.pad)
            _refuse_if_too_large(window, self.crop, work.sample.key)
        if self.background.kind == "transparent":
            cut = ops.composite(pixels, bits, np.zeros(3, np.uint8), window, alpha=True)
        else:
            cut = ops.composite(pixels, bits, self._background(pixels, bits, window), window)
        work.cutout = Cutout(cut, work.mask, work.prompt, window[:2], tuple(work.flags), work.numbers)

    def _background(self, pixels: UInt8, bits: Bool, window: tuple[int, int, int, int]) -> UInt8:
        if self.background.kind == "blur":
            return extended_view(blurred_background(pixels, bits), window)
        if self.background_image is not None:
            return cover(self.background_image, window[2] - window[0], window[3] - window[1])
        return np.array(self.background.colour, np.uint8)


def _refuse_if_too_large(window: tuple[int, int, int, int], crop: str, name: str) -> None:
    """Raise ImageRefusedError for a crop of which neither fgfast nor Pillow would read the image written."""
    width, height = window[2] - window[0], window[3] - window[1]
    if width * height > MAX_PIXELS:
        raise ImageRefusedError(
            "too large",
            f"{name}: its {crop} crop has {width}x{height} pixels; at most {MAX_PIXELS:,} are written, because Pillow "
            "reads no more; use --crop box, or a smaller --pad",
        )


@dataclass(frozen=True, slots=True)
class Write:
    """Cutout -> files of the twin, under temporary names until they are committed.

    Attributes:
        temp_files: writes below the output folder, where no link is followed.
        images: name of the twin's folder in it; keys are relative to that.
        masks: name of the masks' folder in it.
        mask_format: "png" writes one file per mask; "rle" and "none" do not.
        suffix: the format as a suffix, or None for that of the twin's name.
        quality: see `fgfast.io.encode.encode`.
    """

    temp_files: TempFiles
    images: str
    masks: str
    mask_format: MaskFormat
    suffix: str | None
    quality: int
    name: str = "write"

    def __call__(self, work: Work) -> None:
        assert work.cutout is not None and work.mask is not None
        suffix = self.suffix or PurePosixPath(work.twin).suffix.lower()
        self._write(work, f"{self.images}/{work.twin}", encode(work.cutout.pixels, suffix, self.quality))
        if self.mask_format == "png":
            self._write(work, f"{self.masks}/{work.mask_name}", encode_bilevel(work.mask.bits))
        work.rle = ops.rle_encode(work.mask.bits)

    def _write(self, work: Work, name: str, data: bytes) -> None:
        try:
            temp, mtime_ns = self.temp_files.write(name, data)
        except NameRefusedError as error:
            raise ImageRefusedError(BAD_NAME, f"{work.sample.key}: {error}, or another --format") from error
        work.temp_files.append((temp, name))
        work.files[name] = FileStamp(len(data), mtime_ns, hashlib.sha256(data).digest())
