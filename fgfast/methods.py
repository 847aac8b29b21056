"""The table of methods: detectors and segmenters by name, what each needs, and what builds it. Data only.

Everything that names a method reads this table: the checks of Settings, `--help`, `fgfast models`, the choice of
"auto", the job, doctor and the docs. A new method is one entry (CONTRIBUTING.md). Builders are dotted names, imported
when a method is used:

    detector's build(spec, words)   -> a model on slots that gives Detections; or, where it needs no backend, a function
                                       (sample, image) -> Detections
    segmenter's build(spec)         -> a model on slots with `finish(read, height, width)`; or, where it needs no
                                       backend, a function (pixels, box, banner_rows) -> Mask; or, where it is
                                       annotated, a function (sample, size) -> Mask
    graphs(spec)                    -> the exported graphs that a run of the model loads
    timed(spec)                     -> the session in which the model spends its time
    variant(spec)                   -> which of several implementations is taken here, in words; may be empty
    share(spec)                     -> the work of a mean image as a share of that of `timed`
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from fgfast.errors import UnknownNameError, UsageError

Kind = Literal["detector", "segmenter"]
Precision = Literal["fp32", "bf16", "fp16", "fp8", "int8"]
BackendName = Literal["torch", "onnxruntime", "tensorrt"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16", "fp8", "int8")
# NVIDIA/TensorRT-Model-Optimizer, examples/onnx_ptq/README.md at 5a4242fa: FP8 from 8.9 on (Ada, Hopper, Blackwell).
# 7.5 (Turing) is the oldest GPU of TensorRT 10 and 11, and has INT8 in its matrix units.
QUANTISED: Mapping[str, tuple[int, int]] = MappingProxyType({"fp8": (8, 9), "int8": (7, 5)})
"""Precisions in which only the linear layers of SAM's image encoder are computed, in TensorRT, and the least compute
capability that has them. Everything else is then in `plain_precision`."""
BACKENDS: tuple[BackendName, ...] = ("torch", "onnxruntime", "tensorrt")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model, ready to be built: which, with what weights, computed how and where.

    Attributes:
        name: "sam_vit_l", "detic", ...
        weights: "cached" (the official ones, on this machine), "random:SEED" (for testing), or a file.
        precision: of the matrix products.
        device: where it runs, as torch names it.
        backend: what computes it.
        batch: images per call; None takes as many as suit the device. Exported graphs have fixed shapes: of these, the
            largest that such a batch fills is taken, else the smallest.
        form: in PyTorch, the form of its graph, one of fgfast.backends.torch.FORMS; None takes the fastest.
        images: number of images that it computes on its device, which compiling must pay back; None if not known.
    """

    name: str
    weights: str = "cached"
    precision: Precision = "fp32"
    device: str = "cpu"
    backend: BackendName = "torch"
    batch: int | None = None
    form: str | None = None
    images: int | None = None

    @property
    def seed(self) -> int | None:
        """The seed of "random:SEED"; None for any other weights."""
        return seed_of(self.weights)


@dataclass(frozen=True, slots=True)
class Method:
    """One detector or segmenter.

    Attributes:
        name: its name in settings and on the command line.
        kind: "detector" or "segmenter".
        summary: what it is, in a phrase.
        family: the models that share code with it, "sam", "detic" or "grounding_dino"; empty where it is no model.
        build: dotted name of its builder, "module:function"; see above.
        backends: what can compute it; empty for a method that is not a neural network and works on the CPU, per image.
        graphs: dotted name of the function that finds its exported graphs.
        timed: dotted name of the function that gives the session to be timed.
        share, variant: dotted names, see above; empty where every image needs all of it, and where none varies.
        extra: the extra of fgfast that brings its packages; empty where it needs none.
        weights: its name in `fgfast models`; empty where it needs no weights.
        licence: of its weights or, without weights, of the method.
        source: where it comes from.
        gmac: multiply-accumulates per image of 4:3, in 1e9; of SAM, its encoder's; 0 where they were not counted.
        aliases: other names for it.
        automatic: whether "auto" may choose it; it takes the first usable one in the table.
        annotated: whether it gives the data set's own boxes or masks, and so needs some.
        shapes: in PyTorch, the number of input shapes that are compiled; 0 where it is always eager (too many).
        blind: whether a detector gives the same box whatever the image shows.
        flagged: whether a segmenter's masks are examined for reasons to doubt them.
        check: dotted name of a function that raises unless the method can be used here; empty where none is needed.
    """

    name: str
    kind: Kind
    summary: str
    build: str
    family: str = ""
    backends: tuple[BackendName, ...] = ()
    graphs: str = ""
    timed: str = ""
    extra: str = ""
    weights: str = ""
    licence: str = ""
    source: str = ""
    gmac: float = 0.0
    aliases: tuple[str, ...] = ()
    automatic: bool = False
    annotated: bool = False
    shapes: int = 0
    share: str = ""
    variant: str = ""
    blind: bool = False
    flagged: bool = True
    check: str = ""

    @property
    def is_model(self) -> bool:
        """Whether it is a neural network, which runs in batches on a device."""
        return bool(self.backends)


