"""Images of textured triangles from a pinhole camera, drawn on the CPU: always the same bytes, without a display."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fgfast.records import Bool, UInt8

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Pixels that are looked at together: some ten numbers of eight bytes each, so that one piece takes about 100 MB.
_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """A pinhole camera with square images.

    Attributes:
        pose: (4, 4) float64, camera to world, as in NeRF and OpenGL: x to the right, y up, and it looks along -z.
        angle: field of view, in radians.
        side: of the image, in pixels.
    """

    pose: Floats
    angle: float
    side: int

    @property
    def focal(self) -> float:
        """The focal length in pixels."""
        return self.side / (2 * math.tan(self.angle / 2))


def orbit(azimuth: float, elevation: float, distance: float) -> Floats:
    """Return the pose, (4, 4) float64, of a camera that looks at the origin, whose upright is y.

    Args:
        azimuth: in radians; 0 looks from the front, along -z; pi / 2 from the right, along -x.
        elevation: in radians, between -pi / 2 and pi / 2.
        distance: from the origin.
    """
    ca, sa, ce, se = math.cos(azimuth), math.sin(azimuth), math.cos(elevation), math.sin(elevation)
    back = np.array([sa * ce, se, ca * ce])
    right = np.array([ca, 0.0, -sa])
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(back, right), back], axis=1)
    pose[:3, 3] = distance * back
    return pose


def render(points: Floats, faces: Ints, places: Floats, texture: UInt8, camera: Camera) -> tuple[UInt8, Bool]:
    """Draw triangles that all lie before the camera; both of their sides are seen, and there is no light.

    A pixel shows the nearest triangle that covers its middle, of equally near ones the first.

    Args:
        points: (V, 3) float64.
        faces: (F, 3) int64.
        places: (V, 2) float64 x y, 0..1: where in the texture each point's colour is; y runs down.
        texture: (h, w, 3) uint8; between its pixels colours are interpolated.
        camera: the camera.

    Returns:
        (side, side, 3) uint8, 0 where nothing is seen, and (side, side) bool, where something is.
    """
    here = (points - camera.pose[:3, 3]) @ camera.pose[:3, :3]
    depth = -here[:, 2]
    x = camera.side / 2 + camera.focal * here[:, 0] / depth
    y = camera.side / 2 - camera.focal * here[:, 1] / depth
    screen = np.stack([x, y, 1 / depth], axis=1)
    nearest = np.zeros(camera.side * camera.side)
    shown = np.zeros((camera.side * camera.side, 2))
    for piece in _pieces(screen, faces, camera.side):
        pixel, near, face, weights = _covered(screen, faces, piece, camera.side)
        order = np.lexsort((face, -near, pixel))
        first = order[np.flatnonzero(np.diff(pixel[order], prepend=-1))]
        first = first[near[first] > nearest[pixel[first]]]
        at = pixel[first]
        nearest[at] = near[first]
        corners = faces[face[first]]
        # In the image, what is divided by the depth is linear.
        shares = weights[first] * screen[corners, 2]
        shown[at] = (shares[..., None] * places[corners]).sum(axis=1) / near[first, None]
    seen = nearest > 0
    image = np.zeros((camera.side * camera.side, 3), np.uint8)
    image[seen] = _colours(texture, shown[seen])
    return image.reshape(camera.side, camera.side, 3), seen.reshape(camera.side, camera.side)


def _boxes(screen: Floats, faces: Ints, side: int) -> tuple[Ints, Ints]:
    """Return first column and row, and width and height, of the pixels that each triangle may cover, (F, 2) each."""
    corners = screen[faces, :2]
    first = np.clip(np.ceil(corners.min(axis=1) - 0.5), 0, side).astype(np.int64)
    last = np.clip(np.floor(corners.max(axis=1) - 0.5), -1, side - 1).astype(np.int64)
    return first, np.maximum(last - first + 1, 0)


def _pieces(screen: Floats, faces: Ints, side: int) -> list[Ints]:
    """Return the numbers of the triangles that may be seen, in pieces of some pixels each."""
    _, sizes = _boxes(screen, faces, side)
    counts = sizes.prod(axis=1)
    some = np.flatnonzero(counts)
    cuts = np.flatnonzero(np.diff(np.cumsum(counts[some]) // _AT_ONCE)) + 1
    return [piece for piece in np.split(some, cuts) if len(piece)]


def _covered(screen: Floats, faces: Ints, piece: Ints, side: int) -> tuple[Ints, Floats, Ints, Floats]:
    """Return all pixels of the triangles of a piece: pixel, 1 / depth, triangle, (N, 3) weights of its corners."""
    first, sizes = _boxes(screen, faces[piece], side)
    counts = sizes.prod(axis=1)
    owner = np.repeat(np.arange(len(piece)), counts)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    down, right = np.divmod(number, sizes[owner, 0])
    column, row = first[owner, 0] + right, first[owner, 1] + down
    (xa, ya, _), (xb, yb, _), (xc, yc, _) = np.moveaxis(screen[faces[piece]], (1, 2), (0, 1))
    area = (xb - xa) * (yc - ya) - (xc - xa) * (yb - ya)
    x, y = column + 0.5, row + 0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        b = ((x - xa[owner]) * (yc - ya)[owner] - (xc - xa)[owner] * (y - ya[owner])) / area[owner]
        c = ((xb - xa)[owner] * (y - ya[owner]) - (x - xa[owner]) * (yb - ya)[owner]) / area[owner]
    a = 1 - b - c
    # Seen from its edge, a triangle covers nothing: its weights are no numbers, and fail.
    hit = (a >= 0) & (b >= 0) & (c >= 0)
    weights = np.stack([a, b, c], axis=1)[hit]
    face = piece[owner[hit]]
    near = (weights * screen[faces[face], 2]).sum(axis=1)
    return (row * side + column)[hit], near, face, weights


def _colours(texture: UInt8, places: Floats) -> UInt8:
    """Return the colours at these places, (N, 3) uint8, interpolated between the middles of the texture's pixels."""
    height, width = texture.shape[:2]
    x = np.clip(places[:, 0] * width - 0.5, 0, width - 1)
    y = np.clip(places[:, 1] * height - 0.5, 0, height - 1)
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right, below = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, down = (x - left)[:, None], (y - top)[:, None]
    upper = texture[top, left] * (1 - across) + texture[top, right] * across
    lower = texture[below, left] * (1 - across) + texture[below, right] * across
    result: UInt8 = np.rint(upper * (1 - down) + lower * down).astype(np.uint8)
    return result
