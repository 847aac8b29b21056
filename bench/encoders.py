"""Measures which library writes JPEG, PNG and masks fastest, and how much two threads gain.

The output of each encoder is decoded and compared before any encoder is timed. The encoders take turns, so that other
load on the machine affects all of them alike. Libraries that fgfast does not need are measured where they are
installed; a folder of their own is enough:

    pip install --target /tmp/enc --no-deps imagecodecs fpng
    PYTHONPATH=/tmp/enc python bench/encoders.py --json > bench/results/encoders.json
"""

from __future__ import annotations

import importlib
import importlib.metadata
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import click
import numpy as np

from fgfast.bench.images import noise_image
from fgfast.bench.result import Result, Row, envelope, text_of
from fgfast.bench.text import table
from fgfast.bench.timing import in_turns, threads
from fgfast.io.png import deflater
from fgfast.io.write import encode, encode_mask
from fgfast.records import Bool, UInt8

Encode = Callable[[Any], bytes]

_QUALITY = 95
# The PNG level of encoders that have levels.
_LEVEL = 3
# Height, width, images per thread where two encode: the commonest size of CUB and that of a camera.
_SIZES = {"500x375": (375, 500, 12), "3000x2000": (2000, 3000, 1)}
# Half axis of the subject as a fraction of the image: an ellipse over 37 % of the image, as large as CUB's boxes.
_AXIS = 0.344
# The largest error of a JPEG, as a multiple of OpenCV's; libjpeg-turbo's fast transform is 4 % worse.
_WORSE = 1.1


class Encoder(NamedTuple):
    """A library, or one way of using it.

    Attributes:
        name: the name in the table.
        package: the distribution whose version is quoted; empty for fgfast's own encoder.
        kinds: "jpeg", "png" (RGB and RGBA) and "mask" -> function.
    """

    name: str
    package: str
    kinds: dict[str, Encode]


def measure(*, rounds: int, large: bool = True) -> Result:
    """Time all installed encoders, on one thread and on two.

    Args:
        rounds: how often each encoder is timed; medians are quoted.
        large: whether images of six megapixels are measured too.

    Returns:
        For each kind and size a group of rows: milliseconds per image on one thread, the throughput of two threads over
        that of one, bytes, and the mean difference from the encoded pixels in grey levels.

    Raises:
        AssertionError: an encoder loses more than OpenCV's does; then its kind is not timed.
    """
    encoders, absent = installed()
    rows: list[Row] = []
    with threads(1), ThreadPoolExecutor(2) as pool:
        for size in _SIZES if large else list(_SIZES)[:1]:
            for kind in ("jpeg", "png rgb", "png rgba", "mask"):
                rows += _measured(kind, size, encoders, rounds, pool)
    packages = sorted({e.package for e in encoders if e.package})
    return envelope(
        "encoders",
        rows,
        title="Encoding JPEG, PNG and masks",
        rounds=rounds,
        notes=[
            f"Coloured noise in an ellipse, black background; JPEG {_QUALITY} 4:4:4, PNG level {_LEVEL}.",
            f"fgfast deflates with {deflater()}.",
            *(f"Not measured: {reason}." for reason in absent),
        ],
        libraries={package: importlib.metadata.version(package) for package in packages},
    )


def _measured(
    kind: str, size: str, encoders: Sequence[Encoder], rounds: int, pool: ThreadPoolExecutor
) -> Iterator[Row]:
    height, width, count = _SIZES[size]
    pixels, bits = cut_out(height, width)
    subject: Any = {"mask": bits, "png rgba": np.dstack([pixels, bits.view(np.uint8) * 255])}.get(kind, pixels)
    form = kind.split()[0]
    ways = {e.name: partial(e.kinds[form], subject) for e in encoders if form in e.kinds}
    files = {name: way() for name, way in ways.items()}
    errors = {name: float(np.abs(decoded(data) - subject).mean()) for name, data in files.items()}
    if wrong := {name: error for name, error in errors.items() if error > errors["opencv"] * _WORSE}:
        raise AssertionError(f"{kind}: farther from the image than OpenCV's {errors['opencv']} grey levels: {wrong}")

    def on_two_threads(way: Callable[[], bytes]) -> None:
        list(pool.map(lambda _: [way() for _ in range(count)], range(2)))

    alone = in_turns(ways, rounds)
    together = in_turns({name: partial(on_two_threads, way) for name, way in ways.items()}, rounds)
    group = f"{kind}, {size}"
    for name, seconds in alone.items():
        gains = [2 * count * one / two for one, two in zip(seconds, together[name], strict=True)]
        yield Row.of(name, [1e3 * s for s in seconds], "ms", "lower", group)
        yield Row.of(f"{name}: two threads", gains, "times", "higher", group)
        yield Row(f"{name}: size", len(files[name]), "bytes", "lower", group)
        yield Row(f"{name}: mean error", errors[name], "grey levels", "lower", group)


def cut_out(height: int, width: int) -> tuple[UInt8, Bool]:
    """Make an image with a black background, (height, width, 3) uint8, and its mask, (height, width) bool."""
    pixels = noise_image(np.random.default_rng(0), height, width)
    y, x = np.mgrid[:height, :width]
    bits: Bool = np.hypot(y / height - 0.5, x / width - 0.5) < _AXIS
    pixels[~bits] = 0
    return pixels, bits


