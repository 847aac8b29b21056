"""The contract of each graph: the names, dtypes and shapes of its inputs and outputs.

A graph is what fgfast runs as one call on a device: `fgfast.models` define it, `fgfast.export` writes it as ONNX or
TensorRT, and `fgfast.backends` run it. All of them keep to the contract.

Two contracts are equal when a file made for one can stand in for the other: the graph's name, the version, and the
names, dtypes and shapes of the ports. `Port.meaning` is prose for the reader, and rewording it invalidates no file; a
change of what a port means raises `version` instead. `Port.kind` chooses the row of the tolerance table that the parity
check applies; a stricter row changes what is accepted from now on, not what an accepted file computes, and the limits
that a file was held to are in its manifest (fgfast.backends.manifest).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ParamSpec

from fgfast.errors import GraphError

# Width of CLIP ViT-B/32's text embeddings, which Detic's vocabulary consists of.
_EMBEDDING = 512
# Channels of SAM's image embedding and the pixels along one edge of a token.
_SAM_CHANNELS, _SAM_PATCH = 256, 16
DTYPE_OF = MappingProxyType({"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"})
"""Dtype of each precision."""

_Arguments = ParamSpec("_Arguments")


@dataclass(frozen=True, slots=True)
class Port:
    """One tensor that enters or leaves a graph.

    Attributes:
        name: of the graph's input or output.
        dtype: "uint8", "int64", "float32", "float16", "bfloat16" or "bool".
        shape: sizes; a word stands for a size that may vary from call to call, the same word for the same size.
        meaning: what the tensor holds, in which unit and frame; not compared.
        kind: the row of fgfast.tolerances that bounds an output's difference from PyTorch; empty for inputs; not
            compared.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    meaning: str = field(default="", compare=False)
    kind: str = field(default="", compare=False)

    def shape_for(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Return the shape with the value of each free size filled in."""
        return tuple(sizes[d] if isinstance(d, str) else d for d in self.shape)


@dataclass(frozen=True, slots=True)
class Contract:
    """The inputs and outputs of a graph.

    Attributes:
        graph: name, one of GRAPHS.
        inputs: in the order of the call.
        outputs: in the order of the result.
        version: raised whenever a file made for the old contract would be misunderstood.
        arguments: arguments of the graph's constructor; not compared, because the ports follow from them.
    """

    graph: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    version: int = 1
    arguments: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def free(self) -> tuple[str, ...]:
        """Names of the sizes that may vary, in order of appearance; empty for a graph of fixed shapes."""
        return tuple(dict.fromkeys(d for port in self.inputs for d in port.shape if isinstance(d, str)))

    def signature(self) -> dict[str, Any]:
        """Return the fields by which contracts are compared, as plain values for JSON."""
        inputs, outputs = (
            [{"name": port.name, "dtype": port.dtype, "shape": list(port.shape)} for port in ports]
            for ports in (self.inputs, self.outputs)
        )
        return {"graph": self.graph, "version": self.version, "inputs": inputs, "outputs": outputs}

    def bind(self, given: Mapping[str, tuple[str, Sequence[int]]]) -> dict[str, int]:
        """Check inputs against the contract.

        Args:
            given: input -> (dtype, shape).

        Returns:
            The value of each free size.

        Raises:
            GraphError: an input is missing or unknown, or has another dtype or shape; the message gives the right one.
        """
        wanted = {port.name for port in self.inputs}
        if given.keys() != wanted:
            raise GraphError(f"{self.graph} takes {sorted(wanted)}, not {sorted(given)}")
        sizes: dict[str, int] = {}
        for port in self.inputs:
            dtype, shape = given[port.name]
            fits = dtype == port.dtype and len(shape) == len(port.shape)
            for want, got in zip(port.shape, shape, strict=False):
                fits &= got == (sizes.setdefault(want, got) if isinstance(want, str) else want)
            if not fits:
                known = f", where {sizes}" if sizes else ""
                raise GraphError(
                    f"{self.graph}: {port.name} is {dtype} {tuple(shape)}, must be {port.dtype} {port.shape}{known}"
                )
        return sizes


def constructor(make: Callable[_Arguments, Contract]) -> Callable[_Arguments, Contract]:
    """Decorate a function that makes contracts, so that each contract keeps the arguments, defaults included."""
    signature = inspect.signature(make)

    @functools.wraps(make)
    def wrapped(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Contract:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return replace(make(*args, **kwargs), arguments=bound.arguments)

    return wrapped


@constructor
def sam_image_encoder(side: int = 1024, batch: int | str = "batch") -> Contract:
    """SAM's image encoder, including the normalisation and padding of resized images.

    Args:
        side: of SAM's square input, pixels.
        batch: images per call, or a word where their number may vary.
    """
    grid = side // _SAM_PATCH
    return Contract(
        "sam_image_encoder",
        _images((side, side), batch),
        (Port("embeddings", "float32", (batch, _SAM_CHANNELS, grid, grid), "image embeddings", "features"),),
    )


@constructor
def sam_mask_decoder(side: int = 1024, masks: int = 1) -> Contract:
    """SAM's prompt encoder and mask decoder for boxes.

    Args:
        side: of SAM's square input, pixels.
        masks: per box; 1, or 3 (whole, part, subpart).
    """
    grid = side // _SAM_PATCH
    return Contract(
        "sam_mask_decoder",
        (
            Port("embeddings", "float32", ("images", _SAM_CHANNELS, grid, grid), "those of sam_image_encoder"),
            Port("image_index", "int64", ("pairs",), "the embedding that each box belongs to"),
            Port("boxes", "float32", ("pairs", 4), "x0 y0 x1 y1, pixels of the resized image"),
        ),
        (
            Port("logits", "float32", ("pairs", masks, 4 * grid, 4 * grid), "over the square, subject > 0", "low_res"),
            Port("quality", "float32", ("pairs", masks), "SAM's estimate of each mask's IoU", "iou"),
            Port("stability", "float32", ("pairs", masks), "of the logits at offset 1; NaN for no mask", "stability"),
        ),
    )


@constructor
def sam_prompt_decoder(side: int = 1024) -> Contract:
    """SAM's prompt encoder and mask decoder for whatever a person clicks: boxes, points, the mask of the last click.

    All four masks are decoded at once: the single one, and the three of an ambiguous prompt (whole, part, subpart).

    Args:
        side: of SAM's square input, pixels.
    """
    grid = side // _SAM_PATCH
    cells, count = 4 * grid, 4
    return Contract(
        "sam_prompt_decoder",
        (
            Port("embeddings", "float32", ("images", _SAM_CHANNELS, grid, grid), "those of sam_image_encoder"),
            Port("image_index", "int64", ("pairs",), "the embedding that each prompt belongs to"),
            Port("points", "float32", ("pairs", "points", 2), "x y, pixels of the resized image"),
            Port(
                "kinds",
                "int64",
                ("pairs", "points"),
                "0 on the background, 1 on the subject, 2 and 3 a box's upper left and lower right corner, 4 padding: "
                "one where there is no box",
            ),
            Port("masks", "float32", ("pairs", cells, cells), "logits of an earlier mask over the square"),
            Port("has_mask", "float32", ("pairs",), "1 where there is one, else 0"),
        ),
        (
            Port("logits", "float32", ("pairs", count, cells, cells), "over the square, subject > 0", "low_res"),
            Port("quality", "float32", ("pairs", count), "SAM's estimate of each mask's IoU", "iou"),
            Port("stability", "float32", ("pairs", count), "of the logits at offset 1; NaN for no mask", "stability"),
        ),
    )


@constructor
def detic_detector(canvas: tuple[int, int], batch: int = 1, proposals: int = 256) -> Contract:
    """Detic from resized images to scored boxes.

    Args:
        canvas: (height, width) in pixels, multiples of 32. Results do not depend on it.
        batch: images per call.
        proposals: boxes per image.
    """
    inputs = (*_images(canvas, batch), _vocabulary())
    return Contract("detic_detector", inputs, _detic_outputs(batch, proposals))


@constructor
def detic_backbone(
    canvas: tuple[int, int], batch: int = 1, channels: int = 256, candidates: int = 1000, precision: str = "fp32"
) -> Contract:
    """The first half of Detic's split form: up to the candidates that non-maximum suppression chooses from.

    Args:
        canvas: as for `detic_detector`.
        batch: images per call.
        channels: of the pyramid.
        candidates: at most this many per level.
        precision: "fp32", "bf16" or "fp16", of the pyramid's maps.
    """
    sizes = [_level_size(canvas, stride) for stride in (8, 16, 32, 64, 128)]
    count = sum(min(candidates, h * w) for h, w in sizes)
    return Contract(
        "detic_backbone",
        _images(canvas, batch),
        (
            *_maps(canvas, batch, channels, precision),
            Port("candidates", "float32", (batch, count, 4), "x0 y0 x1 y1, pixels of the resized image", "boxes_px"),
            Port("candidate_scores", "float32", (batch, count), "0 for a void row", "scores"),
        ),
    )


@constructor
def detic_heads(
    canvas: tuple[int, int],
    batch: int = 1,
    channels: int = 256,
    proposals: int = 256,
    precision: str = "fp32",
    classes: int | str = "classes",
) -> Contract:
    """The second half of Detic's split form: the cascade on proposals, the candidates that survived suppression.

    Args:
        canvas, batch, channels, precision: as for `detic_backbone`.
        proposals: boxes per image.
        classes: columns of the vocabulary, or a word where their number may vary. All shapes are fixed where it is a
            number; columns beyond the user's words and the background are then zero, and their scores are not used.
    """
    return Contract(
        "detic_heads",
        (
            *_maps(canvas, batch, channels, precision),
            Port("proposals", "float32", (batch, proposals, 4), "x0 y0 x1 y1, pixels of the resized image; 0 if void"),
            Port("proposal_scores", "float32", (batch, proposals), "0 for a void row"),
            Port("sizes", "int64", (batch, 2), "height and width of each resized image"),
            _vocabulary(classes),
        ),
        _detic_outputs(batch, proposals, classes),
    )


@constructor
def grounding_dino(canvas: tuple[int, int], batch: int = 1, queries: int = 900, text: int | str = "text") -> Contract:
    """Grounding DINO from resized images and token ids to queries.

    Args:
        canvas: (height, width) in pixels, multiples of 32 and at least 128. Results do not depend on it; of equal
            scores, any may be chosen.
        batch: images per call.
        queries: boxes per image.
        text: tokens of the prompt, 256 at most, or a word where their number may vary.
    """
    return Contract(
        "grounding_dino",
        (
            *_images(canvas, batch),
            Port("input_ids", "int64", (batch, text), "BERT's tokens of the prompt, [CLS] to [SEP]; 0 is padding"),
        ),
        (
            Port("logits", "float32", (batch, queries, text), "of each query and token; -inf for padding", "stages"),
            Port("boxes", "float32", (batch, queries, 4), "centre x, centre y, width, height, as fractions", "scores"),
            Port(
                "cells",
                "int64",
                (batch, queries),
                "the cell where each query starts, best first; row by row and level by level, at strides 8 to 64",
                "lost",
            ),
        ),
    )


GRAPHS = MappingProxyType(
    {
        f.__name__: f
        for f in (
            sam_image_encoder,
            sam_mask_decoder,
            sam_prompt_decoder,
            detic_detector,
            detic_backbone,
            detic_heads,
            grounding_dino,
        )
    }
)


def _images(canvas: tuple[int, int], batch: int | str) -> tuple[Port, Port]:
    return (
        Port("pixels", "uint8", (batch, *canvas, 3), "RGB, resized, at the top left of the canvas"),
        Port("sizes", "int64", (batch, 2), "height and width of each resized image; beyond it is padding"),
    )


def _vocabulary(classes: int | str = "classes") -> Port:
    return Port("vocabulary", "float32", (_EMBEDDING, classes), "one column per name, the last one for background")


def _detic_outputs(batch: int, proposals: int, classes: int | str = "classes") -> tuple[Port, Port]:
    return (
        Port("boxes", "float32", (batch, proposals, 4), "x0 y0 x1 y1, pixels of the resized image", "boxes_px"),
        Port("scores", "float32", (batch, proposals, classes), "0..1; the last column is background", "scores"),
    )


def _maps(canvas: tuple[int, int], batch: int, channels: int, precision: str) -> tuple[Port, ...]:
    shapes = {n: (batch, channels, *_level_size(canvas, 2**n)) for n in (3, 4, 5)}
    dtype = DTYPE_OF[precision]
    return tuple(Port(f"p{n}", dtype, shape, f"pyramid at stride {2**n}", "features") for n, shape in shapes.items())


def _level_size(canvas: tuple[int, int], stride: int) -> tuple[int, int]:
    return -(-canvas[0] // stride), -(-canvas[1] // stride)
