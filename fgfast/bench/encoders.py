"""Encoders of images, side by side: which library writes JPEG, PNG and masks fastest, and do threads help it.

Each encoder's file is decoded and compared before any is timed; they take turns, so that whatever else the machine does
befalls all alike. Libraries that fgfast does not need are measured where they are installed; a folder of their own is
enough:

    pip install --target /tmp/enc --no-deps imagecodecs fpng PyTurboJPEG
    PYTHONPATH=/tmp/enc python -m fgfast.bench.encoders --json > bench/results/encoders.json
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import io
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fgfast.bench.io import noise_image
from fgfast.bench.stamp import stamp
from fgfast.io.png import deflater
from fgfast.io.write import encode, encode_mask
from fgfast.records import Bool, UInt8

Encode = Callable[[Any], bytes]

_QUALITY = 95
# Level of PNGs for those that have one: what fgfast asked OpenCV for until it had an encoder of its own.
_LEVEL = 3
# Height, width, encodings a turn: CUB's commonest size and a camera's, about a tenth of a second of PNG each.
_SIZES = {"500x375": (375, 500, 12), "3000x2000": (2000, 3000, 1)}
# Half axes of the subject in parts of the image: an ellipse over 37 % of it, as CUB's boxes are.
_AXES = (0.344, 0.344)
# How much farther from the image than OpenCV's a JPEG may be: libjpeg-turbo's fast transform is 4 % farther.
_WORSE = 1.1


@dataclass(frozen=True)
class Encoder:
    """One way of encoding.

    Attributes:
        name: what the table calls it.
        package: the distribution whose version is quoted; empty for fgfast's own.
        kinds: "jpeg", "png" (RGB and RGBA) and "mask" -> function.
    """

    name: str
    package: str
    kinds: dict[str, Encode]


def measure(*, rounds: int, large: bool = True) -> dict[str, Any]:
    """Time all encoders that are installed, on one thread and on two.

    Args:
        rounds: turns; medians are quoted.
        large: whether images of six megapixels are measured too.

    Returns:
        Rows of kind, size, encoder, milliseconds per image on one thread by the clock and by the processor (the same
        but for what else the machine does), how many times as many images two threads do, bytes, mean difference in
        grey levels from what was encoded; machine and versions; as plain values.
    """
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        encoders, absent = installed()
        rows: list[dict[str, Any]] = []
        for size in _SIZES if large else list(_SIZES)[:1]:
            for kind in ("jpeg", "png rgb", "png rgba", "mask"):
                rows += _turns(kind, size, encoders, rounds)
    finally:
        cv2.setNumThreads(before)
    packages = sorted({e.package for e in encoders if e.package})
    return {
        "bench": "encoders",
        "rounds": rounds,
        "image": f"noise like photographs behind an ellipse, background black; JPEG {_QUALITY} 4:4:4, PNG {_LEVEL}",
        "deflate": deflater(),
        "rows": rows,
        "absent": absent,
        "libraries": {package: importlib.metadata.version(package) for package in packages},
        **stamp(),
    }


def _turns(kind: str, size: str, encoders: list[Encoder], rounds: int) -> list[dict[str, Any]]:
    height, width, count = _SIZES[size]
    pixels, bits = cut_out(height, width)
    subject: Any = {"mask": bits, "png rgba": np.dstack([pixels, bits.view(np.uint8) * 255])}.get(kind, pixels)
    ways = [(e.name, partial(e.kinds[kind.split()[0]], subject)) for e in encoders if kind.split()[0] in e.kinds]
    files = {name: encode_once() for name, encode_once in ways}
    errors = {name: float(np.abs(decoded(data) - subject).mean()) for name, data in files.items()}
    if wrong := {name: error for name, error in errors.items() if error > errors["opencv"] * _WORSE}:
        raise AssertionError(f"{kind}: farther from the image than OpenCV's {errors['opencv']} grey levels: {wrong}")
    seconds: dict[str, list[tuple[float, float, float]]] = {name: [] for name, _ in ways}
    for _ in range(rounds):
        for name, encode_once in ways:
            alone, busy = timed(encode_once, count, 1)
            seconds[name].append((alone, busy, alone * 2 / timed(encode_once, count, 2)[0]))
    return [
        {
            "kind": kind,
            "size": size,
            "encoder": name,
            "ms": round(1e3 * statistics.median(alone for alone, _, _ in seconds[name]) / count, 4),
            "cpu_ms": round(1e3 * statistics.median(busy for _, busy, _ in seconds[name]) / count, 4),
            "two_threads": round(statistics.median(gain for _, _, gain in seconds[name]), 2),
            "bytes": len(files[name]),
            "error": round(errors[name], 3),
        }
        for name, _ in ways
    ]


def timed(encode_once: Callable[[], bytes], count: int, threads: int) -> tuple[float, float]:
    """Seconds until each of so many threads has encoded `count` times, and the processors' seconds for all of it."""

    def work() -> None:
        for _ in range(count):
            encode_once()

    crew = [threading.Thread(target=work) for _ in range(threads)]
    start, busy = time.perf_counter(), time.process_time()
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    return time.perf_counter() - start, time.process_time() - busy


