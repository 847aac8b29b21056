"""The contract of each graph, which says what goes in and comes out; and the manifest that lies beside a graph's file.

A graph is what fgfast runs as one call on a device: `fgfast.models` define it, `fgfast.export` writes it as ONNX or
TensorRT, and `fgfast.backends` run it. All of them keep to the contract.

Two contracts are equal when a file made for one can stand in for the other: the graph's name, the version, and the
names, dtypes and shapes of the ports. `Port.meaning` is prose for the reader, and rewording it makes no file wrong; a
change of what a port means raises `version` instead. `Port.kind` chooses the row of the tolerance table that the parity
check applies; a stricter row changes what is accepted from now on, not what an accepted file computes, and the limits
that a file was held to are in its manifest.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ParamSpec

from fgfast.errors import GraphError

# Width of CLIP ViT-B/32's text embeddings, which Detic's vocabulary consists of.
_EMBEDDING = 512
# Channels of SAM's image embedding and the pixels along one edge of a token.
_SAM_CHANNELS, _SAM_PATCH = 256, 16
DTYPES = ("uint8", "int64", "float32", "float16", "bfloat16", "bool")

_Arguments = ParamSpec("_Arguments")


@dataclass(frozen=True, slots=True)
class Port:
    """One tensor that enters or leaves a graph.

    Attributes:
        name: of the graph's input or output.
        dtype: one of DTYPES.
        shape: sizes; a word stands for a size that may vary from call to call, the same word for the same size.
        meaning: what the tensor holds, in which unit and frame; not compared.
        kind: of an output, the row of fgfast.tolerances that bounds its difference from PyTorch; empty for inputs;
            not compared.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    meaning: str = field(default="", compare=False)
    kind: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Contract:
    """What goes into a graph and what comes out.

    Attributes:
        graph: name, one of GRAPHS.
        inputs: in the order of the call.
        outputs: in the order of the result.
        version: raised whenever a file made for the old contract would be misunderstood.
        arguments: those that the graph's constructor was called with; not compared, for the ports follow from them.
    """

    graph: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    version: int = 1
    arguments: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def free(self) -> tuple[str, ...]:
        """The names of sizes that may vary, in order of appearance; empty for a graph of fixed shapes."""
        return tuple(dict.fromkeys(d for port in self.inputs for d in port.shape if isinstance(d, str)))

    def signature(self) -> dict[str, Any]:
        """What contracts are compared by, as plain values for JSON."""
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
            GraphError: an input is missing or unknown, or has another dtype or shape; says which are right.
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
    """Decorate a function that makes contracts: each notes the arguments it was made from, defaults included."""
    signature = inspect.signature(make)

    @functools.wraps(make)
    def made(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Contract:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return replace(make(*args, **kwargs), arguments=bound.arguments)

    return made


@constructor
def sam_image_encoder(side: int = 1024, batch: int | str = "batch") -> Contract:
    """SAM's image encoder with everything that happens to resized images before it.

    Args:
        side: of SAM's square input, pixels.
        batch: images per call, or a word where their number may vary.
    """
    grid = side // _SAM_PATCH
    return Contract(
        "sam_image_encoder",
        (
            Port("pixels", "uint8", (batch, side, side, 3), "RGB, resized to a longer edge of `side`, at the top left"),
            Port("sizes", "int64", (batch, 2), "height and width of each resized image; beyond it is padding"),
        ),
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
            Port(
                "logits",
                "float32",
                ("pairs", masks, 4 * grid, 4 * grid),
                "over the square, subject > 0",
                "low_res",
            ),
            Port("quality", "float32", ("pairs", masks), "SAM's estimate of each mask's IoU", "iou"),
            Port(
                "stability",
                "float32",
                ("pairs", masks),
                "of these logits at offset 1; NaN for no mask",
                "stability",
            ),
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
    return Contract(
        "detic_detector",
        (*_detic_images(canvas, batch), _vocabulary()),
        _detic_outputs(batch, proposals),
    )


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
        _detic_images(canvas, batch),
        (
            *_maps(canvas, batch, channels, precision),
            Port("candidates", "float32", (batch, count, 4), "x0 y0 x1 y1, pixels of the resized image", "boxes_px"),
            Port("candidate_scores", "float32", (batch, count), "0 for a void row", "scores"),
        ),
    )


@constructor
def detic_heads(
    canvas: tuple[int, int], batch: int = 1, channels: int = 256, proposals: int = 256, precision: str = "fp32"
) -> Contract:
    """The second half of Detic's split form: the cascade on proposals, the candidates that survived suppression.

    Args:
        canvas, batch, channels, precision: as for `detic_backbone`.
        proposals: boxes per image.
    """
    return Contract(
        "detic_heads",
        (
            *_maps(canvas, batch, channels, precision),
            Port("proposals", "float32", (batch, proposals, 4), "x0 y0 x1 y1, pixels of the resized image; 0 if void"),
            Port("proposal_scores", "float32", (batch, proposals), "0 for a void row"),
            Port("sizes", "int64", (batch, 2), "height and width of each resized image"),
            _vocabulary(),
        ),
        _detic_outputs(batch, proposals),
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
            *_detic_images(canvas, batch),
            Port("input_ids", "int64", (batch, text), "BERT's tokens of the prompt, [CLS] to [SEP]; 0 is padding"),
        ),
        (
            Port("logits", "float32", (batch, queries, text), "of each query and token; -inf for padding", "stages"),
            Port("boxes", "float32", (batch, queries, 4), "centre x, centre y, width, height, parts of 1", "scores"),
            Port(
                "cells",
                "int64",
                (batch, queries),
                "where each query begins, best first: cells, row by row and level by level, at strides 8 to 64",
                "lost",
            ),
        ),
    )


