"""The records of fgfast, which carry one image from the data set to the ledger.

    Sample -> Image -> Detections -> Prompt -> Mask -> Cutout -> Outcome

Boxes are x0 y0 x1 y1, float32, continuous coordinates, in pixels of the stored image: an image of width w and height h
is the box (0, 0, w, h). Arrays are checked when a record is created and must not be changed afterwards.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fgfast.data_paths import AnyPath
from fgfast.files import FileStamp
from fgfast.mask_source import MaskSource

UInt8 = NDArray[np.uint8]
Bool = NDArray[np.bool_]
Float32 = NDArray[np.float32]

Status = Literal["done", "flagged", "skipped", "failed"]
STATUSES: tuple[Status, ...] = ("done", "flagged", "skipped", "failed")


class Size(NamedTuple):
    """The size of an image, a canvas or a map, in pixels or cells; height first, the order of arrays."""

    height: int
    width: int


def no_boxes() -> Float32:
    """Return an empty set of boxes, (0, 4) float32."""
    return np.zeros((0, 4), np.float32)


def _check(owner: object, name: str, array: Any, dtype: type[np.generic], shape: tuple[int | None, ...]) -> None:
    """Raise unless `array` has `dtype` and `shape`; None in the shape matches any length."""
    label = f"{type(owner).__name__}.{name}"
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{label} must be a NumPy array, not {type(array).__name__}")
    if array.dtype != dtype:
        raise TypeError(f"{label} must be {np.dtype(dtype).name}, not {array.dtype.name}")
    got = array.shape
    if len(got) != len(shape) or any(want != n for want, n in zip(shape, got, strict=True) if want is not None):
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"{label} must have shape ({wanted}), not {got}")


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One image of a data set, before it is read.

    Attributes:
        key: POSIX path of the image inside its data set; unique; names outputs, ledger rows and report entries.
        path: the image's file on disk; a `DataPath` in a data set.
        label: class name; empty where the data set has none.
        split: "train", "val" or "test"; empty where the data set has none.
        boxes: (N, 4) float32, annotated boxes in pixels of the stored image; N may be 0.
        banner_rows: rows at the bottom of the image that are never subject (FGVC-Aircraft's credit line).
        mask: its annotated mask; None where it has none, or where annotated masks are not used.
        keypoints: (N, 2) float32 x y, annotated points on the subject that can be seen, in pixels of the stored image;
            None where the data set has none. They judge a mask, and no cut-out depends on them.
        official: the data set's own mask, where another one is made; None where it has none. It judges a mask, too.
    """

    key: str
    path: AnyPath
    label: str = ""
    split: str = ""
    boxes: Float32 = field(default_factory=no_boxes)
    banner_rows: int = 0
    mask: MaskSource | None = None
    keypoints: Float32 | None = None
    official: MaskSource | None = None

    def __post_init__(self) -> None:
        _check(self, "boxes", self.boxes, np.float32, (None, 4))
        if self.keypoints is not None:
            _check(self, "keypoints", self.keypoints, np.float32, (None, 2))
        names = set(self.key.split("/"))
        if names <= {"", "."} or self.key.startswith("/") or ".." in names or "\\" in self.key:
            raise ValueError(f"Sample.key must be a relative POSIX path without '..', not {self.key!r}")

    def __reduce__(self) -> tuple[Callable[..., Sample], tuple[Any, ...]]:
        """Pickle boxes as bytes: for every array that is pickled itself, NumPy keeps memory as long as it lives."""
        boxes, points = self.boxes.tobytes(), None if self.keypoints is None else self.keypoints.tobytes()
        beside = self.banner_rows, self.mask, self.official
        return _sample, (self.key, self.path, self.label, self.split, boxes, points, *beside)


def sample_digest(sample: Sample) -> bytes:
    """Return a digest, 16 bytes, of what the data set says about a sample and what its cut-out depends on."""
    said = f"{sample.banner_rows}\0".encode() + sample.boxes.tobytes()
    if sample.mask is not None:
        said += f"{sample.mask.kind}\0{sample.mask.digest}\0{sample.mask.flags}".encode()
    return hashlib.sha256(said).digest()[:16]


