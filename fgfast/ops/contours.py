"""Outlines of a mask along the edges of its pixels: polygons with holes that give the mask back to the pixel.

The corner between pixels has whole coordinates: pixel (row, column) is the square from (column, row) to
(column + 1, row + 1). Pixels that touch only at a corner belong to one part, as in cv2.findContours and in the flags.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fgfast.records import Bool

Points = NDArray[np.int64]

# The four pixels around a corner, as bits: above left, above right, below left, below right.
_ABOVE_LEFT, _ABOVE_RIGHT, _BELOW_LEFT, _BELOW_RIGHT = 1, 2, 4, 8
# Pixels that touch at a corner alone: two outlines pass through it.
_FALLING, _RISING = _ABOVE_LEFT | _BELOW_RIGHT, _ABOVE_RIGHT | _BELOW_LEFT
# Whether outlines turn at a corner, for each of the 16 neighbourhoods: where one or three of the pixels are inside, or
# two that touch at the corner alone.
_TURNS = np.array([n.bit_count() % 2 == 1 or n in (_FALLING, _RISING) for n in range(16)])


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One part of a mask.

    Attributes:
        outer: (N, 2) int64, x y of the corners of its outline, clockwise as it is seen; the first is its topmost, of
            these its leftmost, and the first edge runs to the right. Edges alternate between rows and columns.
        holes: (M, 2) int64 each, anticlockwise; the first corner as above, and the first edge runs down.
    """

    outer: Points
    holes: tuple[Points, ...] = ()


def parts(bits: Bool) -> list[Part]:
    """Return the parts of a mask, (H, W) bool, in the order of their first corners, by rows; none where it is empty."""
    import cv2

    codes = _codes(bits)
    rings = _rings(codes)
    _, labels = cv2.connectedComponents(np.ascontiguousarray(bits).view(np.uint8), connectivity=8)
    outer: dict[int, Points] = {}
    holes: dict[int, list[Points]] = {}
    for ring in rings:
        x, y = ring[0].tolist()
        if codes[y, x] & _BELOW_RIGHT:
            outer[int(labels[y, x])] = ring
        else:
            holes.setdefault(int(labels[y - 1, x]), []).append(ring)
    return [Part(ring, tuple(holes.get(label, ()))) for label, ring in outer.items()]


def _codes(bits: Bool) -> NDArray[np.uint8]:
    """Return which of the four pixels around each corner are inside, (H + 1, W + 1) uint8."""
    framed = np.pad(bits.view(np.uint8), 1)
    above, below = framed[:-1], framed[1:]
    codes: NDArray[np.uint8] = np.zeros((bits.shape[0] + 1, bits.shape[1] + 1), np.uint8)
    quarters = (above[:, :-1], above[:, 1:], below[:, :-1], below[:, 1:])
    for bit, quarter in zip((_ABOVE_LEFT, _ABOVE_RIGHT, _BELOW_LEFT, _BELOW_RIGHT), quarters, strict=True):
        codes |= quarter * np.uint8(bit)
    return codes


def _rings(codes: NDArray[np.uint8]) -> list[Points]:
    """Return all outlines, (N, 2) int64 each, in the order of their first corners."""
    ys, xs = np.nonzero(_TURNS[codes])
    found = codes[ys, xs]
    twice = (found == _FALLING) | (found == _RISING)
    # A corner with two outlines is listed twice: for the edge that comes from the left, then for the one to the right.
    copies = np.repeat(np.arange(len(xs)), 1 + twice)
    xs, ys, found = xs[copies], ys[copies], found[copies]
    right = np.zeros(len(xs), np.bool_)
    right[1:] = copies[1:] == copies[:-1]
    # In rows, every second corner ends the edge that the one before it begins; in columns, too. Pixels that touch at
    # the corner stay together: the left edge joins the lower one where they fall to the right, else the upper one.
    down = np.where(found == _FALLING, ~right, right)
    order = np.lexsort((down, ys, xs))
    across = np.empty(len(xs), np.int64)
    across[order] = order[np.arange(len(xs)) ^ 1]
    mates, unseen = across.tolist(), [True] * len(xs)
    outer = (found & _BELOW_RIGHT).astype(np.bool_).tolist()
    places = np.stack([xs, ys], axis=1).astype(np.int64)
    rings = []
    for start in range(len(xs)):
        if unseen[start]:
            ring, at, along = [], start, outer[start]
            while unseen[at]:
                unseen[at] = False
                ring.append(at)
                at, along = (at ^ 1 if along else mates[at]), not along
            rings.append(places[ring])
    return rings


