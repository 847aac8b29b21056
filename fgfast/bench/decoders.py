"""Decoders of JPEGs, side by side, in images per second; and how near DALI's resizing comes to Pillow's.

Pixels are compared before anything is timed. All take turns on the same files, which are in memory.

    python -m fgfast.bench.decoders [--rounds 5] [--folder IMAGES] [--device cuda:0] [--json]
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fgfast import ops
from fgfast.bench.io import make_images, noise_image
from fgfast.bench.result import Row, envelope, rows_of
from fgfast.bench.timing import in_turns, threads
from fgfast.io.decode import decode, read_bytes
from fgfast.io.decoders import Decoder, available, decoder
from fgfast.io.write import encode
from fgfast.machine import available_cores
from fgfast.records import Image, UInt8

# Height and width of the second size: a camera's.
_LARGE = (2000, 3000)
_QUALITY = 95
# Images per turn: about a tenth of a second of each kind for one thread.
_IMAGES, _LARGE_IMAGES = 96, 8
# Decoders that are libjpeg-turbo with exact transforms must agree to the bit; nothing else is required here.
_EXACT = ("pillow", "opencv", "cpu", "dali_cpu")
# Images of a folder that are resized; and rows and columns along the edge in which DALI's filter reaches over it.
_RESIZED = 8
_BORDER = 2

Decode = Callable[[Sequence[bytes]], Sequence[UInt8]]


def measure(rounds: int, folder: Path | None = None, device: str = "cpu") -> dict[str, Any]:
    """Time all decoders that are installed.

    Args:
        rounds: how often each has its turn; medians are quoted.
        folder: of JPEGs to decode; None makes some up, of two sizes.
        device: "cuda:N" adds the GPU's decoders.

    Returns:
        The envelope of rows: images per second, and the largest difference from the CPU decoder's pixels.
    """
    sets = {str(folder): images_of(folder)} if folder else made_up()
    rows: list[Row] = []
    with ExitStack() as stack, threads(1):
        ways = contenders(stack, device)
        for group, files in sets.items():
            rows += _compared(group, files, ways)
            seconds = in_turns({name: partial(way, files) for name, way in ways.items()}, rounds)
            for name, spent in seconds.items():
                rows.append(Row.of(name, [len(files) / s for s in spent], "images/s", "higher", group))
    if "dali_cpu" in available("cpu"):
        for group, files in sets.items():
            images = [decode(data, group, turn_exif=False).pixels for data in files[: _RESIZED if folder else 1]]
            # Made-up images are smooth, which would flatter DALI; white noise is the worst case.
            rows += _resizing(group, images if folder else [_white_noise(*images[0].shape)])
    notes = [
        f"{len(files)} files of {statistics.fmean(map(len, files)) / 1000:.0f} kB: {group}"
        for group, files in sets.items()
    ]
    return envelope("decoders", rows, title="Decoding JPEGs", rounds=rounds, notes=notes, device=device)


def images_of(folder: Path) -> list[bytes]:
    """The first JPEGs of a folder."""
    return [read_bytes(path) for path in sorted(folder.rglob("*.jpg"))[:_IMAGES]]


def made_up() -> dict[str, list[bytes]]:
    """JPEGs as CUB's are, and some of a camera's size."""
    with tempfile.TemporaryDirectory(prefix="fgfast-bench-") as scratch:
        make_images(Path(scratch) / "class", _IMAGES)
        small = images_of(Path(scratch))
    generator = np.random.default_rng(0)
    large = [encode(noise_image(generator, *_LARGE), ".jpg", _QUALITY) for _ in range(2)]
    return {"500x375": small, f"{_LARGE[1]}x{_LARGE[0]}": large * (_LARGE_IMAGES // 2)}


def contenders(stack: ExitStack, device: str) -> dict[str, Decode]:
    """By name: Pillow and OpenCV on one thread, our decoders on one and on all cores."""
    cores = available_cores()
    found: dict[str, Decode] = {"pillow, 1 thread": _pillow, "opencv, 1 thread": _opencv}
    for name in reversed(available(device)):
        for count in sorted({1, cores}):
            ours = stack.enter_context(closing(decoder(name, device, count)))
            found[f"{name}, {count} thread{'s' if count > 1 else ''}"] = partial(_batches, ours)
    return found


def _pillow(files: Sequence[bytes]) -> list[UInt8]:
    import PIL.Image

    return [np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB")) for data in files]


def _opencv(files: Sequence[bytes]) -> list[UInt8]:
    import cv2

    found = []
    for data in files:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        found.append(np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8))
    return found


def _batches(ours: Decoder, files: Sequence[bytes]) -> list[UInt8]:
    found: list[UInt8] = []
    for at in range(0, len(files), ours.batch):
        batch = files[at : at + ours.batch]
        for result in ours(batch, [f"{ours.name}'s image"] * len(batch), False):
            if not isinstance(result, Image):
                raise result
            found.append(result.pixels)
    return found


def _compared(group: str, files: Sequence[bytes], ways: dict[str, Decode]) -> list[Row]:
    wanted = _batches(decoder("cpu"), files)
    rows = []
    for name, way in ways.items():
        worst = max(_difference(*pair) for pair in zip(way(files), wanted, strict=True))
        if worst and name.partition(",")[0] in _EXACT:
            raise AssertionError(f"{name} differs from the CPU decoder by {worst} grey levels on {group}")
        rows.append(Row(f"{name}: largest difference", worst, "grey levels", "lower", group))
    return rows


def _difference(ours: UInt8, theirs: UInt8) -> int:
    return int(np.abs(ours.astype(np.int16) - theirs).max(initial=0))


def _resizing(group: str, images: Sequence[UInt8]) -> list[Row]:
    """How far DALI's triangular filter is from Pillow's, in all of what the models get and off its border."""
    from fgfast.models.detic.transform import resized_size as for_detic
    from fgfast.models.sam.transform import resized_size as for_sam

    within = (slice(_BORDER, -_BORDER),) * 2
    worst: dict[str, int] = {}
    for pixels in images:
        height, width = pixels.shape[:2]
        sizes = {"1024": for_sam(height, width, 1024), "800/1333": for_detic(height, width, 800, 1333)}
        for name, size in sizes.items():
            theirs, ours = dali_resized(pixels, size), ops.resize(pixels, size)
            for place, found in (
                ("largest difference", _difference(theirs, ours)),
                ("largest difference off the border", _difference(theirs[within], ours[within])),
            ):
                key = f"dali resize to {name}: {place}"
                worst[key] = max(worst.get(key, 0), found)
    return [Row(name, found, "grey levels", "lower", group) for name, found in worst.items()]


def _white_noise(*shape: int) -> UInt8:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def dali_resized(pixels: UInt8, size: tuple[int, int]) -> UInt8:
    """(H, W, 3) uint8 -> (*size, 3) uint8 by DALI on the CPU, bilinear, averaging when it shrinks."""
    from nvidia.dali import Pipeline, fn, types

    pipeline = Pipeline(batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1)
    with pipeline:
        image = fn.external_source(name="image", layout="HWC", ndim=3, dtype=types.UINT8)
        interpolation = {"interp_type": types.INTERP_LINEAR, "antialias": True, "dtype": types.UINT8}
        pipeline.set_outputs(fn.resize(image, size=[float(n) for n in size], **interpolation))
    pipeline.build()
    pipeline.feed_input("image", [pixels])
    return np.array(pipeline.run()[0].at(0))


def table(result: dict[str, Any]) -> str:
    """The result for a person."""
    lines = [
        f"{result['title']}: {result['rounds']} rounds in turns, medians",
        f"{result['machine']['processor']}, {available_cores()} cores, commit {result['commit']}",
        *(f"  {note}" for note in result["notes"]),
    ]
    heading = ""
    for row in rows_of(result):
        if row.group != heading:
            heading = row.group
            lines += ["", f"  {heading}"]
        lines.append(f"    {row.name:56} {row.value:8.1f} {row.unit}")
    return "\n".join(lines)


def main() -> None:
    """`python -m fgfast.bench.decoders`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="turns; medians are quoted")
    parser.add_argument("--folder", type=Path, help="JPEGs to decode instead of made-up ones")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    options = parser.parse_args()
    result = measure(options.rounds, options.folder, options.device)
    print(json.dumps(result, indent=2) if options.json else table(result))


if __name__ == "__main__":
    main()
