"""SAM's image encoder in other engines, with fgfast's resizing, decoder and mask around it."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fgfast import graphs
from fgfast.backends.torch import TorchSession
from fgfast.bench.original_sam import original
from fgfast.bench.peer_sessions import files_for, session_of
from fgfast.bench.peers import Peer
from fgfast.bench.segmented import Segment, segment_by
from fgfast.methods import ModelSpec
from fgfast.models.sam.architecture import ARCHITECTURES, Architecture
from fgfast.models.sam.build import build_sam
from fgfast.models.sam.graph import MaskDecoderGraph
from fgfast.models.sam.segmenter import SamSegmenter
from fgfast.models.serving.pixels import NormalisedImages

# The opset of plain exports: the first with LayerNormalization, which PyTorch's older exporter writes as well.
_OPSET = 17


def prepare(peers: list[Peer], name: str, weights: str, folder: Path) -> None:
    """Write the graphs that the peers load.

    Args:
        peers: the ones that will be loaded.
        name: the SAM, "vit_b", "vit_l" or "vit_h".
        weights: "cached", "random:SEED" or a file.
        folder: where the files go; it exists.
    """
    if any(peer.graph == "plain" for peer in peers):
        side = ARCHITECTURES[name].side
        example = torch.zeros(1, side, side, 3, dtype=torch.uint8), torch.tensor([[side, side]])
        export_plainly(PlainEncoder(original(name, weights).image_encoder), example, folder / "plain.onnx")
    if any(peer.graph == "own" for peer in peers):
        from fgfast.export import sam, trace

        exact = build_sam(ModelSpec(f"sam_{name}", weights))
        part = sam.encoder(exact, exact)
        trace.trace(part.graph, part.contract, part.example, folder / "own.onnx")
    files_for(peers, folder)


def load(peer: Peer, name: str, weights: str, folder: Path) -> Segment:
    """Load a peer; return its function from image and box to mask.

    Args:
        peer: one of SAM_PEERS.
        name: the SAM.
        weights: "cached", "random:SEED" or a file.
        folder: of the files that `prepare` wrote.
    """
    contract = graphs.sam_image_encoder(ARCHITECTURES[name].side, 1)
    model = build_sam(ModelSpec(f"sam_{name}", weights))
    if peer.package == "transformers":
        encoder: Any = TorchSession(_encoder_of_transformers(name, model.state_dict()), contract, torch.device("cpu"))
    else:
        encoder = session_of(peer, folder, contract)
    model.image_encoder = nn.Identity()  # not the peer's memory
    decoder = TorchSession(MaskDecoderGraph(model), graphs.sam_mask_decoder(ARCHITECTURES[name].side))
    return segment_by(SamSegmenter(encoder, decoder))


class PlainEncoder(nn.Module):
    """Normalisation, padding, and an encoder from elsewhere: a graph with the contract of `sam_image_encoder`.

    Args:
        encoder: (1, 3, side, side) float32 -> (1, 256, side / 16, side / 16).
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.images, self.encoder = NormalisedImages(torch.device("cpu")), encoder

    def forward(self, pixels: Tensor, sizes: Tensor) -> Tensor:
        """Arguments and result are those of ImageEncoderGraph."""
        return self.encoder(self.images(pixels, sizes))


def export_plainly(graph: nn.Module, example: tuple[Tensor, ...], path: Path) -> None:
    """Write a graph as ONNX with PyTorch's exporter by tracing, without any further rewriting."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.eval(),
            example,
            str(path),
            dynamo=False,
            opset_version=_OPSET,
            input_names=["pixels", "sizes"],
            output_names=["embeddings"],
        )


class _OfTransformers(nn.Module):
    """The vision encoder of transformers, which returns a record."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pixels: Tensor) -> Tensor:
        return self.encoder(pixels)[0]


# Parts of names in segment-anything, in transformers.
_NAMES = (
    *(("patch_embed.proj.", "patch_embed.projection."), ("blocks.", "layers."), (".norm", ".layer_norm")),
    *(("neck.0.", "neck.conv1."), ("neck.1.", "neck.layer_norm1.")),
    *(("neck.2.", "neck.conv2."), ("neck.3.", "neck.layer_norm2.")),
)


def _encoder_of_transformers(name: str, state: Mapping[str, Tensor]) -> nn.Module:
    from fgfast.studies import torchvision_shim

    torchvision_shim.declare()
    transformers: Any = importlib.import_module("transformers.models.sam.modeling_sam")
    encoder = transformers.SamVisionEncoder(_config(ARCHITECTURES[name]))
    weights = {}
    for key, tensor in state.items():
        if key.startswith("image_encoder."):
            key = key.removeprefix("image_encoder.")
            for theirs, other in _NAMES:
                key = key.replace(theirs, other)
            weights[key] = tensor
    encoder.load_state_dict(weights)
    return PlainEncoder(_OfTransformers(encoder).eval())


def _config(sizes: Architecture) -> Any:
    transformers: Any = importlib.import_module("transformers")
    return transformers.SamVisionConfig(
        hidden_size=sizes.width,
        num_hidden_layers=sizes.depth,
        num_attention_heads=sizes.heads,
        image_size=sizes.side,
        global_attn_indexes=list(sizes.global_blocks),
        mlp_dim=4 * sizes.width,
    )
