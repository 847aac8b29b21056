"""What `fgfast bench ops` times: the inputs of each op, and everything that can compute it.

The inputs are random and resemble those of the stages. A contender that is known to compute something else is there
only for its time; its distance from the others is measured, too.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from fgfast.bench.images import largest_difference, noise_image
from fgfast.models.detic.config import HEAD_CHANNELS, SWIN_B, WINDOW
from fgfast.ops import evidence as numbers
from fgfast.ops import reference
from fgfast.ops.geometry import mask_box
from fgfast.records import Bool, Float32, UInt8

NATIVE, NUMPY, TORCH = "native", "NumPy reference", "PyTorch"
PLAIN = "OpenCV and the ops"  # of what is more than one op
SIZES = ((375, 500), (768, 1024))
"""(height, width) in pixels: the commonest size of CUB, and twice as large."""
_SIDE = 1024  # the side of SAM's square, in pixels
_SHORT = (800, 1067)  # the size that Detic resizes an image of 3:4 to
_BOXES = 3000  # the candidates of three full levels of Detic's pyramid
# The largest difference of attention, which sums float32 in another order, as in tests/engine/test_attention.py.
_CLOSE = 2e-5
# The mean difference in bfloat16, as a share of the mean: PyTorch rounds relative positions. Measured: 0.009.
_NEAR = 0.03


@dataclass(frozen=True)
class Case:
    """An op on one input.

    Attributes:
        op: the name of the op.
        what: the input in words.
        threads: the threads that each contender may use; 1 for ops without threads.
        contenders: name -> function that computes it; the others are compared with the first one.
        distance: the distance of two results.
        unit: the unit of the distance; "" where the results must be equal to the bit.
        allowed: the largest distance of contenders that compute the same.
        others: the contenders that compute something else; their distance is only measured.
    """

    op: str
    what: str
    threads: int
    contenders: Mapping[str, Callable[[], Any]]
    distance: Callable[[Any, Any], float]
    unit: str = ""
    allowed: float = 0.0
    others: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The case in words."""
        return f"{self.op}, {self.what}, {self.threads} thread{'s' if self.threads > 1 else ''}"


def cases(op: str, threads: int, sizes: tuple[tuple[int, int], ...] = SIZES) -> Iterator[Case]:
    """Yield the cases of an op. Ops without threads have cases for one thread only.

    Args:
        op: one of OPS.
        threads: the threads of each contender.
        sizes: (height, width) of the images, in pixels.
    """
    native = importlib.import_module("fgfast.ops.native") if find_spec("fgfast._native") else None
    torch = importlib.import_module("fgfast.bench.torch_ops") if find_spec("torch") else None
    yield from OPS[op](native, torch, threads, sizes)


def _installed(calls: Mapping[str, Any]) -> dict[str, Callable[[], Any]]:
    """Return the contenders that are installed."""
    return {name: call for name, call in calls.items() if call}


def mask_post(native: Any, torch: Any, threads: int, sizes: Any) -> Iterator[Case]:
    """Turn the logits of SAM into masks, boxes, areas, stability."""
    for size, count in ((s, c) for s in sizes for c in (1, 3)):
        logits, resized = _logits(count), _resized(size)
        calls = {
            NUMPY: partial(reference.mask_post, logits, size, resized, _SIDE),
            NATIVE: native and partial(native.mask_post, logits, size, resized, _SIDE, threads),
            TORCH: torch and partial(torch.mask_post, logits, size, _SIDE),
        }
        what = f"{count} mask{'s' if count > 1 else ''} of {_named(size)}"
        yield Case("mask_post", what, threads, _installed(calls), _bits_apart)


def composite(native: Any, torch: Any, threads: int, sizes: Any) -> Iterator[Case]:
    """Put the subject on a colour."""
    import cv2
    from PIL import Image

    colour = np.array([124, 116, 104], np.uint8)

    def by_opencv(pixels: UInt8, bits: Bool) -> UInt8:
        return cv2.copyTo(pixels, bits.view(np.uint8), np.full(pixels.shape, colour, np.uint8))

    def by_pillow(pixels: UInt8, bits: Bool) -> UInt8:
        out = Image.new("RGB", pixels.shape[1::-1], tuple(colour.tolist()))
        out.paste(Image.fromarray(pixels), mask=Image.fromarray(bits.view(np.uint8) * np.uint8(255)))
        return np.asarray(out)

    for size in sizes if threads == 1 else ():
        pixels, bits = _image(size), _mask(size)
        calls = {
            NUMPY: partial(reference.composite, pixels, bits, colour),
            NATIVE: native and partial(native.composite, pixels, bits, colour),
            TORCH: torch and partial(torch.composite, pixels, bits, colour),
            "OpenCV": partial(by_opencv, pixels, bits),
            "Pillow": partial(by_pillow, pixels, bits),
        }
        yield Case("composite", _named(size), 1, _installed(calls), _bits_apart)


