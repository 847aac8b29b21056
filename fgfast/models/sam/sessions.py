"""Builds SAM's segmenter, in PyTorch or from exported graphs."""

from __future__ import annotations

from dataclasses import replace

import torch

from fgfast import graphs as contracts
from fgfast import ops
from fgfast.backends.session import Session
from fgfast.backends.torch import TorchSession
from fgfast.methods import ModelSpec
from fgfast.models.files.graph_files import Exported
from fgfast.models.sam.architecture import architecture
from fgfast.models.sam.build import build_sam
from fgfast.models.sam.graph import ImageEncoderGraph, MaskDecoderGraph
from fgfast.models.sam.model import Sam
from fgfast.models.sam.segmenter import SamSegmenter
from fgfast.models.serving import chosen
from fgfast.models.serving.batches import default_batch
from fgfast.models.serving.exported import exported, load, of_batch, with_engine
from fgfast.models.serving.forms import form_of


def segmenter(spec: ModelSpec) -> SamSegmenter:
    """Return SAM's segmenter. In PyTorch the encoder's graph has the spec's form, or the best one.

    Args:
        spec: of the model; its precision is the encoder's.

    Raises:
        UsageError: the backend needs exported graphs, and there are none; the message gives the command to type.
        UnknownNameError, ModelNotCachedError, WeightsError: see build_sam.
    """
    batch = spec.batch or default_batch(spec.device)
    if spec.backend == "torch":
        form = form_of(spec)  # measured, where it is not known, before the weights take memory here
        if form == "eager" and (by := _on_cpu(spec)):
            chosen.say(f"SAM's attention in {spec.precision} is {by}")
        return sam_in_torch(build_sam(spec), form=form, batch=batch)

    def encoder(images: int) -> Session:
        return load(graphs(replace(spec, batch=images))[0], spec)

    return SamSegmenter(encoder(batch), load(graphs(spec)[1], spec), batch, encoder)


def sam_in_torch(model: Sam, multimask: bool = False, form: str = "eager", batch: int = 1) -> SamSegmenter:
    """Return a segmenter for a SAM. The decoder, a four-hundredth of the arithmetic, is never compiled or recorded.

    Args:
        model: with weights.
        multimask: return three masks per box instead of one.
        form: of the encoder, one of fgfast.backends.torch.FORMS. All but "eager" always take `batch` images, because
            every other number would be compiled and recorded separately.
        batch: images per slot.
    """
    side, device, graph = model.architecture.side, model.device, ImageEncoderGraph(model)

    def encoder(images: int) -> Session:
        takes = "batch" if form == "eager" else images
        return TorchSession(graph, contracts.sam_image_encoder(side, takes), device, form)

    decoder = TorchSession(
        MaskDecoderGraph(model, multimask), contracts.sam_mask_decoder(side, 3 if multimask else 1), device
    )
    return SamSegmenter(encoder(batch), decoder, batch, encoder)


def graphs(spec: ModelSpec) -> list[Exported]:
    """Return the exported encoder and decoder; raises UsageError where one is missing."""
    encoders = with_engine(exported(spec, "sam_image_encoder"), spec)
    batch = spec.batch or default_batch(spec.device)
    return [of_batch(encoders, batch), exported(spec, "sam_mask_decoder")[0]]


def variant(spec: ModelSpec) -> str:
    """Return what computes the encoder's attention, as far as that is known without a trial; empty where fixed."""
    if by := _on_cpu(spec):
        return by
    from fgfast.models.sam import fused_trial

    torch_type = {"bf16": "torch.bfloat16", "fp16": "torch.float16"}.get(spec.precision, "")
    if spec.backend != "torch" or not spec.device.startswith("cuda") or torch_type not in fused_trial.DTYPES:
        return ""
    sizes = architecture(spec.name.removeprefix("sam_"))
    return fused_trial.expected(torch.device(spec.device).index or 0, sizes.width // sizes.heads)


def _on_cpu(spec: ModelSpec) -> str:
    """Return what computes attention in bfloat16 on a CPU, in words; empty elsewhere."""
    if spec.backend != "torch" or spec.device != "cpu" or spec.precision != "bf16":
        return ""
    by = ops.bf16_attends_by()
    return f"the engine's, by {by}" if by else "PyTorch's"


def timed(spec: ModelSpec) -> Session:
    """Return the encoder, which takes most of SAM's time."""
    return segmenter(spec).encoder