def _sam(name: str, gmac: float, aliases: tuple[str, ...] = (), automatic: bool = False) -> Method:
    return Method(
        name,
        "segmenter",
        f"Segment Anything ViT-{name[-1].upper()}",
        "fgfast.models.sam.sessions:segmenter",
        "sam",
        BACKENDS,
        "fgfast.models.sam.sessions:graphs",
        "fgfast.models.sam.sessions:timed",
        "models",
        name,
        "Apache-2.0",
        "Kirillov et al., arXiv 2304.02643",
        gmac,
        aliases,
        automatic,
        shapes=1,
        variant="fgfast.models.sam.sessions:variant",
    )


def _grounding_dino(size: str) -> Method:
    return Method(
        f"grounding_dino_{size}",
        "detector",
        f"Grounding DINO {size}: boxes for any words",
        "fgfast.models.grounding_dino.sessions:detector",
        "grounding_dino",
        BACKENDS,
        "fgfast.models.grounding_dino.sessions:graphs",
        "fgfast.models.grounding_dino.sessions:timed",
        "text",
        f"grounding_dino_{size}",
        "Apache-2.0",
        "Liu et al., arXiv 2303.05499",
        share="fgfast.models.grounding_dino.sessions:share",
    )


# Multiply-accumulates per image, in 1e9, counted from the architectures: Detic Swin-B with 256 proposals, on images
# resized to so many pixels (800x1088 is its size for an image of 4:3; all but the box heads grows with the pixels), and
# SAM's decoder per box.
DETIC_GMAC = ((800 * 1088, 340.0), (896 * 1216, 419.0))
SAM_DECODER_GMAC = 1.8

METHODS: tuple[Method, ...] = (
    Method(
        "detic",
        "detector",
        "Detic Swin-B: boxes for any words",
        "fgfast.models.detic.sessions:detector",
        "detic",
        BACKENDS,
        "fgfast.models.detic.sessions:graphs",
        "fgfast.models.detic.sessions:timed",
        "models",
        "detic",
        "Apache-2.0",
        "Zhou et al., arXiv 2201.02605",
        DETIC_GMAC[0][1],
        automatic=True,
        shapes=2,
        share="fgfast.models.detic.sessions:share",
    ),
    Method(
        "annotations",
        "detector",
        "the data set's own boxes",
        "fgfast.pipeline.stages:annotations_detector",
        automatic=True,
        annotated=True,
    ),
    Method(
        "center",
        "detector",
        "the centre of the image, for images with one centred subject",
        "fgfast.pipeline.stages:center_detector",
        automatic=True,
        blind=True,
    ),
    _grounding_dino("tiny"),
    _grounding_dino("base"),
    _sam("sam_vit_l", 1493, ("sam",), automatic=True),
    Method(
        "grabcut",
        "segmenter",
        "GrabCut: colours and edges, no weights",
        "fgfast.models.grabcut:segmenter",
        source="Rother et al., GrabCut, SIGGRAPH 2004",
        automatic=True,
        check="fgfast.models.grabcut:check_opencv",
    ),
    _sam("sam_vit_b", 486),
    _sam("sam_vit_h", 2981),
    Method(
        "annotations",
        "segmenter",
        "the data set's own masks, or those of --mask-dir",
        "fgfast.pipeline.annotated:segmenter",
        annotated=True,
    ),
    Method("box", "segmenter", "the whole box is the subject", "fgfast.pipeline.stages:box_segmenter", flagged=False),
)


def methods(kind: Kind) -> tuple[Method, ...]:
    """The methods of a kind, in the order of the table."""
    return tuple(method for method in METHODS if method.kind == kind)


def names(kind: Kind) -> tuple[str, ...]:
    """The allowed values of a setting of a kind: "auto", every name and every alias."""
    return ("auto", *(name for method in methods(kind) for name in (method.name, *method.aliases)))


def models() -> tuple[Method, ...]:
    """The methods that are neural networks."""
    return tuple(method for method in METHODS if method.is_model)


def find(name: str, kind: Kind | None = None) -> Method | None:
    """The method of a name or an alias; None for any other name, including "auto".

    A detector and a segmenter may have the same name, a model and another method may not: a model needs no `kind`.
    """
    there = METHODS if kind is None else methods(kind)
    return next((method for method in there if name in (method.name, *method.aliases)), None)


def may_be_model(name: str) -> bool:
    """Whether a detector or segmenter of this name, possibly "auto", can be a model."""
    return name == "auto" or any(name in (method.name, *method.aliases) for method in models())


def method(name: str, kind: Kind | None = None) -> Method:
    """The method of a name or an alias; see `find`.

    Raises:
        UnknownNameError: no method has this name.
    """
    if (found := find(name, kind)) is None:
        raise UnknownNameError(kind or "method", name, [m.name for m in METHODS if kind in (None, m.kind)])
    return found


def resolve(dotted: str) -> Any:
    """Import and return the function that "module:function" names."""
    module, _, function = dotted.partition(":")
    return getattr(importlib.import_module(module), function)


def plain_precision(precision: Precision) -> Precision:
    """The precision of all that a quantised precision leaves as it is: fp16; any other precision itself.

    fp16 rather than bf16, because Turing has no bf16, and because ONNX Runtime can check it on a CPU.
    """
    return "fp16" if precision in QUANTISED else precision


def seed_of(weights: str | Path) -> int | None:
    """The seed of "random:SEED"; None for any other weights.

    Raises:
        UsageError: "random:" is not followed by a whole number.
    """
    kind, colon, seed = str(weights).partition(":")
    if kind != "random" or not colon:
        return None
    if not (seed.isascii() and seed.isdigit()):
        raise UsageError(f"random weights are written random:SEED with a whole number, not {str(weights)!r}")
    return int(seed)