def rle_encode(native: Any, torch: Any, threads: int, sizes: Any) -> Iterator[Case]:
    """Encode a mask as the run-length string of COCO."""
    coco: Any = importlib.import_module("pycocotools.mask") if find_spec("pycocotools") else None

    def by_coco(bits: Bool) -> Any:
        return coco.encode(np.asfortranarray(bits.view(np.uint8)))["counts"]

    for size in sizes if threads == 1 else ():
        bits = _mask(size)
        calls = {
            NUMPY: partial(reference.rle_encode, bits),
            NATIVE: native and partial(native.rle_encode, bits),
            "pycocotools": coco and partial(by_coco, bits),
        }
        yield Case("rle_encode", _named(size), 1, _installed(calls), lambda a, b: float(a != b))


def resize(native: Any, torch: Any, threads: int, sizes: Any) -> Iterator[Case]:
    """Resize an image to the models' sizes by Pillow's filter. OpenCV and PyTorch have filters of their own."""
    import cv2

    for size, target in ((s, t) for s in sizes for t in (_resized(s), _SHORT) if t != s):
        pixels, across = _image(size), target[::-1]
        calls = {
            NUMPY: partial(reference.resize, pixels, target),
            NATIVE: native and partial(native.resize, pixels, target, None, threads),
            "Pillow": partial(_by_pillow, pixels, across),
            "OpenCV": partial(cv2.resize, pixels, across, interpolation=cv2.INTER_LINEAR),
            TORCH: torch and partial(torch.resize, pixels, target),
        }
        what = f"{_named(size)} to {_named(target)}"
        yield Case(
            "resize", what, threads, _installed(calls), largest_difference, "grey levels", others=("OpenCV", TORCH)
        )


def nms(native: Any, torch: Any, threads: int, sizes: Any) -> Iterator[Case]:
    """Suppress proposals as Detic does."""
    if threads > 1:
        return
    arguments = *_boxes(), SWIN_B.proposal_overlap, SWIN_B.proposals
    calls = {
        NUMPY: partial(reference.nms, *arguments),
        NATIVE: native and partial(native.nms, *arguments),
        TORCH: torch and partial(torch.nms, *arguments),
        "torchvision": torch and (suppress := torch.torchvision_nms()) and partial(suppress, *arguments),
    }
    yield Case("nms", f"{_BOXES} boxes, the best {SWIN_B.proposals}", 1, _installed(calls), _bits_apart)


def attention(native: Any, torch: Any, threads: int, sizes: Any) -> Iterator[Case]:
    """Compute a layer of SAM ViT-B in float32: within windows, and over the whole image.

    The NumPy reference is left out of the latter, because it would need gigabytes. Without AVX-512 there is no native
    op.
    """
    native = native and native.attends(64) and native
    for what, window in (("windows of ViT-B", 14), ("whole image of ViT-B", 64)):
        arguments = _attention(window)
        calls = {
            NUMPY: window < 64 and partial(reference.attention, **arguments),
            NATIVE: native and partial(native.attention, **arguments, threads=threads),
            TORCH: torch and partial(torch.attention, **arguments),
        }
        found = _installed(calls)
        if len(found) > 1:
            yield Case("attention", what, threads, found, largest_difference, "", _CLOSE)


def attention_bf16(native: Any, torch: Any, threads: int, sizes: Any) -> Iterator[Case]:
    """Compute the same in bfloat16, and Swin's windows; without AMX or AVX-512 BF16 there is no native op.

    PyTorch folds the relative positions into longer heads, and rounds them.
    """
    native = native and native.attends(64, bf16=True) and native
    for what, window in (("windows of ViT-B", 14), ("whole image of ViT-B", 64)):
        arguments = _attention(window)
        arguments |= {name: reference.float_to_bf16(arguments[name]) for name in ("q", "k", "v")}
        arguments["padding"] = tuple(map(reference.float_to_bf16, arguments["padding"]))
        calls = {
            NATIVE: native and partial(native.attention, **arguments, threads=threads),
            TORCH: torch and partial(torch.attention, **arguments),
        }
        yield from _in_bf16(what, threads, calls)
    rng, count = np.random.default_rng(5), 1247
    qkv = reference.float_to_bf16(rng.standard_normal((count, WINDOW**2, 3, 4, HEAD_CHANNELS), np.float32))
    bias = rng.standard_normal((4, WINDOW**2, WINDOW**2), np.float32)
    windows = {
        NATIVE: native and partial(native.window_attention, qkv, bias, None, threads),
        TORCH: torch and partial(torch.window_attention, qkv, bias),
    }
    yield from _in_bf16(f"{count} windows of Swin-B", threads, windows)


def _in_bf16(what: str, threads: int, calls: dict[str, Any]) -> Iterator[Case]:
    found = _installed(calls)
    if len(found) > 1:
        yield Case("attention_bf16", what, threads, found, _mean_difference, "of the mean", _NEAR)