GRAPHS = MappingProxyType(
    {
        f.__name__: f
        for f in (sam_image_encoder, sam_mask_decoder, detic_detector, detic_backbone, detic_heads, grounding_dino)
    }
)


def _detic_images(canvas: tuple[int, int], batch: int) -> tuple[Port, Port]:
    return (
        Port("pixels", "uint8", (batch, *canvas, 3), "RGB, resized, at the top left of the canvas"),
        Port("sizes", "int64", (batch, 2), "height and width of each resized image; beyond it is padding"),
    )


def _vocabulary() -> Port:
    return Port("vocabulary", "float32", (_EMBEDDING, "classes"), "one column per name, the last one for background")


def _detic_outputs(batch: int, proposals: int) -> tuple[Port, Port]:
    return (
        Port("boxes", "float32", (batch, proposals, 4), "x0 y0 x1 y1, pixels of the resized image", "boxes_px"),
        Port("scores", "float32", (batch, proposals, "classes"), "0..1; the last column is background", "scores"),
    )


def _maps(canvas: tuple[int, int], batch: int, channels: int, precision: str) -> tuple[Port, ...]:
    dtype = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}[precision]
    return tuple(
        Port(f"p{n}", dtype, (batch, channels, *_level_size(canvas, 2**n)), f"pyramid at stride {2**n}", "features")
        for n in (3, 4, 5)
    )


def _level_size(canvas: tuple[int, int], stride: int) -> tuple[int, int]:
    return -(-canvas[0] // stride), -(-canvas[1] // stride)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the file of a graph is, written beside it as JSON.

    Attributes:
        contract: what goes in and comes out.
        model: as the user names it, "sam_vit_l".
        weights: "sha256 ..." of the checkpoint, or "random:SEED".
        precision: "fp32", "bf16" or "fp16", of the matrix products.
        opset: ONNX's.
        code: fgfast's version and those of the packages that made the file.
        files: name -> SHA-256, of everything that belongs to the graph; the first is the graph itself.
        tolerances: output -> largest difference and rms that the parity check allowed.
        measured: what the parity check found, one record for each thing that was run.
        outdated: found by `read`: why this fgfast must not use the file, to follow its name; empty for a usable one.
    """

    contract: Contract
    model: str
    weights: str
    precision: str
    opset: int
    code: dict[str, str]
    files: dict[str, str]
    tolerances: dict[str, dict[str, float]] = field(default_factory=dict)
    measured: list[dict[str, Any]] = field(default_factory=list)
    outdated: str = field(default="", compare=False)

    def to_json(self) -> str:
        """The manifest as JSON. The contract's prose is left out, so that rewording it changes no file."""
        facts = asdict(self)
        facts["contract"] = {"arguments": dict(self.contract.arguments), **self.contract.signature()}
        del facts["outdated"]
        return json.dumps(facts, indent=1) + "\n"

    def write(self, path: Path) -> None:
        """Write the manifest as JSON."""
        path.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read what `write` wrote, and compare the contract with today's.

        Raises:
            GraphError: the file is not a manifest.
        """
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            stored = facts.pop("contract")
            inputs, outputs = (
                tuple(Port(port["name"], port["dtype"], tuple(port["shape"])) for port in stored[side])
                for side in ("inputs", "outputs")
            )
            arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.get("arguments", {}).items()}
            contract = Contract(stored["graph"], inputs, outputs, stored["version"], arguments)
            today, outdated = _today(contract)
            return cls(today, **{**facts, "outdated": outdated})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise GraphError(f"{path} is not the manifest of a graph ({error}); export the model again") from error


def _today(stored: Contract) -> tuple[Contract, str]:
    """The contract that today's constructor makes from a stored one's arguments, and "" where both are equal; else
    the stored one, and the reason why its file must not be used.
    """
    graph = stored.graph
    if graph not in GRAPHS:
        return stored, f"holds a graph {graph!r}, which this fgfast does not have"
    if not stored.arguments:
        return stored, f"was exported by an older fgfast, which did not keep the arguments of {graph}'s contract"
    try:
        today = GRAPHS[graph](**stored.arguments)
    except (TypeError, ValueError, KeyError) as error:
        return stored, f"was exported with arguments that {graph}'s contract does not take ({error})"
    if today == stored:
        return today, ""
    if today.version != stored.version:
        return stored, f"was exported for version {stored.version} of {graph}'s contract, which now has {today.version}"
    return stored, f"was exported with other inputs or outputs than {graph}'s contract has now"
