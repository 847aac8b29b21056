"""The floor of each GPU: the least time that the models' arithmetic takes there, by data sheets and counted operations.

Nothing here was measured on a GPU. The peaks come from NVIDIA's own documents. What a GPU reaches of them is assumed:
for the H200 the rates that fgfast's design reckons with, for every other GPU the same fractions of its own peaks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from fgfast.bench.result import Result, Row, envelope
from fgfast.bench.roofline import detic_gmac
from fgfast.methods import SAM_DECODER_GMAC
from fgfast.models.sam.architecture import ARCHITECTURES, WINDOW, Architecture
from fgfast.records import Size

NOT_MEASURED = "not measured"
# Of the H200: what products and attention reach, in TFLOP/s, and memory, in TB/s. The design's assumptions.
_PRODUCTS, _ATTENTION, _MEMORY = 700.0, 320.0, 4.0
# TFLOP per image, as the design counts them: the products of SAM ViT-L's encoder; its attention with the relative
# positions folded into heads of 192, as the code computes it; Detic on its largest canvas.
_SAM_PRODUCTS, _SAM_FOLDED, _DETIC_LARGEST = 2.51, 0.94, 0.91
# Pixels of the canvas that holds every wide image, and of the one that a 4:3 image needs.
_LARGEST, _NEEDED = Size(800, 1344), Size(800, 1088)
# Milliseconds per image on an H200 as the design estimates them: with the positions folded into wider heads and every
# image on the largest canvas; and what it predicts of attention at heads of 64, and of canvases per aspect ratio with
# batches that are full.
_FOLDED, _ATTENTION_GAIN, _CANVAS_GAIN = 12.4, 2.0, 1.5
# Of SAM's encoder with every element-wise operation computed within a product: the times that the activations of a
# block pass through memory, in units of (tokens, width): qkv 1 in, 3 out; attention 3 and 1; projection 1 and 1; MLP
# 1 and 4, 4 and 1.
_PASSES = 20
_BYTES = 2  # of a bf16 number


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU by its data sheet.

    Attributes:
        name: its name.
        peak: TFLOP/s of dense bf16 products on tensor cores, added up in float32.
        bandwidth: TB/s of its memory.
        source: the document that states both.
    """

    name: str
    peak: float
    bandwidth: float
    source: str


GPUS = (
    Gpu("RTX 3090", 71, 0.936, "NVIDIA Ampere GA102 GPU Architecture, whitepaper, appendix A"),
    Gpu("RTX 4090", 165.2, 1.008, "NVIDIA Ada GPU Architecture, whitepaper, appendix A"),
    Gpu("A100 SXM 80 GB", 312, 2.039, "NVIDIA A100 Tensor Core GPU, data sheet"),
    Gpu("H100 SXM", 989.4, 3.35, "NVIDIA H100 Tensor Core GPU Architecture, whitepaper; data sheet"),
    Gpu("H200 SXM", 989.4, 4.8, "NVIDIA H200 Tensor Core GPU, data sheet"),
)
_REFERENCE = GPUS[-1]


@dataclass(frozen=True, slots=True)
class Floor:
    """The least time of SAM ViT-L and Detic on one GPU, in milliseconds per 4:3 image.

    Attributes:
        gpu: the GPU.
        products: of both models' products.
        attention: of SAM's attention with heads of 64, the relative positions added within.
        memory: of the bytes that pass through memory. Products and attention hide it: it is no part of the floor.
        folded: of the code with folded heads and one canvas, an estimate.
        today: of the code as it is, an estimate.
    """

    gpu: Gpu
    products: float
    attention: float
    memory: float
    folded: float
    today: float

    @property
    def ms(self) -> float:
        """Milliseconds per image: products and attention one after the other, or the bytes if those take longer."""
        return max(self.products + self.attention, self.memory)


def attention_tflop(sam: Architecture) -> float:
    """Return the TFLOP of the attention of a SAM's encoder per image: scores and weighted sums, without positions."""
    tokens, windows = sam.grid**2, math.ceil(sam.grid / WINDOW) ** 2
    everywhere, inside = len(sam.global_blocks), sam.depth - len(sam.global_blocks)
    pairs = everywhere * tokens**2 + inside * windows * WINDOW**4
    return 4e-12 * sam.width * pairs


def moved_gb(sam: Architecture) -> float:
    """Return the GB that pass through memory per image in a SAM's encoder, without the weights."""
    return 1e-9 * _PASSES * _BYTES * sam.depth * sam.grid**2 * sam.width


def detic_tflop(canvas: Size) -> float:
    """Return Detic's TFLOP on a canvas: the design's figure for the largest, scaled by the multiply-accumulates."""
    return _DETIC_LARGEST * detic_gmac(canvas.height * canvas.width) / detic_gmac(_LARGEST.height * _LARGEST.width)