def evidence(native: Any, torch: Any, threads: int, sizes: Any) -> Iterator[Case]:
    """Compute the numbers of a mask that review needs; and the two ops in them, shrinking and contrast of colours."""
    import cv2

    for size in sizes if threads == 1 else ():
        pixels, bits = _image(size), _mask(size)
        box = mask_box(bits)
        assert box is not None
        calls = {PLAIN: partial(numbers.evidence, pixels, bits, box)}
        yield Case("evidence", _named(size), 1, calls, _unequal)
        small = size[0] * numbers.SIDE // max(size), size[1] * numbers.SIDE // max(size)
        if max(size) > numbers.SIDE:
            shrinking: dict[str, Any] = {
                NUMPY: partial(reference.area_average, pixels, small),
                NATIVE: native and partial(native.area_average, pixels, small),
                "OpenCV": partial(cv2.resize, pixels, small[::-1], interpolation=cv2.INTER_AREA),
            }
            what = f"{_named(size)} to {_named(small)}"
            found = _installed(shrinking)
            yield Case("evidence", what, 1, found, largest_difference, "grey levels", others=("OpenCV",))
    if threads == 1:
        size = numbers.SIDE * 3 // 4, numbers.SIDE
        lab, bits = _image(size), _mask(size)
        telling: dict[str, Any] = {
            NUMPY: partial(reference.colour_contrast, lab, bits),
            NATIVE: native and partial(native.colour_contrast, lab, bits),
        }
        yield Case("evidence", f"colours of {_named(size)}", 1, _installed(telling), _bits_apart)


OPS: Mapping[str, Callable[..., Iterator[Case]]] = {
    "mask_post": mask_post,
    "composite": composite,
    "rle_encode": rle_encode,
    "resize": resize,
    "nms": nms,
    "attention": attention,
    "attention_bf16": attention_bf16,
    "evidence": evidence,
}


def _by_pillow(pixels: UInt8, across: tuple[int, int]) -> UInt8:
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize(across, Image.Resampling.BILINEAR))


def _named(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"


def _resized(size: tuple[int, int]) -> tuple[int, int]:
    """Return the size (h, w) whose longer edge is the side of SAM's square."""
    scale = _SIDE / max(size)
    return int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)


def _image(size: tuple[int, int]) -> UInt8:
    return noise_image(np.random.default_rng(1), *size)


def _logits(count: int) -> Float32:
    """Make logits (1, count, 256, 256) float32: blobs with a rough edge, like those of SAM's decoder."""
    y, x = np.mgrid[:256, :256].astype(np.float32) / 256 - 0.5
    rough = 0.3 * np.random.default_rng(2).standard_normal((count, 256, 256), np.float32)
    shapes = [6 - (30 + 8 * n) * (x * x + y * y) + np.sin((20 + n) * x) * np.cos(14 * y) for n in range(count)]
    return (np.stack(shapes) + rough)[None].astype(np.float32)


def _mask(size: tuple[int, int]) -> Bool:
    bits: Bool = reference.mask_post(_logits(1), size, _resized(size), _SIDE).bits[0, 0]
    return bits


def _boxes() -> tuple[Float32, Float32]:
    """Make clustered boxes, like those of a proposal head: (N, 4) float32 in pixels, and (N,) float32 scores."""
    rng = np.random.default_rng(3)
    centres = rng.uniform(0, 1000, (60, 2))[rng.integers(0, 60, _BOXES)] + rng.normal(0, 6, (_BOXES, 2))
    sides = np.exp(rng.normal(4.5, 0.15, (_BOXES, 2)))
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], 1).astype(np.float32)
    return boxes, rng.random(_BOXES, np.float32)


def _attention(window: int) -> dict[str, Any]:
    """Make random arguments of `attention` for 64x64 tokens and 12 heads of 64 channels."""
    rng, grid, heads, size = np.random.default_rng(4), 64, 12, 64
    padded = -(-grid // window) * window
    places = np.full((padded, padded), grid * grid, np.int64)
    places[:grid, :grid] = np.arange(grid * grid).reshape(grid, grid)
    across = padded // window
    token_at = places.reshape(across, window, across, window).transpose(0, 2, 1, 3).reshape(-1, window * window)
    q, k, v = rng.standard_normal((3, 1, grid * grid, heads, size), np.float32)
    rel_pos = tuple(0.3 * rng.standard_normal((2, 2 * window - 1, size), np.float32))
    padding = tuple(rng.standard_normal((2, heads, size), np.float32))
    at = np.ascontiguousarray(token_at)
    return {"q": 0.3 * q, "k": k, "v": v, "rel_pos": rel_pos, "token_at": at, "padding": padding}


def _mean_difference(a: Any, b: Any) -> float:
    """Return the mean difference of two arrays of bfloat16 as a share of the first one's mean."""
    first, second = reference.bf16_to_float(a), reference.bf16_to_float(b)
    return float(np.abs(first - second).mean() / np.abs(first).mean())


def _unequal(a: Any, b: Any) -> float:
    """Return 0 if two results are equal, otherwise 1."""
    return float(a != b)


def _bits_apart(a: Any, b: Any) -> float:
    """Return 0 if two arrays, or all arrays of two tuples, are equal to the bit (NaN equals itself), otherwise 1."""
    pairs = zip(a, b, strict=True) if isinstance(a, tuple) else [(a, b)]
    return float(not all(x.dtype == y.dtype and np.array_equal(x, y, equal_nan=x.dtype.kind == "f") for x, y in pairs))
