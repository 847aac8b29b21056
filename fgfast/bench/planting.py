"""Planted errors: results of GrabCut in photographs whose subject is known, right ones and intentionally wrong ones.

Every wrong box has the size and the place of a right one: it is another instance's box of the same photograph, or the
box of another photograph, at the same relative place. Boxes drawn at random differ from right ones in size alone, and
whatever finds them by that finds nothing in a data set.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from fgfast import ops
from fgfast.models.grabcut import segment
from fgfast.ops.geometry import clip_box
from fgfast.ops.overlap import iou
from fgfast.ops.truth import keypoints_outside
from fgfast.records import Bool, Float32, Size, UInt8
from fgfast.writing import Target, write_file

BOX_KINDS = ("wrong object", "half box", "whole image", "box x1.5")
"""Errors of the box: the segmenter has segmented what the wrong box shows."""
MASK_KINDS = ("ring", "part cut off", "empty")
"""Errors of the mask: the box is right, and the segmenter's mask was changed."""
KINDS = (*BOX_KINDS, *MASK_KINDS)
RIGHT, FAILED = "right", "failed by itself"

SIDE = 640
"""Longer side of the photographs, in pixels; larger ones are shrunk. CUB's have 500."""
RIGHT_FROM = 0.7
"""IoU from which a mask of a right box is right; below it the segmenter has failed by itself, and is counted apart."""
KEYPOINTS_INSIDE = 1.0
"""Where there is no true mask: fraction of the annotated keypoints inside the mask, or at its outline, from which it
counts as right. They are no flag of the trial, and so may judge."""
ANOTHER_BELOW = 0.3
"""IoU with the right box below which a box is another object's."""
TIMES = 2
"""Slightly different right boxes besides the annotated one: annotators are a few per cent off."""


@dataclass(frozen=True)
class Photo:
    """A photograph with one subject that is known.

    Attributes:
        name: the name of the photograph; those of one photograph share it.
        pixels: (H, W, 3) uint8 RGB.
        box: (4,) float32, the subject's box, in pixels.
        truth: (H, W) bool, the subject; None where only keypoints are known.
        counts: (H, W) bool, the pixels that count where masks are compared.
        points: (N, 2) float32 x y, keypoints on the subject, in pixels; N may be 0.
        seen_wrong: whether a person has seen that the mask of the right box is wrong, which keypoints do not show.
    """

    name: str
    pixels: UInt8
    box: Float32
    truth: Bool | None
    counts: Bool | None = None
    points: Float32 = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    seen_wrong: bool = False

    @property
    def size(self) -> Size:
        """Height and width in pixels."""
        return Size(*self.pixels.shape[:2])

    def overlap(self, bits: Bool) -> float:
        """Return a mask's IoU with the true one; without it, the fraction of the keypoints inside the mask."""
        if self.truth is not None:
            counts = np.ones(self.size, np.bool_) if self.counts is None else self.counts
            return iou(bits & counts, self.truth & counts)
        outside = keypoints_outside(bits, self.points)
        return 0.0 if outside is None else 1 - outside

    def right(self, bits: Bool) -> bool:
        """Whether a mask is right as far as is known."""
        if self.truth is not None:
            return self.overlap(bits) >= RIGHT_FROM
        return not self.seen_wrong and self.overlap(bits) >= KEYPOINTS_INSIDE


@dataclass(frozen=True)
class Case:
    """One result.

    Attributes:
        photo: name of the photograph.
        subject: number of its subject, in the order of the photographs.
        kind: `RIGHT`, `FAILED` or one of `KINDS`.
        box: (4,) float32, the prompt.
        bits: (H, W) bool, the mask.
        others: masks of the boxes of the second look; empty where the mask was changed afterwards.
        overlap: see `Photo.overlap`.
        harmless: whether a wrong box gave the right mask nevertheless: one that would have been called right.
    """

    photo: str
    subject: int
    kind: str
    box: Float32
    bits: Bool
    others: tuple[Bool, ...]
    overlap: float
    harmless: bool = False


def cases_of(photos: Sequence[Photo], second_look: bool, cache: Path | None) -> Iterator[tuple[int, Case]]:
    """Yield the cases of each photograph; those of a photograph depend on it and on the boxes of the others only.

    Args:
        photos: the photographs.
        second_look: whether the boxes of the second look are segmented, too: six cuts for one.
        cache: a folder in which masks are kept from run to run; None keeps none.
    """
    relative: list[Float32] = [(p.box / np.tile(p.size[::-1], 2)).astype(np.float32) for p in photos]
    for n, photo in enumerate(photos):
        file = None if cache is None else cache / f"{n:03d}{'-second' * second_look}.json"
        if file is not None and file.is_file():
            found = [_read(row, photo, n) for row in json.loads(file.read_text(encoding="utf-8"))]
        else:
            same = [p.box for m, p in enumerate(photos) if m != n and p.name == photo.name]
            others = [box for p, box in zip(photos, relative, strict=True) if p.name != photo.name]
            found = list(_planted(photo, n, same, others, second_look))
            if file is not None:
                write_file(Target.file(file), json.dumps([_row(case) for case in found]).encode())
        yield from ((n, case) for case in _judged(found, photo))


