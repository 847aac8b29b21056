"""SAM as ONNX: its image encoder in any precision, and its prompt encoder with the mask decoder in float32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fgfast.export import sam_decoder, sam_encoder
from fgfast.export.part import Part
from fgfast.models.files.checkpoints import Precision, build_sam
from fgfast.models.sam.graph import ImageEncoderGraph
from fgfast.tolerances import SAM_BF16, SAM_FP16, SAM_FP32

TOLERANCES = {"fp32": SAM_FP32, "fp16": SAM_FP16, "bf16": SAM_BF16}


def parts(model: str, weights: str, precision: Precision, batch: int, graphs: Sequence[str]) -> Iterator[Part]:
    """The graphs that `fgfast export sam_vit_l` writes.

    Args:
        model: "sam_vit_b", "sam_vit_l" or "sam_vit_h".
        weights: as for build_sam.
        precision: of the encoder's matrix products.
        batch: images per call of the encoder.
        graphs: "sam_image_encoder", "sam_mask_decoder" or both.
    """
    name = model.removeprefix("sam_")
    exact = build_sam(name, weights)
    if "sam_image_encoder" in graphs:
        sam = exact if precision == "fp32" else build_sam(name, weights, precision)
        encoder = sam_encoder.contract(sam, batch)
        yield Part(
            encoder,
            sam_encoder.graph(sam),
            ImageEncoderGraph(exact),
            sam_encoder.example(encoder),
            lambda: sam_encoder.cases(encoder),
            TOLERANCES[precision],
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
