"""SAM as ONNX: its image encoder in any precision, and its prompt encoder with the mask decoder in float32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from fgfast.export import sam_decoder, sam_encoder
from fgfast.export.part import Part
from fgfast.methods import ModelSpec
from fgfast.models.sam.build import build_sam
from fgfast.models.sam.graph import ImageEncoderGraph
from fgfast.tolerances import SAM_BF16, SAM_FP16, SAM_FP32

TOLERANCES = {"fp32": SAM_FP32, "fp16": SAM_FP16, "bf16": SAM_BF16}


def parts(spec: ModelSpec, graphs: Sequence[str]) -> Iterator[Part]:
    """The graphs that `fgfast export sam_vit_l` writes.

    Args:
        spec: of a SAM; the precision and the batch are the encoder's.
        graphs: "sam_image_encoder", "sam_mask_decoder" or both.
    """
    exact = build_sam(replace(spec, precision="fp32"))
    if "sam_image_encoder" in graphs:
        sam = exact if spec.precision == "fp32" else build_sam(spec)
        encoder = sam_encoder.contract(sam, spec.batch or 1)
        yield Part(
            encoder,
            sam_encoder.graph(sam),
            ImageEncoderGraph(exact),
            sam_encoder.example(encoder),
            lambda: sam_encoder.cases(encoder),
            TOLERANCES[spec.precision],
        )
    if "sam_mask_decoder" in graphs:
        decoder = sam_decoder.contract(exact)
        yield Part(
            decoder,
            sam_decoder.graph(exact),
            sam_decoder.graph(exact),
            sam_decoder.example(decoder),
            lambda: sam_decoder.cases(decoder),
            SAM_FP32,
        )
