"""Features of an image's cells, which k-means groups into parts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from fgfast.errors import SampleError, UsageError, WeightsError
from fgfast.ops.geometry import mask_box
from fgfast.ops.parts import colour_cells, grid_of, place_cells
from fgfast.records import Bool, Size, UInt8

if TYPE_CHECKING:
    from fgfast.models.dinov2 import PatchFeatures

T = TypeVar("T")
Cells = NDArray[np.float64]

# Cells along the longer side for colours: parts of a fifth of a bird have some hundred of them, and fur or feathers
# are averaged away.
_COLOUR_CELLS = 96

NO_NETWORK = "no network"
"""The reason of all samples where DINOv2 cannot be loaded."""


class Once(Generic[T]):
    """A value that is made at first use, once in each process; other threads wait for it.

    Where that raises a SampleError, every use raises it, so that not every sample tries again.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make, self._lock, self._made = make, threading.Lock(), False
        self._value: Any = None
        self._error: SampleError | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Once, (self._make,)

    def __call__(self) -> T:
        """Return the value.

        Raises:
            SampleError: making it raised one.
        """
        with self._lock:
            if self._error is None and not self._made:
                try:
                    self._value, self._made = self._make(), True
                except SampleError as error:
                    self._error = error
            if self._error is not None:
                raise SampleError(self._error.reason, self._error.detail)
            value: T = self._value
            return value


class Features(Protocol):
    """Features of the cells of an image."""

    def __call__(self, pixels: UInt8, bits: Bool) -> tuple[Cells, Cells]:
        """Return the features of all cells as parts of the subject, and as parts of the whole image.

        Args:
            pixels: (H, W, 3) uint8 RGB.
            bits: (H, W) bool, not empty; True is subject.

        Returns:
            (rows, columns, D) float64 each. Of the first, only cells inside the mask mean anything.
        """


@dataclass(frozen=True)
class Colour:
    """Colour in CIE Lab, and the place: in the mask's box, or in the whole image.

    The colour of a cell of the subject is that of its subject pixels.

    Attributes:
        place: how many units of Lab the whole width or height of the box counts as much as.
    """

    place: float

    def __call__(self, pixels: UInt8, bits: Bool) -> tuple[Cells, Cells]:
        """Return the features; see `Features`."""
        size, box = Size(*bits.shape), mask_box(bits)
        assert box is not None
        wanted = grid_of(size, _COLOUR_CELLS)
        grid = Size(min(wanted.height, size.height), min(wanted.width, size.width))
        whole = np.array([0, 0, size.width, size.height], np.float32)
        subject, image = (
            np.concatenate([colour_cells(pixels, grid, own), self.place * place_cells(around, size, grid)], axis=2)
            for own, around in ((bits, box), (None, whole))
        )
        return subject, image


@dataclass(frozen=True)
class Patches:
    """Patch features of DINOv2, of the whole untouched image; the place does not count."""

    network: Once[PatchFeatures]

    def __call__(self, pixels: UInt8, bits: Bool) -> tuple[Cells, Cells]:
        """Return the features, twice the same; see `Features`."""
        found = self.network()(pixels).astype(np.float64)
        return found, found


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
        """Load it; see `fgfast.models.dinov2.PatchFeatures`.

        Raises:
            SampleError: it cannot be loaded. The plan has checked what can be checked without that.
        """
        from fgfast.models.dinov2 import PatchFeatures

        try:
            return PatchFeatures(self.folder, self.device)
        except (UsageError, WeightsError) as error:
            raise SampleError(NO_NETWORK, str(error)) from error
