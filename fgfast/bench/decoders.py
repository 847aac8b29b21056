"""Measures the JPEG decoders: images per second, differences between their pixels, and whether the masks agree.

Pixels are compared before anything is timed. All decoders take turns on the same files, which are in memory. A
decoder is judged by the masks that its pixels give, because masks are what the pixels are for.
"""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import numpy as np

from fgfast.bench.images import largest_difference, noise_image
from fgfast.bench.io import make_images
from fgfast.bench.masks import MaskParity, compared_masks, decode_all, prompted, segmenter_of
from fgfast.bench.result import Result, Row, envelope
from fgfast.bench.timing import in_turns, threads
from fgfast.errors import FgfastError, UsageError
from fgfast.image_formats import open_image
from fgfast.io.decode import read_bytes
from fgfast.io.decoders import Decoder, available, decoder
from fgfast.io.encode import encode
from fgfast.machine import available_cores
from fgfast.methods import seed_of
from fgfast.models.files import measured
from fgfast.pipeline.decoder_choice import verdict_key
from fgfast.records import UInt8
from fgfast.tolerances import DECODER_MASK_IOU
from fgfast.writing import scratch_folder

# Height and width of the larger random images, as large as those of a camera.
_LARGE = (2000, 3000)
_QUALITY = 95
# Images per turn: one thread decodes those of either size in about a tenth of a second.
_IMAGES, _LARGE_IMAGES = 96, 8
# Decoders that use libjpeg-turbo with exact transforms must agree to the bit; the others need not.
_EXACT = ("pillow", "opencv", "cpu", "dali_cpu")

Decode = Callable[[Sequence[bytes]], Sequence[UInt8]]


def measure(
    *,
    rounds: int,
    folder: Path | None = None,
    device: str = "cpu",
    segmenter: str = "auto",
    model_weights: str = "cached",
) -> Result:
    """Compare the pixels of all installed decoders, time the decoders, and compare the masks that their pixels give.

    Args:
        rounds: how often each decoder is timed; medians are quoted.
        folder: the folder of JPEGs; None uses random images of two sizes, and the sample photographs for masks.
        device: "cuda:N" adds the decoders of the GPU.
        segmenter: the segmenter that makes the masks, as `fgfast convert` names it.
        model_weights: the weights of the segmenter: "cached", "random:SEED" or a file.

    Returns:
        Rows of images per second, of the largest difference from the pixels of the CPU decoder, and of the IoU of the
        masks; "verdicts": decoder -> whether its masks are right.

    Raises:
        AssertionError: a decoder that must be exact is not.
        UsageError: the folder holds no JPEG, or the segmenter cannot be used.
    """
    sets = {str(folder): images_of(folder)} if folder else random_images()
    segmenter, segment = segmenter_of(segmenter, model_weights, device)
    rows: list[Row] = []
    with ExitStack() as stack:
        ours, notes = usable(stack, device)
        with threads(1):
            ways = contenders(ours)
            for group, files in sets.items():
                rows += _compared(group, files, ways)
                seconds = in_turns({name: partial(way, files) for name, way in ways.items()}, rounds)
                for name, spent in seconds.items():
                    rows.append(Row.of(name, [len(files) / s for s in spent], "images/s", "higher", group))
        parities = compared_masks(ours, prompted(folder), segment)
    for parity in parities:
        rows.append(Row(f"{parity.decoder}: worst mask IoU", parity.worst_iou, "", "higher", f"masks by {segmenter}"))
        rows.append(Row(f"{parity.decoder}: mean mask IoU", parity.mean_iou, "", "higher", f"masks by {segmenter}"))
        if seed_of(model_weights) is None:  # masks from random weights are not those of a real run
            measured.remember(verdict_key(parity.decoder, device, segmenter), parity.right)
    notes += [
        f"{len(files)} files of {statistics.fmean(map(len, files)) / 1000:.0f} kB: {group}"
        for group, files in sets.items()
    ]
    return envelope(
        "decoders",
        rows,
        title="Decoding JPEGs",
        rounds=rounds,
        notes=notes,
        device=device,
        segmenter=segmenter,
        model_weights=model_weights,
        verdicts={parity.decoder: parity.right for parity in parities},
        verdict=[_verdict(parity, segmenter, device) for parity in parities],
    )


def _verdict(parity: MaskParity, segmenter: str, device: str) -> str:
    word = "right" if parity.right else "wrong"
    return (
        f"{parity.decoder} is {word} on {device}: on {parity.images} images the masks of {segmenter} have IoU "
        f"{parity.worst_iou:.4f} at worst with those under the CPU decoder; {DECODER_MASK_IOU} is needed."
    )


def images_of(folder: Path) -> list[bytes]:
    """Read the first JPEGs of a folder.

    Raises:
        UsageError: the folder holds no JPEG.
    """
    found = [read_bytes(path) for path in sorted(folder.rglob("*.jpg"))[:_IMAGES]]
    if not found:
        raise UsageError(f"{folder} holds no file *.jpg to decode")
    return found


def random_images() -> dict[str, list[bytes]]:
    """Make JPEGs of coloured noise in two sizes: the commonest of CUB and that of a camera."""
    with scratch_folder("fgfast-bench-") as scratch:
        make_images(scratch / "class", _IMAGES)
        small = images_of(scratch)
    generator = np.random.default_rng(0)
    large = [encode(noise_image(generator, *_LARGE), ".jpg", _QUALITY) for _ in range(2)]
    return {"500x375": small, f"{_LARGE[1]}x{_LARGE[0]}": large * (_LARGE_IMAGES // 2)}


def usable(stack: ExitStack, device: str) -> tuple[dict[str, list[Decoder]], list[str]]:
    """Create the installed decoders of a device, each with one thread and with one thread per core.

    Args:
        stack: closes the decoders.
        device: "cpu" or "cuda:N".

    Returns:
        Name -> decoders, and a sentence for each decoder that cannot be used.
    """
    found, notes = {}, []
    for name in reversed(available(device)):
        try:
            counts = sorted({1, available_cores()})
            found[name] = [stack.enter_context(closing(decoder(name, device, count))) for count in counts]
        except FgfastError as error:
            notes.append(f"{name} cannot be used: {error}")
    return found, notes


def contenders(ours: Mapping[str, Sequence[Decoder]]) -> dict[str, Decode]:
    """Return what is timed, by name: Pillow and OpenCV on one thread, fgfast on one thread and on all cores."""
    found: dict[str, Decode] = {"pillow, 1 thread": _pillow, "opencv, 1 thread": _opencv}
    for name, own in ours.items():
        for count, each in zip(sorted({1, available_cores()}), own, strict=True):
            found[f"{name}, {count} thread{'s' if count > 1 else ''}"] = partial(decode_all, each)
    return found


def _pillow(files: Sequence[bytes]) -> list[UInt8]:
    return [np.asarray(open_image(io.BytesIO(data), ("JPEG",)).convert("RGB")) for data in files]


def _opencv(files: Sequence[bytes]) -> list[UInt8]:
    import cv2

    found = []
    for data in files:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        found.append(np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8))
    return found


def _compared(group: str, files: Sequence[bytes], ways: Mapping[str, Decode]) -> list[Row]:
    wanted = decode_all(decoder("cpu"), files)
    rows = []
    for name, way in ways.items():
        worst = max(largest_difference(*pair) for pair in zip(way(files), wanted, strict=True))
        if worst and name.partition(",")[0] in _EXACT:
            raise AssertionError(f"{name} differs from the CPU decoder by {worst:g} grey levels on {group}")
        rows.append(Row(f"{name}: largest difference", worst, "grey levels", "lower", group))
    return rows
