"""Measures which library writes JPEG, PNG and masks fastest, and how much two threads gain.

The file of each encoder is decoded and compared before any encoder is timed. The encoders take turns, so that other
load on the machine affects all of them alike. Libraries that fgfast does not need are measured where they are
installed; a folder of their own is enough:

    pip install --target /tmp/enc --no-deps imagecodecs fpng PyTurboJPEG
    PYTHONPATH=/tmp/enc python bench/encoders.py --json > bench/results/encoders.json
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
from itertools import groupby
from typing import Any

import numpy as np

from fgfast.bench.images import noise_image
from fgfast.bench.stamp import stamp
from fgfast.bench.text import columns, many
from fgfast.io.png import deflater, encode_bilevel
from fgfast.io.write import encode
from fgfast.records import Bool, UInt8

Encode = Callable[[Any], bytes]

_QUALITY = 95
# The PNG level of encoders that have levels. fgfast asked OpenCV for it before fgfast had an encoder of its own.
_LEVEL = 3
# Height, width, encodings per turn: the commonest size of CUB and that of a camera, about 0.1 s of PNG each.
_SIZES = {"500x375": (375, 500, 12), "3000x2000": (2000, 3000, 1)}
# Half axes of the subject as fractions of the image: an ellipse over 37 % of the image, as large as CUB's boxes.
_AXES = (0.344, 0.344)
# A JPEG may be so many times as far from the image as OpenCV's; libjpeg-turbo's fast transform is 4 % farther.
_WORSE = 1.1


@dataclass(frozen=True)
class Encoder:
    """One way of encoding.

    Attributes:
        name: the name in the table.
        package: the distribution whose version is quoted; empty for fgfast's own encoder.
        kinds: "jpeg", "png" (RGB and RGBA) and "mask" -> function.
    """

    name: str
    package: str
    kinds: dict[str, Encode]


def measure(*, rounds: int, large: bool = True) -> dict[str, Any]:
    """Time all installed encoders, on one thread and on two.

    Args:
        rounds: how often each encoder has its turn; medians are quoted.
        large: whether images of six megapixels are measured too.

    Returns:
        Plain values: machine, versions, and rows of kind, size, encoder, wall-clock and CPU milliseconds per image on
        one thread, the throughput of two threads over that of one, bytes, and the mean difference from the encoded
        pixels in grey levels.
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
        "image": f"coloured noise in an ellipse, black background; JPEG {_QUALITY} 4:4:4, PNG level {_LEVEL}",
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
    """Let each of `threads` threads encode `count` times; return the wall-clock and the CPU seconds."""

    def work() -> None:
        for _ in range(count):
            encode_once()

    encoding = [threading.Thread(target=work) for _ in range(threads)]
    start, busy = time.perf_counter(), time.process_time()
    for thread in encoding:
        thread.start()
    for thread in encoding:
        thread.join()
    return time.perf_counter() - start, time.process_time() - busy


def cut_out(height: int, width: int) -> tuple[UInt8, Bool]:
    """Make an image with a black background, (height, width, 3) uint8, and its mask, (height, width) bool."""
    pixels = noise_image(np.random.default_rng(0), height, width)
    y, x = np.mgrid[:height, :width]
    down, across = (y / height - 0.5) / _AXES[0], (x / width - 0.5) / _AXES[1]
    bits: Bool = down**2 + across**2 < 1
    pixels[~bits] = 0
    return pixels, bits


def decoded(data: bytes) -> Any:
    """Decode a file to pixels of int16; masks of any depth become 0 and 1."""
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


def _turbojpeg() -> Iterator[Encoder]:
    turbojpeg = importlib.import_module("turbojpeg")

    coder = turbojpeg.TurboJPEG()

    def jpeg(pixels: UInt8) -> bytes:
        return bytes(coder.encode(pixels, _QUALITY, turbojpeg.TJPF_RGB, turbojpeg.TJSAMP_444))

    yield Encoder("pyturbojpeg", "PyTurboJPEG", {"jpeg": jpeg})


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


def _ours() -> Iterator[Encoder]:
    def image(suffix: str, pixels: UInt8) -> bytes:
        return encode(pixels, suffix, _QUALITY)

    kinds: dict[str, Encode] = {"jpeg": partial(image, ".jpg"), "png": partial(image, ".png"), "mask": encode_bilevel}
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
    """Write the result as text for a terminal."""
    lines = [
        f"{many(result['rounds'], 'round')} in turns, medians; {result['image']}",
        f"{result['machine']['processor']}, commit {result['commit']}; fgfast deflates with {result['deflate']}",
    ]
    for (kind, size), rows in groupby(result["rows"], key=lambda row: (row["kind"], row["size"])):
        cells = [
            (
                r["encoder"],
                f"{r['ms']:.3f}",
                f"{r['cpu_ms']:.3f}",
                f"{r['two_threads']:.2f}x",
                f"{r['bytes']:,}",
                f"{r['error']:.3f}",
            )
            for r in rows
        ]
        lines += ["", columns((f"{kind}, {size}", "ms", "cpu ms", "two threads", "bytes", "error"), cells)]
    return "\n".join([*lines, "", *(f"not measured: {reason}" for reason in result["absent"])])


def main() -> None:
    """Read the command line, measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--rounds", type=int, default=5, help="How often each encoder has its turn; medians are quoted (default: 5)."
    )
    parser.add_argument("--small", action="store_true", help="Measure images of 500x375 pixels only.")
    parser.add_argument("--json", action="store_true", help="Print the result as JSON.")
    options = parser.parse_args()
    result = measure(rounds=options.rounds, large=not options.small)
    print(json.dumps(result, indent=2) if options.json else table(result))


if __name__ == "__main__":
    main()
