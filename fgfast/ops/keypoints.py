"""SIFT and ORB keypoints of a subject, found on the whole image, and which of them no background can change.

The detector gets the mask and the untouched image. On a black cut-out the cut itself is the strongest edge, and many
keypoints sit on it. A mask is not enough either: what is computed for a keypoint reads pixels far around it. `reach`
says how far, and a keypoint is independent where the mask's edge is farther away. Of SIFT the reach is the sum of

* the pixels of a blurred image that OpenCV reads: the square of the descriptor, whose corners are 5.3 sizes away, or
  the 3 x 3 x 3 values of the detector, after up to 5 steps of refinement, each of a pixel;
* the blur: `SIGMAS` standard deviations of that image. A Gaussian has no end, yet in float32 a far pixel is lost in the
  rounding. A blurred value grows with each pixel, rounding included, so that a black and a white background bracket
  all others: where these two give the same bits, every background does. See `SIGMAS` for what was measured.

ORB computes in whole numbers from few pixels; its reach is a bound without measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgfast.records import Bool, Float32, UInt8

SIGMAS = 7.5
"""Standard deviations. On 31 photographs of CUB with ellipses and half-planes as masks, values of the blurred images
differed between a black and a white background up to 7.3 standard deviations from the edge, and no farther; by more
than 1e-4 of 255 levels up to 5.6. Black subjects, whose values are tiny and thus precise, may go farther."""
# OpenCV's SIFT (modules/features/src/sift.simd.hpp): the blur of an octave's first image in its pixels, layers of an
# octave, the descriptor's half diagonal in sizes (3 / 2 * sqrt(2) * (4 + 1) / 2), steps of the detector's refinement.
_SIGMA, _LAYERS, _STEPS = 1.6, 3, 5
_DESCRIPTOR = 1.5 * 2**0.5 * 2.5
# Pixels: an octave's pixel lies up to one beside its place where a side is odd; rounding of the radius and the
# difference across it read one more each.
_ROUNDING = 3
# Pixels of the image: doubling it reads one more, and the place itself is rounded to a pixel.
_PLACE = 2
# OpenCV's ORB (orb.cpp): its pairs lie up to (13, 13) away, which is 19 when turned, on an image blurred with 7 x 7 (3
# more). A level reads one more pixel of the level below it, 1.2 times as fine: in all less than 5. One for rounding.
_ORB_REACH = 19 + 3 + 5 + 1
SIFT_MOST_PIXELS = 1 << 24
"""Pixels of the largest image that `sift` should get: OpenCV takes 236 bytes for each, as was measured; 4 GB."""
ORB_SIZE = 31
"""Pixels: the size of ORB's keypoints on the first level."""
# Of a mask's pixels 1 in 4 at most is a corner that exceeds its neighbours; the first level gets 0.217 of the number.
_ALL_CORNERS = 1.2
# Below this side in pixels OpenCV's detectors find nothing, or fail on levels without pixels.
_SMALLEST = 12


@dataclass(frozen=True, slots=True, eq=False)
class Keypoints:
    """Keypoints, strongest first.

    Attributes:
        points: (N, 2) float32, x y in pixels; (0, 0) is the centre of the first pixel.
        sizes: (N,) float32, diameters in pixels.
        angles: (N,) float32, degrees, clockwise, 0 .. 360.
        responses: (N,) float32: SIFT's contrast, ORB's Harris measure; the larger, the stronger.
        octaves: (N,) int32: SIFT's octave from -1, which is the doubled image; ORB's level from 0.
        layers: (N,) int32: SIFT's layer in its octave, 1 .. 3; 0 for ORB.
        descriptors: (N, 128) uint8 for SIFT, (N, 32) uint8, 256 bits, for ORB.
    """

    points: Float32
    sizes: Float32
    angles: Float32
    responses: Float32
    octaves: NDArray[np.int32]
    layers: NDArray[np.int32]
    descriptors: UInt8

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, chosen: NDArray[np.intp] | NDArray[np.bool_]) -> Keypoints:
        """Return some of them, by indices or flags."""
        return Keypoints(*(getattr(self, name)[chosen] for name in self.__slots__))


def sift(grey: UInt8, bits: Bool, describe: bool = True) -> Keypoints:
    """Find the SIFT keypoints of a subject.

    Args:
        grey: (H, W) uint8, the whole image.
        bits: (H, W) bool; True is subject. Keypoints lie inside; no number of them is cut off.
        describe: whether to compute descriptors, which takes most of the time; otherwise they are 0.
    """
    import cv2

    detector = cv2.SIFT_create(  # type: ignore[attr-defined]  # OpenCV's stubs leave it out
        nOctaveLayers=_LAYERS, sigma=_SIGMA, enable_precise_upscale=True
    )
    return _found(detector, grey, bits, 128, describe)


