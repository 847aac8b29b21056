"""Relief of a silhouette: a grid of cells inside a mask, heights over its corners, and the surface between them.

Coordinates are those of glTF: x to the right, y up, z towards who looks at the image; the longer side of the subject's
box has length 1, and its middle is the origin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fgfast import ops
from fgfast.records import Bool, Float32

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# A cell belongs to the subject from half its area on, as in `ops.area_coverage`.
_HALF = 128
# Corners of a cell, (row, column), anticlockwise as it is seen: below left, below right, above right, above left.
_CORNERS = ((1, 0), (1, 1), (0, 1), (0, 0))


class Surface(NamedTuple):
    """A surface of triangles.

    Attributes:
        points: (V, 3) float64.
        faces: (F, 3) int64, corners anticlockwise as they are seen from outside.
        places: (V, 2) float64 x y, 0..1: where in the subject's box the colour of each point is; y runs down.
        closed: whether it is the boundary of a solid: each edge has exactly two triangles.
    """

    points: Floats
    faces: Ints
    places: Floats
    closed: bool


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """The cells of a silhouette's box.

    Attributes:
        inside: (rows, columns) bool, which of them belong to the subject; at least one.
        sides: height and width of a cell, with the longer side of the box as 1.
    """

    inside: Bool
    sides: tuple[float, float]


def grid_of(bits: Bool, most: int) -> Grid:
    """Return the cells of a mask's box.

    Args:
        bits: (H, W) bool, the mask within its box, so that every side has a pixel of it.
        most: cells along the longer side, at least 1; a cell is never smaller than a pixel.
    """
    height, width = bits.shape
    longer = max(height, width)
    cell = max(1.0, longer / most)
    rows, columns = (max(1, round(side / cell)) for side in (height, width))
    cover = ops.area_coverage(bits, (rows, columns))
    inside = cover >= _HALF
    # A subject that is thinner than half a cell everywhere still is one.
    inside = inside if inside.any() else cover > 0
    return Grid(inside if inside.any() else cover >= cover.max(), (height / rows / longer, width / columns / longer))


def ball_heights(grid: Grid) -> Floats:
    """Return how high the union of all balls reaches that lie inside a silhouette with their centres in its plane.

    A disc becomes a ball, a strip a round bar: each part is as thick as it is wide.

    Returns:
        (rows + 1, columns + 1) float64 over the corners of the cells, 0 at the outline and outside.
    """
    from scipy.ndimage import distance_transform_edt

    framed = np.pad(grid.inside, 1)
    corners = framed[:-1, :-1] & framed[:-1, 1:] & framed[1:, :-1] & framed[1:, 1:]
    radii = distance_transform_edt(corners, sampling=grid.sides)
    # Over all centres c, the largest r(c)^2 - |p - c|^2; along rows, then along columns.
    squares = np.where(corners, radii**2, -np.inf)
    for axis, side in enumerate(grid.sides):
        squares = _largest(squares, side, axis)
    result: Floats = np.sqrt(np.maximum(squares, 0))
    result[~corners] = 0
    return result


def _largest(values: Floats, side: float, axis: int) -> Floats:
    """Return max over k of values[k] - (side (i - k))^2 for each i along an axis."""
    lines = np.moveaxis(values, axis, 0)
    result = lines.copy()
    for step in range(1, len(lines)):
        down = (side * step) ** 2
        np.maximum(result[step:], lines[:-step] - down, out=result[step:])
        np.maximum(result[:-step], lines[step:] - down, out=result[:-step])
    return np.moveaxis(result, 0, axis)


def sampled(values: Float32, grid: Grid) -> Floats:
    """Return values at the corners of the cells, (rows + 1, columns + 1) float64.

    Args:
        values: (H, W) float32, one per pixel of the box; between pixels they are interpolated.
        grid: the cells of that box.
    """
    from scipy.ndimage import map_coordinates

    rows, columns = grid.inside.shape
    ys = np.linspace(0, values.shape[0], rows + 1) - 0.5
    xs = np.linspace(0, values.shape[1], columns + 1) - 0.5
    result: Floats = map_coordinates(
        values.astype(np.float64), np.meshgrid(ys, xs, indexing="ij"), order=1, mode="nearest"
    )
    return result


def sheet(grid: Grid, heights: Floats) -> Surface:
    """Return the surface over a grid's cells at these heights, (rows + 1, columns + 1); it is open."""
    corner, places, z = _corners(grid, heights)
    return Surface(_points(grid, places, z), _halves(corner, _diagonals(grid, heights)), _shares(grid, places), False)