def _sample(
    key: str,
    path: AnyPath,
    label: str,
    split: str,
    boxes: bytes,
    points: bytes | None,
    banner_rows: int,
    mask: MaskSource | None,
    official: MaskSource | None,
) -> Sample:
    corners = np.frombuffer(boxes, np.float32).reshape(-1, 4).copy()
    keypoints = None if points is None else np.frombuffer(points, np.float32).reshape(-1, 2).copy()
    return Sample(key, path, label, split, corners, banner_rows, mask, keypoints, official)


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """A decoded image.

    Attributes:
        pixels: (H, W, 3) uint8, RGB, C-contiguous.
        warnings: what libraries warned about while they decoded it, a few short texts.
    """

    pixels: UInt8
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check(self, "pixels", self.pixels, np.uint8, (None, None, 3))

    @property
    def size(self) -> Size:
        """Height and width in pixels."""
        return Size(*self.pixels.shape[:2])


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The boxes that a detector found in one image.

    Attributes:
        boxes: (N, 4) float32, in pixels of the stored image.
        scores: (N,) float32 in 0..1; 1 for annotated boxes.
        labels: N names.
        guess: whether the boxes are the same whatever the image shows, so that they do not bound the subject.
    """

    boxes: Float32
    scores: Float32
    labels: tuple[str, ...]
    guess: bool = False

    def __post_init__(self) -> None:
        _check(self, "boxes", self.boxes, np.float32, (None, 4))
        _check(self, "scores", self.scores, np.float32, (len(self.boxes),))
        if len(self.labels) != len(self.boxes):
            raise ValueError(f"Detections.labels has {len(self.labels)} names for {len(self.boxes)} boxes")


def plain(name: str) -> str:
    """A label as people write it: "car_(automobile)" -> "car", "Fire_engine" -> "fire engine"."""
    return re.sub(r"\s*\(.*\)$", "", name.replace("_", " ")).strip().casefold()


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """The one box given to the segmenter.

    Attributes:
        box: (4,) float32, in pixels of the stored image, clipped to it.
        reason: the reason for choosing this box, for the ledger and the report.
        score: the detector's score, 0..1; 1 for annotated boxes; None where nothing was detected.
        name: the detector's name for what is in the box; empty where nothing was detected.
        guess: whether it is the middle of the image, which does not bound the subject.
    """

    box: Float32
    reason: str
    score: float | None = None
    name: str = ""
    guess: bool = False

    def __post_init__(self) -> None:
        _check(self, "box", self.box, np.float32, (4,))


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """The subject's mask.

    Attributes:
        bits: (H, W) bool at the size of the stored image; True is subject.
        quality: the segmenter's own estimate of the mask's IoU; None where it gives none.
        stability: pixels whose logits exceed +1 as a fraction of those that exceed -1; None where there are no logits.
        numbers: name -> number that speaks against it, from a second look; see `fgfast.ops.second_look`.
    """

    bits: Bool
    quality: float | None = None
    stability: float | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self, "bits", self.bits, np.bool_, (None, None))


@dataclass(frozen=True, slots=True, eq=False)
class Cutout:
    """The image with its background replaced.

    Attributes:
        pixels: (h, w, 3) uint8 RGB, or (h, w, 4) uint8 RGBA where the background is transparent.
        mask: the subject's mask, at the size of the stored image.
        prompt: the prompt of that mask.
        offset: (x, y) of the cut-out's top-left pixel in the stored image; negative where a square crop exceeds it.
        flags: reasons to doubt the mask; empty where there are none.
        numbers: name -> number that speaks for or against the mask; see `fgfast.ops.flags` and `fgfast.ops.evidence`.
    """

    pixels: UInt8
    mask: Mask
    prompt: Prompt
    offset: tuple[int, int] = (0, 0)
    flags: tuple[str, ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        channels = 4 if self.pixels.shape[-1] == 4 else 3
        _check(self, "pixels", self.pixels, np.uint8, (None, None, channels))

    @property
    def size(self) -> Size:
        """Height and width in pixels."""
        return Size(*self.pixels.shape[:2])


OtherBox = tuple[float, float, float, float, float, str]
"""A box that was not chosen: x0 y0 x1 y1 in pixels of the stored image, score, name."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """The result of one sample. Every sample of a run has exactly one outcome.

    Attributes:
        key: the sample's key.
        status: "done", "flagged" (written, but doubtful), "skipped" or "failed" (nothing written).
        stage: the last stage: "write" for images that were written, else the stage that failed.
        reasons: the flags, or the one reason of a failure.
        detail: a sentence for a person; empty for done.
        twin: key of the written image in the twin; None where none was written.
        size: of the stored image, in pixels.
        twin_size: of the written image, in pixels.
        offset: (x, y) of the written image's top-left pixel in the stored image.
        box: the prompt, (4,) float32 in pixels of the stored image.
        box_reason: the reason for choosing this box.
        box_score: the detector's score of this box, 0..1; None where nothing was detected.
        box_name: the detector's name for what is in this box.
        others: detected boxes that were not chosen, best first: x0 y0 x1 y1, score, name.
        area: number of subject pixels in the mask.
        rle: the mask as a COCO run-length string (compressed, column-major), at the stored image's size.
        quality: the segmenter's own estimate, or None.
        stability: see `Mask`.
        numbers: name -> number that speaks for or against the mask, also of those done; see `fgfast.ops.evidence`.
        doubt: how doubtful the mask is, 0..1; None where that was not estimated.
        warnings: what libraries reported about the image's file.
        source: the image's file as it was read; None where it was not read.
        annotation: digest of what the data set said about the sample when it was processed; see `sample_digest`.
        files: the written files, as path relative to the output folder -> stamp.
        data: products that are not files, by name; only on its way to the ledger, see `Ledger.data`.
        seconds: stage name -> seconds spent on this sample.
        id: the sample's number in the ledger, and its image's in COCO files; None before it is recorded.
    """

    key: str
    status: Status
    stage: str
    reasons: tuple[str, ...] = ()
    detail: str = ""
    twin: str | None = None
    size: Size | None = None
    twin_size: Size | None = None
    offset: tuple[int, int] = (0, 0)
    box: Float32 | None = None
    box_reason: str = ""
    box_score: float | None = None
    box_name: str = ""
    others: tuple[OtherBox, ...] = ()
    area: int | None = None
    rle: bytes | None = None
    quality: float | None = None
    stability: float | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)
    doubt: float | None = None
    warnings: tuple[str, ...] = ()
    source: FileStamp | None = None
    annotation: bytes = b""
    files: Mapping[str, FileStamp] = field(default_factory=dict)
    data: Mapping[str, bytes] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    id: int | None = None

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"Outcome.status must be one of {', '.join(STATUSES)}, not {self.status!r}")
        if (self.twin is None) == (self.status in ("done", "flagged")):
            raise ValueError(f"an outcome that is {self.status} {'needs' if self.twin is None else 'has no'} twin")
        if self.box is not None:
            _check(self, "box", self.box, np.float32, (4,))
