"""Parts that the data set names: crops and Gaussians around annotated points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fgfast.expand.kind import Product, Subject
from fgfast.expand.parts.shown import (
    CROPS,
    HEAT_MAPS,
    OVERVIEWS,
    PARTS,
    Cropping,
    Places,
    longer_side,
    overview,
    rows_and_crops,
    stacked,
)
from fgfast.ops.parts import grid_of, point_heat_maps
from fgfast.ops.truth import keypoints_outside
from fgfast.records import Float32, Size

EMPTY = "The mask is empty: there is no subject that could have parts."


@dataclass(frozen=True)
class AnnotatedStep:
    """Makes the products of annotated parts.

    Attributes:
        names: of the parts.
        cropping: how crops are cut.
        map_side: cells along the longer side of a heat map; 0 for no heat maps.
        sigma: of the Gaussians, as a fraction of the longer side of the mask's box.
    """

    names: tuple[str, ...]
    cropping: Cropping
    map_side: int
    sigma: float

    def __call__(self, subject: Subject) -> Product:
        """Return rows, crops, heat maps and the overview; skipped where the mask is empty."""
        if not subject.bits.any():
            return Product(skipped=EMPTY)
        points = np.array(subject.given["points"], np.float32).reshape(-1, 3)
        shown = np.where(points[:, 2:] > 0, points[:, :2], np.nan).astype(np.float64)
        places = Places(self.names, shown)
        rows, crops = rows_and_crops(subject, places, self.cropping)
        files = {OVERVIEWS: overview(subject, places)}
        if self.map_side:
            files[HEAT_MAPS] = stacked(self._heat_maps(subject, points))
        return Product(files=files, several=crops, rows={PARTS.name: rows}, flags=_flags(subject, points))

    def _heat_maps(self, subject: Subject, points: Float32) -> np.ndarray:
        size = Size(*subject.bits.shape)
        grid = grid_of(size, self.map_side)
        # A Gaussian narrower than half a cell would fall between the middles of the cells.
        sigma = max(self.sigma * longer_side(subject), 0.5 * max(size) / self.map_side)
        return point_heat_maps(points, size, grid, sigma)


def _flags(subject: Subject, points: Float32) -> tuple[str, ...]:
    """Return what speaks against the mask or the points; see `fgfast.ops.truth.keypoints_outside` for "outside"."""
    seen = points[points[:, 2] > 0, :2]
    flags = ["parts outside the mask"] if keypoints_outside(subject.bits, seen) else []
    height, width = subject.bits.shape
    if not ((seen >= 0) & (seen < (width, height))).all():
        flags.append("parts outside the image")
    return tuple(flags)


FOLDERS = (CROPS,)