def orb(grey: UInt8, bits: Bool, describe: bool = True) -> Keypoints:
    """Find the ORB keypoints of a subject; arguments as for `sift`.

    OpenCV keeps the best of a level, so that one keypoint decides about another; here all are kept.
    """
    import cv2

    number = int(_ALL_CORNERS * bits.sum()) + 64
    detector = cv2.ORB_create(nfeatures=number, patchSize=ORB_SIZE)  # type: ignore[attr-defined]  # left out, too
    return _found(detector, grey, bits, 32, describe)


def _found(detector: Any, grey: UInt8, bits: Bool, length: int, describe: bool) -> Keypoints:
    """Return what an OpenCV detector finds inside a mask, strongest first; equal ones from top left to bottom right."""
    found: Sequence[Any] = ()
    descriptors = None
    if min(grey.shape) >= _SMALLEST and bits.any():
        mask = bits.view(np.uint8) * np.uint8(255)
        if describe:
            found, descriptors = detector.detectAndCompute(grey, mask)
        else:
            found = detector.detect(grey, mask)
    table = np.array([(*point.pt, point.size, point.angle, point.response) for point in found], np.float32).reshape(
        -1, 5
    )
    packed = np.array([point.octave for point in found], np.int32)
    octaves = (packed & 255) - np.where(packed & 128, 256, 0) if length == 128 else packed
    layers = (packed >> 8) & 255 if length == 128 else np.zeros_like(packed)
    codes = np.zeros((len(found), length), np.uint8) if descriptors is None else descriptors.astype(np.uint8)
    points = Keypoints(
        table[:, :2], table[:, 2], table[:, 3], table[:, 4], octaves.astype(np.int32), layers.astype(np.int32), codes
    )
    rows, columns = _pixels(points.points, bits.shape)
    # A level of ORB's pyramid is shifted against the image by up to half of its pixels.
    points = points[bits[rows, columns]]
    order = np.lexsort((points.angles, points.sizes, *points.points.T, -points.responses.astype(np.float64)))
    return points[order]


def _pixels(points: Float32, shape: tuple[int, ...]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows and columns of the pixels in which (N, 2) points x y lie."""
    columns, rows = np.floor(points + 0.5).astype(np.intp).T
    return np.clip(rows, 0, shape[0] - 1), np.clip(columns, 0, shape[1] - 1)


def edge_distances(points: Float32, bits: Bool) -> Float32:
    """Return the distances, (N,) float32 in pixels, from the points' pixels to the nearest pixel that is no subject.

    OpenCV's distance transform is not used: its last bit differs from one call to the next.

    Args:
        points: (N, 2) float32, x y, inside the subject.
        bits: (H, W) bool. Outside the image nothing lies; where all pixels are subject, distances are infinite.
    """
    from scipy.spatial import cKDTree

    if bits.all() or not len(points):
        return np.full(len(points), np.inf, np.float32)
    # A step from the nearest pixel towards a subject's pixel leads into the subject, so that it touches the subject.
    inside = np.pad(bits, 1)
    beside = inside[:-2, 1:-1] | inside[2:, 1:-1] | inside[1:-1, :-2] | inside[1:-1, 2:]
    found, _ = cKDTree(np.argwhere(beside & ~bits)).query(np.stack(_pixels(points, bits.shape), axis=1))
    far: Float32 = found.astype(np.float32)
    return far


def sift_reach(keypoints: Keypoints) -> Float32:
    """Return how far, (N,) float32 in pixels, values of SIFT keypoints depend on the image; see the module."""
    scale = np.exp2(keypoints.octaves.astype(np.float32))
    blur = _SIGMA * np.exp2(keypoints.layers / _LAYERS)
    described = _DESCRIPTOR * keypoints.sizes / scale + SIGMAS * blur
    # The detector may come from the highest layer, whose neighbour's upper image is number _LAYERS + 2.
    detected = _STEPS + SIGMAS * _SIGMA * 2 ** ((_LAYERS + 2) / _LAYERS)
    reach: Float32 = (scale * (np.maximum(described, detected) + _ROUNDING) + _PLACE).astype(np.float32)
    return reach


def orb_reach(keypoints: Keypoints) -> Float32:
    """Return how far, (N,) float32 in pixels, values of ORB keypoints depend on the image; see the module."""
    reach: Float32 = (_ORB_REACH / ORB_SIZE * keypoints.sizes + _PLACE).astype(np.float32)
    return reach
