"""Measures which library writes JPEG, PNG and masks fastest, and how much two threads gain.

The output of each encoder is decoded and compared before any encoder is timed. The encoders take turns, so that other
load on the machine affects all of them alike.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import click
import cv2
import numpy as np
import simplejpeg
from PIL import Image

from fgfast.bench.images import noise_image
from fgfast.bench.result import Result, Row, envelope, text_of
from fgfast.bench.text import table
from fgfast.bench.timing import in_turns, threads
from fgfast.io.encode import deflater, encode, encode_bilevel
from fgfast.records import Bool, UInt8
from fgfast.terminal import say

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


def measure(*, rounds: int, large: bool = True) -> Result:
    """Time all encoders, on one thread and on two.

    Args:
        rounds: how often each encoder is timed; medians are quoted.
        large: whether images of six megapixels are measured too.

    Returns:
        For each kind and size a group of rows: milliseconds per image on one thread, the throughput of two threads over
        that of one, bytes, and the mean difference from the encoded pixels in grey levels.

    Raises:
        AssertionError: an encoder loses more than OpenCV's does; then its kind is not timed.
    """
    rows: list[Row] = []
    with threads(1), ThreadPoolExecutor(2) as pool:
        for size in _SIZES if large else list(_SIZES)[:1]:
            for kind in ("jpeg", "png rgb", "png rgba", "mask"):
                rows += _measured(kind, size, rounds, pool)
    return envelope(
        "encoders",
        rows,
        title="Encoding JPEG, PNG and masks",
        rounds=rounds,
        notes=[
            f"Coloured noise in an ellipse, black background; JPEG {_QUALITY} 4:4:4, PNG level {_LEVEL}.",
            f"fgfast deflates with {deflater()}.",
        ],
    )


def _measured(kind: str, size: str, rounds: int, pool: ThreadPoolExecutor) -> Iterator[Row]:
    height, width, count = _SIZES[size]
    pixels, bits = cut_out(height, width)
    subject: Any = {"mask": bits, "png rgba": np.dstack([pixels, bits.view(np.uint8) * 255])}.get(kind, pixels)
    ways = {name: partial(way, subject) for name, way in ENCODERS[kind.split()[0]].items()}
    files = {name: way() for name, way in ways.items()}
    errors = {name: float(np.abs(decoded(data) - subject).mean()) for name, data in files.items()}
    if wrong := {name: error for name, error in errors.items() if error > errors["OpenCV"] * _WORSE}:
        raise AssertionError(f"{kind}: farther from the image than OpenCV's {errors['OpenCV']} grey levels: {wrong}")

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
    image = Image.open(io.BytesIO(data))
    pixels = np.asarray(image).astype(np.int16)
    return np.minimum(pixels, 1) if image.mode in ("1", "L") else pixels


def _opencv(suffix: str, options: Sequence[int], pixels: Any) -> bytes:
    swaps = {4: cv2.COLOR_RGBA2BGRA, 3: cv2.COLOR_RGB2BGR}
    image = cv2.cvtColor(pixels, swaps[pixels.shape[2]]) if pixels.ndim == 3 else pixels.view(np.uint8)
    return bytes(cv2.imencode(suffix, image, options)[1].tobytes())


def _pillow(pixels: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, **options)
    return buffer.getvalue()


def _simplejpeg(pixels: UInt8) -> bytes:
    return bytes(simplejpeg.encode_jpeg(pixels, _QUALITY, "RGB", "444", False))


_FULL_COLOUR = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
_PNG = partial(_pillow, format="PNG", compress_level=_LEVEL)
ENCODERS: dict[str, dict[str, Encode]] = {
    "jpeg": {
        "fgfast": lambda pixels: encode(pixels, ".jpg", _QUALITY),
        "OpenCV": partial(_opencv, ".jpg", (cv2.IMWRITE_JPEG_QUALITY, _QUALITY, *_FULL_COLOUR)),
        "Pillow": partial(_pillow, format="JPEG", quality=_QUALITY, subsampling=0),
        "simplejpeg": _simplejpeg,
    },
    "png": {
        "fgfast": lambda pixels: encode(pixels, ".png", _QUALITY),
        "OpenCV": partial(_opencv, ".png", (cv2.IMWRITE_PNG_COMPRESSION, _LEVEL)),
        # Level 1, run lengths only, each pixel minus the one before.
        "OpenCV, default": partial(_opencv, ".png", ()),
        "Pillow": _PNG,
    },
    "mask": {
        "fgfast": encode_bilevel,
        "OpenCV": partial(_opencv, ".png", (cv2.IMWRITE_PNG_BILEVEL, 1)),
        "Pillow": _PNG,
    },
}
"""Kind -> name -> function; "png" encodes RGB and RGBA."""


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
    say(text_of(result) if as_json else table(result))


if __name__ == "__main__":
    main()