def _judged(cases: Sequence[Case], photo: Photo) -> Iterator[Case]:
    """Yield the cases of a photograph that are known to be right or wrong, as it is known."""
    base = cases[0].bits
    known = photo.truth is not None or photo.right(base)
    for case in cases:
        right = photo.right(case.bits)
        if case.kind in (RIGHT, FAILED):
            yield replace(case, kind=RIGHT if right else FAILED, overlap=photo.overlap(case.bits))
        elif case.kind in BOX_KINDS:
            # Without a true mask the whole image has all keypoints inside: the right box's mask stands in.
            same = right if photo.truth is not None else known and iou(case.bits, base) >= RIGHT_FROM
            yield replace(case, overlap=photo.overlap(case.bits), harmless=same)
        elif known:
            yield case


def _row(case: Case) -> list[object]:
    masks = [ops.rle_encode(bits).decode() for bits in (case.bits, *case.others)]
    return [case.kind, case.box.tolist(), masks, case.overlap]


def _read(row: list[object], photo: Photo, subject: int) -> Case:
    kind, box, masks, overlap = row
    bits, *others = (ops.rle_decode(text.encode(), *photo.size) for text in masks)  # type: ignore[attr-defined]
    corners = np.array(box, np.float32)
    return Case(photo.name, subject, str(kind), corners, bits, tuple(others), float(overlap))  # type: ignore[arg-type]


def _planted(
    photo: Photo, subject: int, same: Sequence[Float32], others: Sequence[Float32], second_look: bool
) -> Iterator[Case]:
    random = np.random.default_rng(1000 + subject)

    def case(kind: str, box: Float32, bits: Bool, again: bool) -> Case:
        looks = tuple(_second(photo, box, bits)) if again and second_look else ()
        return Case(photo.name, subject, kind, box, bits, looks, photo.overlap(bits))

    base = segment(photo.pixels, photo.box)
    boxes = [photo.box]
    for _ in range(TIMES):
        move = random.uniform(-0.02, 0.02), random.uniform(-0.02, 0.02)
        boxes.append(scaled(photo.box, random.uniform(0.98, 1.08), photo.size, *move))
    for box in boxes:
        bits = base if box is photo.box else segment(photo.pixels, box)
        yield case(RIGHT if photo.right(bits) else FAILED, box, bits, True)
    for kind, box in _wrong_boxes(photo, random, same, others):
        yield case(kind, box, segment(photo.pixels, box), True)
    sound = base if photo.right(base) else photo.truth
    if sound is not None and sound.any():
        for kind, bits in _wrong_masks(sound, random):
            yield case(kind, photo.box, bits, False)


def _second(photo: Photo, box: Float32, bits: Bool) -> Iterator[Bool]:
    from fgfast.ops import second_look
    from fgfast.ops.geometry import mask_box

    for other in second_look.boxes(box, photo.size, mask_box(bits)):
        yield segment(photo.pixels, other)


def scaled(box: Float32, factor: float, size: Size, dx: float = 0.0, dy: float = 0.0) -> Float32:
    """Return a box with sides so many times as long, moved by fractions of them, clipped to the image."""
    x0, y0, x1, y1 = box.tolist()
    width, height = (x1 - x0) * factor, (y1 - y0) * factor
    x, y = (x0 + x1) / 2 + dx * width, (y0 + y1) / 2 + dy * height
    moved = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    return clip_box(np.array(moved, np.float32), size)


def _wrong_boxes(
    photo: Photo, random: np.random.Generator, same: Sequence[Float32], others: Sequence[Float32]
) -> Iterator[tuple[str, Float32]]:
    height, width = photo.size
    x0, y0, x1, y1 = photo.box.tolist()
    share = (x1 - x0) * (y1 - y0) / (height * width)
    away = [box for box in same if _box_iou(box, photo.box) < ANOTHER_BELOW]
    if not away:
        placed = [clip_box(box * np.array([width, height] * 2, np.float32), photo.size) for box in others]
        away = [box for box in placed if _box_iou(box, photo.box) < ANOTHER_BELOW and _sides(box) >= 16]
    if away:
        yield "wrong object", away[int(random.integers(len(away)))]
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    halves = ((x0, y0, x, y1), (x, y0, x1, y1), (x0, y0, x1, y), (x0, y, x1, y1))
    yield "half box", np.array(halves[int(random.integers(4))], np.float32)
    move = random.uniform(-0.1, 0.1), random.uniform(-0.1, 0.1)
    if share < 0.6:  # else it is nearly the right box
        yield "whole image", np.array([0, 0, width, height], np.float32)
    if share < 0.5:
        yield "box x1.5", scaled(photo.box, 1.5, photo.size, *move)


def _wrong_masks(base: Bool, random: np.random.Generator) -> Iterator[tuple[str, Bool]]:
    import cv2

    reach = max(3, round(0.08 * math.sqrt(np.count_nonzero(base))))
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    yield "ring", cv2.dilate(base.view(np.uint8), disk).astype(np.bool_)
    # An end of the mask, a fifth to a third of it, beyond a wavy line.
    ys, xs = np.nonzero(base)
    angle = random.uniform(0, 2 * math.pi)
    along, across = xs * math.cos(angle) + ys * math.sin(angle), xs * math.sin(angle) - ys * math.cos(angle)
    along = along + 6 * np.sin(across / 15)
    beyond = along > np.quantile(along, 1 - random.uniform(0.2, 0.35))
    cut = base.copy()
    cut[ys[beyond], xs[beyond]] = False
    yield "part cut off", cut
    yield "empty", np.zeros_like(base)


def _box_iou(a: Float32, b: Float32) -> float:
    width, height = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).tolist()
    both = width * height
    return float(both / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both))


def _sides(box: Float32) -> float:
    return float((box[2:] - box[:2]).min())
