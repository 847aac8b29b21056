"""GrabCut from a person's points and strokes, with or without a box: what `grabcut` does, with pixels that are sure.

Points and strokes are seeds: their colours are the subject's or the background's, and the cut has to keep them. Of all
other pixels, the cheapest path to a seed of each kind (Bai, Sapiro, "Geodesic matting", 2009) says which is nearer;
the frame of the image counts as background where no box bounds the subject. Seeds are obeyed exactly in the result.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgfast.errors import UsageError
from fgfast.models import grabcut
from fgfast.models.prompts import Prompts
from fgfast.records import Bool, Float32, UInt8

# Settings of `grabcut` hold where they have a name there.
POINT = 0.012  # radius of a point's disc, of the crop's longer side: what a person aims at, 4 px of 320
# px, longer side of a scene while it is cut without a box. The solver's time has a long tail: of 26 photographs of
# 500 px, a point takes 155 ms of CPU at the 95th percentile for 347 at `grabcut.SIZE`; the mean IoU is .768 for .774.
# Boxes keep that size: 141 ms, and .857 for .828.
SIZE = 240
EXACT = 2.0  # px of the stored image around a point that are as the person says, whatever the cut found
NEARNESS = 4.0  # nats between a pixel at a seed of the subject and one at a seed of the background
NEARNESS_FADE = 0.35  # what remains of it for cuts; with nothing left, equal colours far away join the subject
SMALLEST = 3  # px; with fewer on an axis, and no inner pixel, the filters have nothing to work on: the seeds remain
SEED_WEIGHT = 8.0  # pixels that one pixel of a seed counts for among the colours


def segment(pixels: UInt8, prompts: Prompts, banner_rows: int = 0) -> Bool:
    """Return the subject's mask, (H, W) bool, at the size of the image. The same input gives the same bits.

    Args:
        pixels: (H, W, 3) uint8, RGB.
        prompts: of this image. A box alone gives what a run of GrabCut gives.
        banner_rows: rows at the bottom that are not part of the scene; they are never subject.

    Raises:
        UsageError: nothing of it says where the subject is.
    """
    seeds = _seeds(pixels.shape[:2], prompts)
    if prompts.box is not None and not any(bits.any() for bits in seeds):
        return grabcut.segment(pixels, prompts.box, banner_rows)
    if prompts.box is None and not seeds[0].any():
        raise UsageError("GrabCut needs a box, or a point or stroke on the subject, not on the background alone")
    mask = np.zeros(pixels.shape[:2], np.bool_)
    height = max(0, len(pixels) - max(0, banner_rows))
    scene = pixels[:height]
    if scene.size:
        _cut_scene(scene, tuple(bits[:height] for bits in seeds), prompts, mask[:height])  # type: ignore[arg-type]
    return mask


def _cut_scene(scene: UInt8, seeds: tuple[Bool, Bool], prompts: Prompts, mask: Bool) -> None:
    """Fill the mask of a scene."""
    window = None if prompts.box is None else grabcut.surroundings(scene.shape[:2], prompts.box)
    rows, columns, inner = window or (slice(0, scene.shape[0]), slice(0, scene.shape[1]), None)
    crop = np.ascontiguousarray(scene[rows, columns])
    small = grabcut.shrink(crop, SIZE if inner is None else grabcut.SIZE)
    if min(small.shape[:2]) < SMALLEST:
        mask |= seeds[0]
        return
    subject, background = (_shrunk(bits[rows, columns], small.shape[:2]) for bits in _widened(seeds, prompts, crop))
    background &= ~subject
    found = _cut(small, inner and grabcut.scale(inner, crop, small), subject, background)
    if found.any():
        mask[rows, columns] = grabcut.outline(found, crop)
        if inner is not None:
            mask[rows, columns] &= ~grabcut.outside(crop.shape, inner, grabcut.SLACK)
    mask |= seeds[0]
    mask &= ~seeds[1]


def _seeds(shape: tuple[int, ...], prompts: Prompts, radius: float = EXACT) -> tuple[Bool, Bool]:
    """Return the pixels of subject and background that are sure, (H, W) bool each; none is in both."""
    drawn = [
        np.zeros(shape, np.bool_) if bits is None else bits.copy() for bits in (prompts.subject, prompts.background)
    ]
    for (x, y), label in zip(prompts.points, prompts.labels, strict=True):
        disc, other = (drawn[0], drawn[1]) if label else (drawn[1], drawn[0])
        rows, columns, inside = _disc(shape, float(x), float(y), radius)
        disc[rows, columns] |= inside
        other[rows, columns] &= ~inside
    # Where both were drawn, the background was: erasing is what a second stroke over a first one is for.
    drawn[0] &= ~drawn[1]
    return drawn[0], drawn[1]


def _widened(seeds: tuple[Bool, Bool], prompts: Prompts, crop: UInt8) -> tuple[Bool, Bool]:
    """Return the seeds with larger discs, which leave strokes and the discs of the other kind alone."""
    wide = _seeds(seeds[0].shape, prompts, max(EXACT, POINT * max(crop.shape[:2])))
    return (wide[0] & ~seeds[1]) | seeds[0], (wide[1] & ~seeds[0]) | seeds[1]


def _disc(shape: tuple[int, ...], x: float, y: float, radius: float) -> tuple[slice, slice, Bool]:
    """Return the rows and columns around a point, and which of their pixels its disc has; its own always."""
    row, column = min(int(y), shape[0] - 1), min(int(x), shape[1] - 1)
    reach = int(radius)
    rows = slice(max(0, row - reach), min(shape[0], row + reach + 1))
    columns = slice(max(0, column - reach), min(shape[1], column + reach + 1))
    v, u = np.ogrid[rows, columns]
    return rows, columns, (v - row) ** 2 + (u - column) ** 2 <= radius**2


def _shrunk(bits: Bool, shape: tuple[int, ...]) -> Bool:
    """Return a mask at a smaller size, in which every pixel of it still shows."""
    small = np.zeros(shape, np.bool_)
    y, x = np.nonzero(bits)
    small[y * shape[0] // bits.shape[0], x * shape[1] // bits.shape[1]] = True
    return small


def _cut(pixels: UInt8, box: grabcut.Box | None, subject: Bool, background: Bool) -> Bool:
    """Return the mask at working size, (h, w) bool."""
    import cv2

    never, place = background, np.zeros(subject.shape, np.float32)
    fading = place
    if box is not None:
        outside, place, walk = grabcut.priors(pixels, box)
        never = (outside & ~subject) | background
        fading = grabcut.FADE * place + grabcut.WALK_FADE * walk
        place = place + walk
    near = NEARNESS * _nearness(pixels, subject, never, frame=box is None)
    bins = grabcut.colour_bins(cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB).astype(np.uint8))
    colours = grabcut.principal(pixels)
    odds = prior = place + near
    for _ in range(grabcut.SOFT_ROUNDS):
        odds = _odds(bins, _certain(1 / (1 + np.exp(-odds)), subject, never), subject, background) + prior
    probability, cut = _certain(1 / (1 + np.exp(-odds)), subject, never), subject
    for _ in range(grabcut.CUT_ROUNDS):
        colour = _odds(bins, probability, subject, background)
        cut = grabcut.minimum_cut(colour + fading + NEARNESS_FADE * near, colours, never, subject)
        probability = _certain(np.where(cut, grabcut.SURE, 1 - grabcut.SURE), subject, never)
    if not cut.any():
        return cut
    tidied = (grabcut.tidy(cut) & ~background) | subject
    return tidied if box is not None else _marked(tidied, subject)


def _certain(probability: NDArray[np.floating[Any]], subject: Bool, never: Bool) -> Float32:
    return np.where(subject, 1, np.where(never, 0, probability)).astype(np.float32)


def _odds(bins: NDArray[np.intp], probability: Float32, subject: Bool, background: Bool) -> Float32:
    """Return the odds of the colours, (h, w) nats, in which seeds count for more than other pixels."""
    more = np.concatenate([bins.ravel(), *([bins[subject], bins[background]] * int(SEED_WEIGHT))])
    known = np.concatenate([np.ones(int(subject.sum())), np.zeros(int(background.sum()))])
    weights = np.concatenate([probability.ravel(), np.tile(known, int(SEED_WEIGHT))]).astype(np.float32)
    return grabcut.colour_odds(more, weights)[: bins.size].reshape(bins.shape)


def _nearness(pixels: UInt8, subject: Bool, never: Bool, frame: bool) -> Float32:
    """Return which seeds are nearer, along paths that avoid edges: (h, w) float32, 1 at the subject's, -1 at others."""
    import cv2

    if not subject.any():
        return np.zeros(subject.shape, np.float32)
    small = grabcut.shrink(pixels, grabcut.GEODESIC_SIDE)
    inside, outside = _shrunk(subject, small.shape[:2]), _shrunk(never, small.shape[:2])
    if frame:
        outside[[0, -1]] = outside[:, [0, -1]] = True
    outside &= ~inside
    if not outside.any():
        return np.zeros(subject.shape, np.float32)
    smooth = cv2.bilateralFilter(small, 5, 20, 3)  # as in `grabcut`: grain goes, edges stay
    lab = cv2.cvtColor(smooth.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).astype(np.float32)
    to_subject, to_others = grabcut.cheapest_paths(lab, inside), grabcut.cheapest_paths(lab, outside)
    relative = (to_others - to_subject) / np.maximum(to_others + to_subject, 1e-6)
    return np.asarray(cv2.resize(relative, subject.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def _marked(cut: Bool, subject: Bool) -> Bool:
    """Return the parts of a cut that the person marked: without a box, nothing else says that a part is meant."""
    import cv2

    _, parts = cv2.connectedComponents(cut.astype(np.uint8), connectivity=8)
    meant = np.zeros(int(parts.max()) + 1, np.bool_)
    meant[parts[subject]] = True
    meant[0] = False
    return np.asarray(meant[parts], np.bool_)