def decoded(data: bytes) -> Any:
    """Decode a file to int16 pixels; masks of any depth become 0 and 1."""
    from PIL import Image

    image = Image.open(io.BytesIO(data))
    pixels = np.asarray(image).astype(np.int16)
    return np.minimum(pixels, 1) if image.mode in ("1", "L") else pixels


def installed() -> tuple[list[Encoder], list[str]]:
    """List the installed encoders, and for each missing one its name with the reason."""
    found, absent = [], []
    for name, make in _MAKERS.items():
        try:
            found += list(make())
        except ImportError as error:
            absent.append(f"{name}: {error}")
    return found, absent


def _opencv() -> Iterator[Encoder]:
    import cv2

    def image(suffix: str, options: list[int], pixels: UInt8) -> bytes:
        swap = cv2.COLOR_RGBA2BGRA if pixels.shape[2] == 4 else cv2.COLOR_RGB2BGR
        return bytes(cv2.imencode(suffix, cv2.cvtColor(pixels, swap), options)[1].tobytes())

    def mask(bits: Bool) -> bytes:
        return bytes(cv2.imencode(".png", bits.view(np.uint8), [cv2.IMWRITE_PNG_BILEVEL, 1])[1].tobytes())

    full_colour = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    jpeg = partial(image, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, _QUALITY, *full_colour])
    level = [cv2.IMWRITE_PNG_COMPRESSION, _LEVEL]
    package = "opencv-contrib-python-headless"
    yield Encoder("opencv", package, {"jpeg": jpeg, "png": partial(image, ".png", level), "mask": mask})
    # The default of OpenCV: level 1, run lengths only, each pixel minus the one before.
    yield Encoder("opencv, runs only", package, {"png": partial(image, ".png", [])})
    if hasattr(cv2, "IMWRITE_PNG_FILTER"):
        up = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP]
        yield Encoder("opencv, level 1, up", package, {"png": partial(image, ".png", up)})


def _pillow() -> Iterator[Encoder]:
    from PIL import Image

    def save(options: dict[str, Any], pixels: Any) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, **options)
        return buffer.getvalue()

    jpeg = partial(save, {"format": "JPEG", "quality": _QUALITY, "subsampling": 0})
    png = partial(save, {"format": "PNG", "compress_level": _LEVEL})
    yield Encoder("pillow", "pillow", {"jpeg": jpeg, "png": png, "mask": png})


def _simplejpeg() -> Iterator[Encoder]:
    import simplejpeg

    def jpeg(pixels: UInt8) -> bytes:
        return bytes(simplejpeg.encode_jpeg(pixels, _QUALITY, "RGB", "444", False))

    yield Encoder("simplejpeg", "simplejpeg", {"jpeg": jpeg})


def _imagecodecs() -> Iterator[Encoder]:
    imagecodecs = importlib.import_module("imagecodecs")

    def mask(bits: Bool) -> bytes:  # imagecodecs writes eight bits per pixel only
        return bytes(imagecodecs.png_encode(bits.view(np.uint8), _LEVEL))

    jpeg = partial(imagecodecs.jpeg8_encode, level=_QUALITY, subsampling="444")
    png = partial(imagecodecs.png_encode, level=_LEVEL)
    yield Encoder("imagecodecs", "imagecodecs", {"jpeg": jpeg, "png": png, "mask": mask})
    yield Encoder("imagecodecs, libspng", "imagecodecs", {"png": partial(imagecodecs.spng_encode, level=_LEVEL)})


def _fpng() -> Iterator[Encoder]:
    fpng_ext = importlib.import_module("fpng.fpng_ext")

    def png(pixels: UInt8) -> bytes:
        height, width, channels = pixels.shape
        return bytes(fpng_ext.encode_image_to_memory(pixels.tobytes(), width, height, channels))

    yield Encoder("fpng", "fpng", {"png": png})


def _fgfast() -> Iterator[Encoder]:
    def image(suffix: str, pixels: UInt8) -> bytes:
        return encode(pixels, suffix, _QUALITY)

    yield Encoder("fgfast", "", {"jpeg": partial(image, ".jpg"), "png": partial(image, ".png"), "mask": encode_mask})


_MAKERS: dict[str, Callable[[], Iterator[Encoder]]] = {
    "fgfast": _fgfast,
    "opencv": _opencv,
    "pillow": _pillow,
    "simplejpeg": _simplejpeg,
    "imagecodecs": _imagecodecs,
    "fpng": _fpng,
}


@click.command()
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="How often each encoder is timed; medians are quoted.",
)
@click.option("--small", is_flag=True, help="Measure images of 500x375 pixels only.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def main(rounds: int, small: bool, as_json: bool) -> None:
    """Measure which library writes JPEG, PNG and masks fastest, and how much two threads gain."""
    result = measure(rounds=rounds, large=not small)
    click.echo(text_of(result) if as_json else table(result))


if __name__ == "__main__":
    main()