def detic_share() -> float:
    """Return Detic's share of the arithmetic of both models for a 4:3 image on the canvas that it needs."""
    detic = detic_tflop(_NEEDED)
    return detic / (detic + _SAM_PRODUCTS + attention_tflop(ARCHITECTURES["vit_l"]))


def floor_of(gpu: Gpu) -> Floor:
    """Return the floor of a GPU."""
    sam = ARCHITECTURES["vit_l"]
    products = _SAM_PRODUCTS + 2e-3 * SAM_DECODER_GMAC
    compute, memory = gpu.peak / _REFERENCE.peak, gpu.bandwidth / _REFERENCE.bandwidth
    arithmetic = 1e3 * (products + detic_tflop(_NEEDED)) / _PRODUCTS, 1e3 * attention_tflop(sam) / _ATTENTION
    before = 1e3 * ((products + _DETIC_LARGEST) / _PRODUCTS + _SAM_FOLDED / _ATTENTION)
    # What products and attention do not explain on the H200 is memory's, and grows where memory is slower.
    rest = _FOLDED - before, _FOLDED - _ATTENTION_GAIN - _CANVAS_GAIN - sum(arithmetic)
    return Floor(
        gpu,
        products=arithmetic[0] / compute,
        attention=arithmetic[1] / compute,
        memory=moved_gb(sam) / (_MEMORY * memory),
        folded=before / compute + rest[0] / memory,
        today=sum(arithmetic) / compute + rest[1] / memory,
    )


def table() -> Iterator[str]:
    """Yield the lines of the table in Markdown."""
    yield (
        "| GPU | peak, bf16 TFLOP/s | products, ms | attention, ms | bytes, ms | floor, images/s | estimate, folded, "
        "images/s | today's estimate, images/s | measured |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for floor in map(floor_of, GPUS):
        times = f"{floor.products:.1f} | {floor.attention:.1f} | {floor.memory:.1f}"
        rates = " | ".join(f"{1e3 / ms:.3g}" for ms in (floor.ms, floor.folded, floor.today))
        yield f"| {floor.gpu.name} | {floor.gpu.peak:g} | {times} | {rates} | {NOT_MEASURED} |"


def notes() -> list[str]:
    """Return how the figures were computed, in sentences."""
    products, attention = _PRODUCTS / _REFERENCE.peak, _ATTENTION / _REFERENCE.peak
    memory = _MEMORY / _REFERENCE.bandwidth
    sam, needed = ARCHITECTURES["vit_l"], detic_tflop(_NEEDED)
    return [
        f"No GPU has run this: every figure is computed, and the column of what was measured says {NOT_MEASURED!r}.",
        f"An H200 is assumed to reach {_PRODUCTS:g} TFLOP/s in products, {_ATTENTION:g} in attention and {_MEMORY:g} "
        f"TB/s; every other GPU the same fractions of its peaks, {products:.0%}, {attention:.0%} and {memory:.0%}.",
        f"Operations per 4:3 image: {_SAM_PRODUCTS} TFLOP in the products of SAM ViT-L, "
        f"{2e-3 * SAM_DECODER_GMAC:.4f} in its decoder, {needed:.2f} in Detic on {_NEEDED.height}x{_NEEDED.width} "
        f"({_DETIC_LARGEST} on {_LARGEST.height}x{_LARGEST.width}), {attention_tflop(sam):.2f} in SAM's attention "
        f"({_SAM_FOLDED} with the relative positions folded into heads of 192).",
        f"Bytes: {moved_gb(sam):.1f} GB per image in SAM's encoder, every element-wise operation within a product.",
        f"Estimate, folded: {_LARGEST.height}x{_LARGEST.width} for every image, folded heads, {_FOLDED} ms on an H200. "
        f"Today's estimate takes off what is predicted of heads of 64 ({_ATTENTION_GAIN:g} ms) and of canvases per "
        f"aspect ratio with full batches ({_CANVAS_GAIN:g} ms). What products and attention do not explain of either "
        "grows as memory is slower.",
        *(f"{gpu.name}: {gpu.peak:g} TFLOP/s, {gpu.bandwidth:g} TB/s; {gpu.source}." for gpu in GPUS),
    ]


def result() -> Result:
    """Return the table as the result of a bench. Nothing is measured."""
    rows = []
    for floor in map(floor_of, GPUS):
        group = floor.gpu.name
        times = (("products", floor.products), ("attention", floor.attention), ("bytes", floor.memory))
        rows += [Row(name, value, "ms", "lower", group) for name, value in (*times, ("floor", floor.ms))]
        rows.append(Row("floor, rate", 1e3 / floor.ms, "images/s", "higher", group))
        rows.append(Row("estimate, folded", 1e3 / floor.folded, "images/s", "higher", group))
        rows.append(Row("today's estimate", 1e3 / floor.today, "images/s", "higher", group))
    title = f"Floors of SAM ViT-L and Detic per GPU, computed and {NOT_MEASURED}"
    return envelope("floors", rows, title=title, rounds=1, notes=notes())
