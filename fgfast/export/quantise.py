"""SAM with a quantised image encoder: FP8 or INT8 in the products of its linear layers, float16 in all else.

Left in float16 or float32, as in fp16 graphs: attention's own products, the relative positions, the embedding of the
patches, the neck; norms, softmax and the residual stream.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from fgfast.export import quantise_graph, quantise_scales, sam
from fgfast.export.part import Part
from fgfast.export.quantise_check import MaskCheck, summary
from fgfast.export.quantise_sample import CalibrationSample, encoder_inputs
from fgfast.export.quantise_scales import LayerScales
from fgfast.methods import ModelSpec, plain_precision
from fgfast.models.sam.build import build_sam
from fgfast.models.sam.graph import MaskDecoderGraph
from fgfast.models.sam.model import Sam
from fgfast.tolerances import Tolerance

_MASKS = Tolerance(float("inf"), float("inf"), "the masks are compared in place of the embeddings")


@dataclass(frozen=True, slots=True, eq=False)
class Quantisation:
    """What turns a traced float16 graph into a quantised one.

    Attributes:
        precision: "fp8" or "int8".
        layers: the linear layers in float32, by the names that their weights have in the graph.
        scales: of the layers.
        sample: the images that they come from.
    """

    precision: str
    layers: Mapping[str, nn.Linear]
    scales: Mapping[str, LayerScales]
    sample: CalibrationSample

    def insert(self, path: Path, target: Path) -> None:
        """Write the quantised form of a file; see quantise_graph.insert."""
        quantise_graph.insert(path, target, self.layers, self.scales, self.precision)

    def facts(self, measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the manifest's `quantisation`.

        Args:
            measured: from MaskCheck.compare.
        """
        return {
            "layers": len(self.layers),
            "range": quantise_scales.METHODS[self.precision],
            "images": len(self.sample.calibrating),
            "held_out": len(self.sample.held_out),
            "sample": self.sample.digest,
            "scales": self.digest,
            "iou": summary(record["iou"] for record in measured),
        }

    @property
    def digest(self) -> str:
        """SHA-256 of the scales, which tell two quantised graphs of the same weights apart."""
        digest = hashlib.sha256(self.precision.encode())
        for name, scales in sorted(self.scales.items()):
            digest.update(name.encode() + scales.inputs.tobytes() + scales.weights.tobytes())
        return digest.hexdigest()


def parts(spec: ModelSpec, names: Sequence[str], sample: CalibrationSample) -> Iterator[Part]:
    """The graphs that `fgfast export sam_vit_l --precision fp8` writes; the mask decoder is that of every precision.

    Args:
        spec: of a SAM in a quantised precision; the batch is the encoder's.
        names: "sam_image_encoder", "sam_mask_decoder" or both.
        sample: of the user's data set.

    Raises:
        GraphError: the encoder's values are not finite on the sample.
    """
    exact = build_sam(replace(spec, precision="fp32"))
    if "sam_image_encoder" in names:
        half = build_sam(replace(spec, precision=plain_precision(spec.precision)))
        yield encoder(half, exact, spec.precision, sample, spec.batch or 1)
    if "sam_mask_decoder" in names:
        yield sam.decoder(exact)


def encoder(half: Sam, exact: Sam, precision: str, sample: CalibrationSample, batch: int = 1) -> Part:
    """The quantised image encoder.

    Args:
        half: in float16, on the CPU; shared, not copied.
        exact: the same model in float32.
        precision: "fp8" or "int8".
        sample: gives the scales, and the images of the parity check.
        batch: images per call.
    """
    plain = sam.encoder(half, exact, "fp16", batch)
    graph = sam.encoder(exact, exact).graph
    layers = quantise_scales.linear_layers(graph)

    def inputs() -> Iterator[tuple[Any, ...]]:
        return (tuple(given.values()) for given in encoder_inputs(sample.calibrating, 1))

    ranges = quantise_scales.calibrate(graph, inputs, precision)
    scales = quantise_scales.scales_of(layers, ranges, precision)
    check = MaskCheck(sample.held_out, MaskDecoderGraph(exact), batch)
    return replace(
        plain,
        cases=check.cases,
        compare=check.compare,
        tolerances=dict.fromkeys(plain.tolerances, _MASKS),
        quantisation=Quantisation(precision, layers, scales, sample),
    )
