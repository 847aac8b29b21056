"""Makes one image of an expansion of backgrounds: its subject on another background, or one of both alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from types import MappingProxyType
from typing import Any

import numpy as np

from fgfast.data_paths import DataPath
from fgfast.errors import ImageBrokenError, MissingExtraError, SampleError
from fgfast.expand.kind import Product, Subject
from fgfast.io.decode import decode, read_bytes
from fgfast.ops.background import cover
from fgfast.ops.filling import Box, blackened, box_to_fill, inpainted, share, tiled
from fgfast.ops.matting import blur_fusion, feathered, interior, mixed
from fgfast.records import Float32, UInt8

FILLS: Mapping[str, Callable[[UInt8, Box], UInt8]] = MappingProxyType({"tile": tiled, "inpaint": inpainted})

_BLACK = np.zeros(3, np.uint8)
# Numba ends the process where two threads enter its own pool at once, which it has where neither OpenMP nor TBB is.
_ONE_AT_A_TIME = Lock()
# Levels of a channel.
_LEVELS = 256


@dataclass(frozen=True, slots=True)
class LayOnBackground:
    """The step of the kind; what each image gets is in its `given`.

    Attributes:
        recipe: its name, which is also the folder of the images.
        root: where the files of backgrounds are; None where there are none.
        turn_exif: whether their EXIF orientation is applied.
        fill: how the box of a background's own subject is filled, of `FILLS`.
        feather: width of a soft edge in pixels; 0 for hard edges.
        foreground: how the colours under a soft edge are estimated, of `ESTIMATES`; "none" takes those of the image.
        most_filled: the largest share of an image that is filled in only-bg-b and only-bg-t.
    """

    recipe: str
    root: DataPath | None
    turn_exif: bool
    fill: str
    feather: float
    foreground: str
    most_filled: float

    def __call__(self, subject: Subject) -> Product:
        """Make the image.

        Raises:
            SampleError: the file of its background is missing, has changed, or cannot be decoded.
        """
        if not subject.bits.any():
            return Product(skipped="its mask is empty: where its subject is is not known")
        if self.recipe in ("only-bg-b", "only-bg-t"):
            return self._only_background(subject)
        alpha = feathered(subject.bits, self.feather) if self.feather else subject.bits.astype(np.float32)
        hidden = float(alpha.min()) == 1
        if hidden and self.recipe == "no-fg":
            return Product(skipped="its subject covers the image: there is no background in it")
        front, back = self._colours(subject.pixels, alpha)
        if self.recipe == "no-fg":
            image = mixed(back, 1 - alpha, _BLACK)
        elif self.recipe == "only-fg":
            image = mixed(front, alpha, _BLACK)
        else:
            image = mixed(front, alpha, self._background(subject))
        return Product(images={self.recipe: image}, flags=("background hidden",) if hidden else ())

    def _only_background(self, subject: Subject) -> Product:
        size = subject.bits.shape[0], subject.bits.shape[1]
        box = box_to_fill(subject.bits)
        filled = share(box, size)
        if filled > self.most_filled:
            return Product(
                skipped=f"its subject's box covers {filled:.2f} of the image, more than {self.most_filled:g}"
            )
        fill = blackened if self.recipe == "only-bg-b" else tiled
        return Product(images={self.recipe: fill(subject.pixels, box)})

    def _colours(self, pixels: UInt8, alpha: Float32) -> tuple[UInt8 | Float32, UInt8 | Float32]:
        """Return the colours of foreground and background under the alpha, (H, W, 3) each."""
        if self.foreground == "none" or not self.feather:
            return pixels, pixels
        return ESTIMATES[self.foreground](pixels, alpha)

    def _background(self, subject: Subject) -> UInt8:
        """Return the background, (H, W, 3), or one colour, (3,)."""
        given = subject.given
        if "colour" in given:
            return np.array(given["colour"], np.uint8)
        height, width = subject.bits.shape
        if "source" not in given:
            return subject.generator("noise").integers(0, _LEVELS, (height, width, 3), dtype=np.uint8)
        return cover(self._stored(given), width, height)

    def _stored(self, given: Mapping[str, Any]) -> UInt8:
        """Read the image that is the background, without its credit line and its own subject.

        Raises:
            SampleError: see `__call__`.
        """
        assert self.root is not None
        path = self.root / given["source"]
        try:
            data = read_bytes(path)
            pixels = decode(data, str(path), self.turn_exif).pixels
        except SampleError as error:
            raise ImageBrokenError(error.reason, f"its background cannot be used: {error.detail}") from error
        if "sha256" in given and hashlib.sha256(data).hexdigest() != given["sha256"]:
            raise ImageBrokenError(
                "changed", f"its background {path} is not the file of which the run made a mask; run convert again"
            )
        if "box" not in given:
            return pixels
        x0, y0, x1, y1 = given["box"]
        return FILLS[self.fill](pixels[: pixels.shape[0] - given["banner_rows"]], (x0, y0, x1, y1))


def with_pymatting(pixels: UInt8, alpha: Float32) -> tuple[Float32, Float32]:
    """Estimate the colours under an alpha as `fgfast.ops.matting.blur_fusion` does, by PyMatting's multi-level method.

    T. Germer, T. Uelwer, S. Conrad, S. Harmeling, Fast Multi-Level Foreground Estimation, 2020.

    Raises:
        MissingExtraError: pymatting is not installed.
    """
    try:
        from pymatting import estimate_foreground_ml
    except ImportError:
        raise MissingExtraError("pymatting", "matting", "--foreground pymatting") from None
    with _ONE_AT_A_TIME:
        found = estimate_foreground_ml(pixels / 255.0, alpha.astype(np.float64), return_background=True)
    front, back = (np.clip(np.asarray(colours) * 255, 0, 255).astype(np.float32) for colours in found)
    return front, back


ESTIMATES: Mapping[str, Callable[[UInt8, Float32], tuple[Float32, Float32]]] = MappingProxyType(
    {"interior": interior, "blur-fusion": blur_fusion, "pymatting": with_pymatting}
)
"""Ways to estimate the colours of foreground and background, (H, W, 3) each, under an alpha, (H, W)."""