def cut_out(height: int, width: int) -> tuple[UInt8, Bool]:
    """An image with its background black, (height, width, 3) uint8, and its mask, (height, width) bool."""
    pixels = noise_image(np.random.default_rng(0), height, width)
    y, x = np.mgrid[:height, :width]
    down, across = (y / height - 0.5) / _AXES[0], (x / width - 0.5) / _AXES[1]
    bits: Bool = down**2 + across**2 < 1
    pixels[~bits] = 0
    return pixels, bits


def decoded(data: bytes) -> Any:
    """Pixels of a file as int16; masks of any depth as 0 and 1."""
    from PIL import Image

    image = Image.open(io.BytesIO(data))
    pixels = np.asarray(image).astype(np.int16)
    return np.minimum(pixels, 1) if image.mode in ("1", "L") else pixels


def installed() -> tuple[list[Encoder], list[str]]:
    """The encoders that are there, and the names of those that are not."""
    found, absent = [], []
    for name, make in _MAKERS.items():
        try:
            found += list(make())
        except (ImportError, RuntimeError) as error:  # PyTurboJPEG without its library: RuntimeError
            absent.append(f"{name}: {error}")
    return found, absent


def _opencv() -> Iterator[Encoder]:
    import cv2

    def image(suffix: str, options: list[int], pixels: UInt8) -> bytes:
        swap = cv2.COLOR_RGBA2BGRA if pixels.shape[2] == 4 else cv2.COLOR_RGB2BGR
        return bytes(cv2.imencode(suffix, cv2.cvtColor(pixels, swap), options)[1].tobytes())

    def mask(options: list[int], bits: Bool) -> bytes:
        return bytes(cv2.imencode(".png", bits.view(np.uint8), [cv2.IMWRITE_PNG_BILEVEL, 1, *options])[1].tobytes())

    full_colour = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    jpeg = partial(image, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, _QUALITY, *full_colour])
    level = [cv2.IMWRITE_PNG_COMPRESSION, _LEVEL]
    package = "opencv-contrib-python-headless"
    yield Encoder("opencv", package, {"jpeg": jpeg, "png": partial(image, ".png", level), "mask": partial(mask, [])})
    # OpenCV's own default: level 1, runs only, each pixel less the one before.
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


def _turbojpeg() -> Iterator[Encoder]:
    turbojpeg = importlib.import_module("turbojpeg")

    coder = turbojpeg.TurboJPEG()

    def jpeg(pixels: UInt8) -> bytes:
        return bytes(coder.encode(pixels, _QUALITY, turbojpeg.TJPF_RGB, turbojpeg.TJSAMP_444))

    yield Encoder("pyturbojpeg", "PyTurboJPEG", {"jpeg": jpeg})


def _imagecodecs() -> Iterator[Encoder]:
    imagecodecs = importlib.import_module("imagecodecs")

    def mask(bits: Bool) -> bytes:  # it knows eight bits a pixel only
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


def _ours() -> Iterator[Encoder]:
    def image(suffix: str, pixels: UInt8) -> bytes:
        return encode(pixels, suffix, _QUALITY)

    kinds: dict[str, Encode] = {"jpeg": partial(image, ".jpg"), "png": partial(image, ".png"), "mask": encode_mask}
    yield Encoder("fgfast", "", kinds)


_MAKERS: dict[str, Callable[[], Iterator[Encoder]]] = {
    "fgfast": _ours,
    "opencv": _opencv,
    "pillow": _pillow,
    "simplejpeg": _simplejpeg,
    "pyturbojpeg": _turbojpeg,
    "imagecodecs": _imagecodecs,
    "fpng": _fpng,
}


def table(result: dict[str, Any]) -> str:
    """The result for a person."""
    lines = [
        f"{result['rounds']} rounds in turns, medians; {result['image']}",
        f"{result['machine']['processor']}, commit {result['commit']}; fgfast deflates with {result['deflate']}",
    ]
    heading = ""
    for row in result["rows"]:
        if heading != f"{row['kind']}, {row['size']}":
            heading = f"{row['kind']}, {row['size']}"
            columns = f"{'ms':>9} {'cpu ms':>9} {'two threads':>12} {'bytes':>10} {'error':>7}"
            lines += ["", f"  {heading:24} {columns}"]
        lines.append(
            f"    {row['encoder']:22} {row['ms']:9.3f} {row['cpu_ms']:9.3f} {row['two_threads']:11.2f}x "
            f"{row['bytes']:10,} {row['error']:7.3f}"
        )
    lines += ["", *(f"  not measured: {reason}" for reason in result["absent"])]
    return "\n".join(lines)


def main() -> None:
    """`python -m fgfast.bench.encoders`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="turns; medians are quoted")
    parser.add_argument("--small", action="store_true", help="only 500x375 pixels")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    options = parser.parse_args()
    result = measure(rounds=options.rounds, large=not options.small)
    print(json.dumps(result, indent=2) if options.json else table(result))


if __name__ == "__main__":
    main()
