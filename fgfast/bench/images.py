"""The images of the benches: coloured noise, and sample photographs that other packages ship.

The photographs come from the installed wheels of scikit-image and scikit-learn. The box around each subject was set
manually.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fgfast.errors import MissingExtraError
from fgfast.files import open_regular
from fgfast.image_formats import open_image
from fgfast.ops.geometry import clip_box
from fgfast.records import Float32, Size, UInt8
from fgfast.writing import Target, write_file

Box = tuple[float, float, float, float]
"""x0 y0 x1 y1."""

EDGE = 500
"""The longer edge of a sample image in pixels, as in most images of CUB-200-2011."""
# The amplitude of noise falls with this power of the frequency. JPEGs at quality 95 then have 0.51 bytes per pixel and
# their cut-outs 0.23; 31 photographs of CUB-200-2011 have 0.52 and 0.24.
_SPECTRUM = 1.5
# The margin around the box in the zoomed variation, as a fraction of the box's sides.
_ZOOM_MARGIN = 0.3


@dataclass(frozen=True, slots=True)
class Photograph:
    """A photograph that a wheel ships, and the place of its subject.

    Attributes:
        package: "skimage" or "sklearn".
        file: the name of the file in that package.
        names: the class name; for the aircraft layout the variant, the family and the manufacturer.
        box: x0 y0 x1 y1 around the subject, in pixels.
    """

    package: str
    file: str
    names: tuple[str, ...]
    box: Box

    def open(self) -> Image.Image:
        """Read the photograph as RGB.

        Raises:
            MissingExtraError: the package that ships it is not installed.
        """
        try:
            package = importlib.import_module(self.package)
        except ImportError:
            raise MissingExtraError(self.package, "dev", "a sample photograph") from None
        below = "data" if self.package == "skimage" else "datasets/images"
        with open_regular(Path(str(package.__file__)).parent / below / self.file) as file:
            return open_image(file, ("JPEG", "PNG")).convert("RGB")


VEHICLES = (
    Photograph("skimage", "rocket.jpg", ("Falcon 9 v1.1", "Falcon 9", "SpaceX"), (303, 122, 347, 410)),
    Photograph("skimage", "astronaut.png", ("Space Shuttle/ET", "Space Shuttle", "Rockwell"), (352, 0, 456, 290)),
    Photograph("skimage", "motorcycle_left.png", ("XV 535", "Virago", "Yamaha"), (112, 66, 690, 465)),
    Photograph("skimage", "motorcycle_right.png", ("XV 535", "Virago", "Yamaha"), (62, 66, 640, 465)),
)
THINGS = (
    Photograph("skimage", "coffee.png", ("001.Coffee",), (70, 14, 486, 386)),
    Photograph("sklearn", "flower.jpg", ("002.Dahlia",), (165, 82, 450, 360)),
    Photograph("sklearn", "china.jpg", ("003.Pagoda",), (55, 26, 365, 420)),
    Photograph("skimage", "astronaut.png", ("004.Astronaut",), (0, 8, 405, 512)),
    Photograph("skimage", "camera.png", ("005.Cameraman",), (0, 50, 336, 512)),
    Photograph("skimage", "chelsea.png", ("006.Cat",), (0, 0, 412, 300)),
)


def variations(image: Image.Image, box: Box) -> Iterator[tuple[Image.Image, Box]]:
    """Yield four images of one subject and its box in each: unchanged, mirrored, zoomed in, smaller and darker."""
    width, height = image.size
    x0, y0, x1, y1 = box
    yield image, box
    yield image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (width - x1, y0, width - x0, y1)
    dx, dy = (x1 - x0) * _ZOOM_MARGIN, (y1 - y0) * _ZOOM_MARGIN
    left, top = max(0, int(x0 - dx)), max(0, int(y0 - dy))
    right, bottom = min(width, int(x1 + dx)), min(height, int(y1 + dy))
    yield image.crop((left, top, right, bottom)), (x0 - left, y0 - top, x1 - left, y1 - top)
    small = image.resize((width * 3 // 4, height * 3 // 4), Image.Resampling.LANCZOS).point(lambda v: v * 0.8)
    sx, sy = small.width / width, small.height / height
    yield small, (x0 * sx, y0 * sy, x1 * sx, y1 * sy)


class Subject(NamedTuple):
    """A sample image.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        box: (4,) float32 x0 y0 x1 y1 around the subject, in pixels.
    """

    pixels: UInt8
    box: Float32


def samples() -> tuple[list[Subject], str]:
    """Make the sample images, and describe them in words.

    They are all variations of the photographs, or coloured noise if a wheel is missing.
    """
    try:
        return _photographs(), "sample photographs of scikit-image and scikit-learn"
    except MissingExtraError:
        generator = np.random.default_rng(0)
        sizes = ((375, 500), (500, 375), (333, 500), (500, 500))
        boxes = [np.array([0.2 * w, 0.2 * h, 0.8 * w, 0.8 * h], np.float32) for h, w in sizes]
        noise = [Subject(noise_image(generator, *size), box) for size, box in zip(sizes, boxes, strict=True)]
        return noise, "coloured noise (scikit-image and scikit-learn, which ship photographs, are not installed)"


def _photographs() -> list[Subject]:
    found = []
    for photograph in THINGS + VEHICLES:
        for image, box in variations(photograph.open(), photograph.box):
            scale = EDGE / max(image.size)
            size = round(image.width * scale), round(image.height * scale)
            pixels = np.ascontiguousarray(image.resize(size, Image.Resampling.LANCZOS))
            corners = np.array(box) * np.tile(np.divide(size, image.size), 2)
            found.append(Subject(pixels, clip_box(corners.astype(np.float32), Size(*size[::-1]))))
    # With a step of 7 neighbours differ in photograph and shape, as in a shuffled data set.
    return [found[n * 7 % len(found)] for n in range(len(found))]


def write_images(folder: Path, files: Sequence[tuple[bytes, Box | Float32]], count: int) -> list[Path]:
    """Write `count` images into a new folder, and their boxes into boxes.csv beside it.

    Args:
        folder: the folder to create.
        files: content and box of each different JPEG, x0 y0 x1 y1 in pixels; they are repeated in turns.
        count: the number of images.

    Returns:
        The path of each image.
    """
    rows, paths = ["path,x0,y0,x1,y1"], []
    for n, (content, box) in zip(range(count), cycle(files), strict=False):
        paths.append(folder / f"{n:06d}.jpg")
        write_file(Target.file(paths[-1]), content, sync=False)
        rows.append(f"{folder.name}/{n:06d}.jpg," + ",".join(f"{edge:.1f}" for edge in box))
    write_file(Target(folder.parent, "boxes.csv"), ("\n".join(rows) + "\n").encode(), sync=False)
    return paths


def noise_image(generator: np.random.Generator, height: int, width: int, spectrum: float = _SPECTRUM) -> UInt8:
    """Make coloured noise, (height, width, 3) uint8; its amplitude falls with the frequency to the power `spectrum`."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    falloff = np.maximum(frequency, 1 / max(height, width)) ** spectrum
    waves = np.fft.fft2(generator.standard_normal((3, height, width))) / falloff
    planes = np.real(np.fft.ifft2(waves))
    planes = (planes - planes.mean((1, 2), keepdims=True)) / planes.std((1, 2), keepdims=True)
    mixed = 0.8 * planes[:1] + 0.35 * planes
    return np.ascontiguousarray(np.clip(mixed * 50 + 120, 0, 255).astype(np.uint8).transpose(1, 2, 0))


def largest_difference(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return the largest difference between the elements of two arrays of one shape; 0 for empty ones."""
    return float(np.abs(np.subtract(a, b, dtype=np.float64)).max(initial=0))