def solid(grid: Grid, heights: Floats) -> Surface:
    """Return the solid between a surface and its mirror image behind the plane of the silhouette; it is closed.

    At the outline it is as thick as half a cell is wide on each side.

    Args:
        grid: the cells.
        heights: (rows + 1, columns + 1) float64, at least 0.
    """
    corner, places, z = _corners(grid, np.maximum(heights, min(grid.sides) / 2))
    flat, count = _points(grid, places, z), len(places)
    front = _halves(corner, _diagonals(grid, heights))
    back = front[:, ::-1] + count
    a, b = _rim(grid, corner)
    walls = np.concatenate([np.stack([b, a, a + count], axis=1), np.stack([b, a + count, b + count], axis=1)])
    points = np.concatenate([flat, flat * [1, 1, -1]])
    shares = _shares(grid, places)
    return Surface(points, np.concatenate([front, back, walls]), np.concatenate([shares, shares]), True)


def _corners(grid: Grid, heights: Floats) -> tuple[Ints, Floats, Floats]:
    """Return numbers of the corners of all cells inside, (N, 4), and of each corner (row, column), (V, 2), and height.

    Where two cells touch at a corner alone, each has a corner of its own there: else four walls met in one edge.
    """
    rows, columns = np.nonzero(grid.inside)
    framed = np.pad(grid.inside, 1)
    above, below = framed[:-1], framed[1:]
    falling = above[:, :-1] & below[:, 1:] & ~above[:, 1:] & ~below[:, :-1]
    rising = ~above[:, :-1] & ~below[:, 1:] & above[:, 1:] & below[:, :-1]
    wide = grid.inside.shape[1] + 1
    codes = []
    for down, right in _CORNERS:
        y, x = rows + down, columns + right
        # Of the two cells, the lower one has the second corner: its own upper ones.
        second = (falling | rising)[y, x] & (down == 0)
        codes.append(2 * (y * wide + x) + second)
    known, corner = np.unique(np.stack(codes, axis=1), return_inverse=True)
    places = np.stack(np.divmod(known // 2, wide), axis=1).astype(np.float64)
    z = heights[places[:, 0].astype(np.int64), places[:, 1].astype(np.int64)]
    return corner.reshape(-1, 4).astype(np.int64), places, z


def _points(grid: Grid, places: Floats, z: Floats) -> Floats:
    (high, wide), (rows, columns) = grid.sides, grid.inside.shape
    return np.stack([(places[:, 1] - columns / 2) * wide, (rows / 2 - places[:, 0]) * high, z], axis=1)


def _shares(grid: Grid, places: Floats) -> Floats:
    result: Floats = places[:, ::-1] / np.array(grid.inside.shape[::-1], np.float64)
    return result


def _diagonals(grid: Grid, heights: Floats) -> Bool:
    """Return for each cell inside, (N,) bool, whether it is split from below left to above right.

    It is split between the two corners that are more alike in height, which keeps ridges whole.
    """
    y, x = np.nonzero(grid.inside)
    falling = np.abs(heights[y, x] - heights[y + 1, x + 1])
    rising = np.abs(heights[y + 1, x] - heights[y, x + 1])
    return np.asarray(rising <= falling)


def _halves(corner: Ints, rising: Bool) -> Ints:
    """Return the two triangles of each cell, (2 N, 3)."""
    one = np.where(rising[:, None], corner[:, [0, 1, 2]], corner[:, [0, 1, 3]])
    other = np.where(rising[:, None], corner[:, [0, 2, 3]], corner[:, [1, 2, 3]])
    return np.stack([one, other], axis=1).reshape(-1, 3)


def _rim(grid: Grid, corner: Ints) -> tuple[Ints, Ints]:
    """Return both ends of all edges between a cell inside and one outside, anticlockwise around the subject."""
    framed = np.pad(grid.inside, 1)
    rows, columns = np.nonzero(grid.inside)
    starts, ends = [], []
    # From each corner to the next: the lower, right, upper and left edge, and the neighbour behind it.
    for number, (down, right) in enumerate(((1, 0), (0, 1), (-1, 0), (0, -1))):
        outer = ~framed[rows + 1 + down, columns + 1 + right]
        starts.append(corner[outer, number])
        ends.append(corner[outer, (number + 1) % 4])
    return np.concatenate(starts), np.concatenate(ends)