def joined(part: Part, bits: Bool) -> Points:
    """Return one polygon for a part with its holes, for formats without holes, such as COCO's.

    Each hole is joined to the outline above it by a vertical cut of no width, which is passed in both directions. By
    the rule of even and odd, and in COCO's own tools, the polygon has the pixels of the part.

    Args:
        part: one of `parts(bits)`.
        bits: (H, W) bool, the mask.

    Returns:
        (N, 2) int64, x y.
    """
    if not part.holes:
        return part.outer
    rings = [part.outer, *part.holes]
    edges = _Edges(rings)
    cuts: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for number, hole in enumerate(part.holes, 1):
        x, y = hole[0].tolist()
        inside = bits[:y, x - 1] & bits[:y, x]
        gaps = np.flatnonzero(~inside)
        top = int(gaps[-1]) + 1 if len(gaps) else 0
        left = x - 1 if top == 0 or not bits[top - 1, x - 1] else x
        ring, edge = edges.over(top, left)
        away = abs(x - int(rings[ring][edge, 0]))
        cuts.setdefault((ring, edge), []).append((away, number, top))
    return np.array(list(_walk([ring.tolist() for ring in rings], cuts)), np.int64)


class _Edges:
    """The edges of outlines that run along rows, to be found by what they cover."""

    def __init__(self, rings: list[Points]) -> None:
        keys, found = [], []
        self._wide = max(int(ring[:, 0].max()) for ring in rings) + 2
        for number, ring in enumerate(rings):
            following = np.roll(ring, -1, axis=0)
            edge = np.flatnonzero(ring[:, 1] == following[:, 1])
            left = np.minimum(ring[edge, 0], following[edge, 0])
            keys.append(ring[edge, 1] * self._wide + left)
            found.append(np.stack([np.full(len(edge), number), edge], axis=1))
        order = np.argsort(np.concatenate(keys), kind="stable")
        self._keys, self._found = np.concatenate(keys)[order], np.concatenate(found)[order]

    def over(self, row: int, column: int) -> tuple[int, int]:
        """Return ring and number of the edge in a row that covers a column, which there is."""
        ring, edge = self._found[np.searchsorted(self._keys, row * self._wide + column, side="right") - 1].tolist()
        return ring, edge


def _walk(rings: list[list[list[int]]], cuts: dict[tuple[int, int], list[tuple[int, int, int]]]) -> Iterator[list[int]]:
    """Yield the corners of the first ring, and those of the others where the cuts lead to them and back."""
    last: list[int] = []
    waiting = [_steps(0, rings, cuts)]
    while waiting:
        step = next(waiting[-1], None)
        if step is None:
            waiting.pop()
        elif isinstance(step, int):
            waiting.append(_steps(step, rings, cuts))
        elif step != last:
            last = step
            yield step


def _steps(
    number: int, rings: list[list[list[int]]], cuts: dict[tuple[int, int], list[tuple[int, int, int]]]
) -> Iterator[list[int] | int]:
    """Yield the corners of a ring, and the numbers of other rings where they are to be walked."""
    ring = rings[number]
    for edge, corner in enumerate(ring):
        yield corner
        for _, hole, top in sorted(cuts.get((number, edge), ())):
            place = [rings[hole][0][0], top]
            yield place
            yield hole
            yield place
    if number:
        yield ring[0]


def twice_areas(rings: list[Points]) -> NDArray[np.int64]:
    """Return twice the area that each ring encloses, in square pixels, (N,) int64; negative where it is a hole."""
    found = [(r[:, 0] * np.roll(r[:, 1], -1) - np.roll(r[:, 0], -1) * r[:, 1]).sum() for r in rings]
    return np.array(found, np.int64)
