"""Features of an image's cells, which k-means groups into parts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from fgfast.ops.parts import colour_cells, grid_of, place_cells
from fgfast.records import Float32, Size, UInt8

if TYPE_CHECKING:
    from fgfast.models.dinov2 import PatchFeatures

T = TypeVar("T")
Cells = NDArray[np.float64]

# Cells along the longer side for colours: parts of a fifth of a bird have some hundred of them, and fur or feathers
# are averaged away.
_COLOUR_CELLS = 96


class Once(Generic[T]):
    """A value that is made at first use, once in each process; other threads wait for it."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make, self._lock, self._made = make, threading.Lock(), False
        self._value: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Once, (self._make,)

    def __call__(self) -> T:
        """Return the value."""
        with self._lock:
            if not self._made:
                self._value, self._made = self._make(), True
            value: T = self._value
            return value


class Features(Protocol):
    """Features of the cells of an image."""

    def grid(self, size: Size) -> Size:
        """Return the rows and columns of an image of this size, in pixels."""

    def of(self, pixels: UInt8, grid: Size) -> Cells:
        """Return what is seen in each cell, (rows, columns, D) float64, of (H, W, 3) uint8 RGB."""

    def placed(self, seen: Cells, box: Float32, size: Size) -> Cells:
        """Return features with the place of each cell in a box, where it counts: (rows, columns, D') float64.

        Args:
            seen: what `of` returned.
            box: (4,) x0 y0 x1 y1, in pixels of an image of `size`.
            size: of the image, in pixels.
        """


@dataclass(frozen=True)
class Colour:
    """Colour in CIE Lab, and the place in the subject's box.

    Attributes:
        place: how many units of Lab the whole width or height of the box counts as much as.
    """

    place: float

    def grid(self, size: Size) -> Size:
        """Return about 96 cells along the longer side, and none smaller than a pixel."""
        wanted = grid_of(size, _COLOUR_CELLS)
        return Size(min(wanted.height, size.height), min(wanted.width, size.width))

    def of(self, pixels: UInt8, grid: Size) -> Cells:
        """Return the colours of the cells; see `Features`."""
        return colour_cells(pixels, grid)

    def placed(self, seen: Cells, box: Float32, size: Size) -> Cells:
        """Return colours and places; see `Features`."""
        grid = Size(*seen.shape[:2])
        return np.concatenate([seen, self.place * place_cells(box, size, grid)], axis=2)


@dataclass(frozen=True)
class Patches:
    """Patch features of DINOv2 of the whole image; the place does not count."""

    network: Once[PatchFeatures]

    def grid(self, size: Size) -> Size:
        """Return the patches; see `Features`."""
        return self.network().grid(size)

    def of(self, pixels: UInt8, grid: Size) -> Cells:
        """Return the features of the patches; see `Features`."""
        return self.network()(pixels).astype(np.float64)

    def placed(self, seen: Cells, box: Float32, size: Size) -> Cells:
        """Return the features as they are."""
        return seen


@dataclass(frozen=True)
class LoadDinov2:
    """Loads a DINOv2.

    Attributes:
        folder: of its files.
        device: "cpu" or "cuda".
    """

    folder: Path
    device: str

    def __call__(self) -> PatchFeatures:
        """Load it; see `fgfast.models.dinov2.PatchFeatures`."""
        from fgfast.models.dinov2 import PatchFeatures

        return PatchFeatures(self.folder, self.device)
