"""`grounding_dino` with the same numbers on any canvas, in operations that export: for graphs of fixed shape.

transformers pads images of several sizes to one canvas and masks the padding, but neither in Swin's windows nor in the
group norms, so that boxes depend on the canvas. Here both mask the padding as well. Encoder and decoder are
transformers' own, which mask the rest; only their deformable attention is reimplemented, because its checks cannot be
traced.

There are three sizes: the canvas; the input that transformers would see of an image alone (`seen`: the image, or
SMALLEST_SIDE where that is larger, see graph.py); and the image (`sizes`). The maps at strides 8, 16, 32 and 64 have
each of them divided by the stride, rounded up, as their size in cells. An image must have a cell per query, 900; after
the resizing of the published models all do.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fgfast.backends.session import DTYPES
from fgfast.errors import GraphError
from fgfast.methods import Precision
from fgfast.models.grounding_dino.graph import SMALLEST_SIDE, Normalise
from fgfast.models.grounding_dino.precision import float32_layers
from fgfast.models.grounding_dino.prompt import CLS, DOT, PAD, QUESTION, SEP
from fgfast.models.grounding_dino.swin import CanvasSwin
from fgfast.models.serving.canvases import CANVAS_MULTIPLE, common_canvases
from fgfast.models.serving.pixels import inside
from fgfast.records import Size

STRIDES = (8, 16, 32, 64)


def levels(canvas: Sequence[int]) -> list[Size]:
    """Return (height, width) in cells of each map of a canvas, or an image, of this size in pixels."""
    return [Size(-(-canvas[0] // stride), -(-canvas[1] // stride)) for stride in STRIDES]


def common(image_processor: Any) -> tuple[Size, ...]:
    """Return the canvases of common photographs, of which the first two hold every image after resizing.

    Args:
        image_processor: transformers' GroundingDinoImageProcessorPil.
    """
    size = image_processor.size
    return common_canvases(size["shortest_edge"], size["longest_edge"])


class CanvasGraph(nn.Module):
    """Grounding DINO on a canvas.

    Args:
        model: transformers' GroundingDinoForObjectDetection; its weights are shared, and it is not changed.
        canvas: (height, width) in pixels, multiples of 32, at least 128.
        precision: of linear layers and convolutions, except FLOAT32_MODULES. Attention itself is float32 here, where
            PyTorch's autocast computes it in half precision as well.

    Raises:
        GraphError: the canvas is not valid, or the model has another structure than the published ones.
    """

    special: Tensor
    lengths: Tensor

    def __init__(self, model: Any, canvas: Size, precision: Precision = "fp32") -> None:
        super().__init__()
        if any(n % CANVAS_MULTIPLE or n < SMALLEST_SIDE for n in canvas):
            raise GraphError(
                f"a canvas of Grounding DINO has sides of at least {SMALLEST_SIDE} pixels that are multiples of "
                f"{CANVAS_MULTIPLE}, not {canvas[0]}x{canvas[1]}"
            )
        config = model.config
        if not (config.two_stage and config.embedding_init_target) or config.num_feature_levels != len(STRIDES):
            raise GraphError("only Grounding DINO with two stages, learned queries and four levels can be exported")
        cells = sum(height * width for height, width in levels(canvas))
        if cells < config.num_queries:
            raise GraphError(f"{canvas[0]}x{canvas[1]} has {cells} cells for {config.num_queries} queries: enlarge it")
        self.model = _exportable(model, precision)
        self.canvas, self.levels = canvas, levels(canvas)
        self.normalise = Normalise()
        self.swin = CanvasSwin(self.model.model.backbone.conv_encoder.model)
        self.register_buffer("special", torch.tensor([CLS, SEP, DOT, QUESTION]), persistent=False)
        # In float32, because the deformable attention divides by them.
        self.register_buffer("lengths", torch.tensor(self.levels, dtype=torch.float32), persistent=False)

    def forward(self, pixels: Tensor, sizes: Tensor, input_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the graph of the contract graphs.grounding_dino."""
        net = self.model.model
        size = sizes.float()
        image = inside(size, *self.canvas)[:, None]
        maps, seen, shown = self._maps(self.normalise(pixels) * image, size)
        text = self._text(input_ids)
        spots = [net.backbone.position_embedding(x, mask) for x, mask in zip(maps, shown, strict=True)]
        spots = [s + level[:, None, None] for s, level in zip(spots, net.level_embed, strict=True)]
        valid = torch.cat([mask.flatten(1) for mask in shown], 1)
        ratios = [size.flip(1).div(stride).ceil() / self.lengths[n].flip(0) for n, stride in enumerate(STRIDES)]
        common = {
            "spatial_shapes": self.lengths,
            "spatial_shapes_list": self.levels,
            "level_start_index": None,
            "valid_ratios": torch.stack(ratios, 1),
            "return_dict": True,
        }
        encoded = net.encoder(
            vision_features=_rows(maps),
            vision_attention_mask=~valid,
            vision_position_embedding=_rows(spots),
            text_features=text["features"],
            text_attention_mask=~text["tokens"],
            text_self_attention_masks=~text["together"],
            text_position_ids=text["positions"],
            **common,
        )
        vision, words = encoded.last_hidden_state_vision, encoded.last_hidden_state_text
        cells, start = self._choose(vision, words, text["tokens"], valid, torch.cat([m.flatten(1) for m in seen], 1))
        decoded = net.decoder(
            inputs_embeds=net.query_position_embeddings.weight[None].expand(len(pixels), -1, -1),
            vision_encoder_hidden_states=vision,
            vision_encoder_attention_mask=valid,
            text_encoder_hidden_states=words,
            text_encoder_attention_mask=~text["tokens"],
            reference_points=start,
            **common,
        )
        return *self._heads(decoded, start, words, text["tokens"]), cells

    def _maps(self, images: Tensor, size: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Return four maps (B, C, h, w) float32, zero beyond the seen cells, and two masks (B, h, w) bool of each map:
        the seen cells, and those of the image itself.
        """
        whole = size.clamp(min=SMALLEST_SIDE)
        seen = [inside(torch.ceil(whole / s), *n) for s, n in zip(STRIDES, self.levels, strict=True)]
        shown = [inside(torch.ceil(size / s), *n) for s, n in zip(STRIDES, self.levels, strict=True)]
        sources = self.swin(images, whole)
        # The coarsest level is a convolution over neighbours, which must be zero beyond the image.
        sources.append(sources[-1] * seen[2][:, None].to(sources[-1].dtype))
        projections = zip(self.model.model.input_proj_vision, sources, seen, strict=True)
        return [_group_norm(norm, conv(x), mask) for (conv, norm), x, mask in projections], seen, shown

    def _text(self, input_ids: Tensor) -> dict[str, Tensor]:
        """Return features of the prompt and the masks of its tokens.

        Equivalent to transformers' generate_masks_with_special_tokens_and_transfer_map, which uses cumulative maxima: a
        token belongs to the first special token at or after it, and tokens that belong to the same one attend to each
        other.

        Args:
            input_ids: (B, T) int64.

        Returns:
            features (B, T, C) float32; tokens (B, T) bool, False for padding; together (B, T, T) bool; positions
            (B, T) int64, within the phrase.
        """
        count = input_ids.shape[1]
        place = torch.arange(count, device=input_ids.device)
        tokens = input_ids != PAD
        special = (input_ids[:, :, None] == self.special).any(-1)[:, None, :]
        # Whole numbers in float32: engines support few operations on int64.
        number, beyond = place.float(), place.new_full((), count).float()
        before = place[None, :] < place[:, None]
        last = torch.where(special & before, number, -1.0).amax(2)
        following = torch.where(special & ~before, number, beyond).amin(2)
        within = (following != 0) & (following != beyond - 1) & (following != beyond)
        together = (following[:, :, None] == following[:, None, :]) & within[:, None, :]
        together = together | (place[:, None] == place[None, :])
        positions = torch.where(within, number - last - 1, 0.0).clamp(min=0).long()
        net = self.model.model
        kinds = torch.zeros_like(input_ids)
        states = net.text_backbone(input_ids, together[:, None], kinds, positions, return_dict=True).last_hidden_state
        features = net.text_projection(states)
        return {"features": features, "tokens": tokens, "together": together, "positions": positions}

    def _choose(
        self, vision: Tensor, words: Tensor, tokens: Tensor, valid: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the cells (B, Q) int64 where queries start, best first, and their initial boxes (B, Q, 4)."""
        net = self.model.model
        queries, proposals = net.generate_encoder_output_proposals(vision, ~valid, self.levels)
        score = _similarity(queries, words, tokens).amax(-1).masked_fill(~seen, float("-inf"))
        cells = score.topk(self.model.config.num_queries, dim=1).indices
        box = net.encoder_output_bbox_embed(queries) + proposals
        return cells, box.gather(1, cells[:, :, None].expand(-1, -1, 4)).sigmoid()

    def _heads(self, decoded: Any, start: Tensor, words: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and boxes of the decoder's last layer."""
        states, points = decoded.intermediate_hidden_states, decoded.intermediate_reference_points
        point = points[:, -2] if points.shape[1] > 1 else start
        box = self.model.bbox_embed[-1](states[:, -1]) + torch.special.logit(point, eps=1e-5)
        return _similarity(states[:, -1], words, tokens), box.sigmoid()


class DeformableAttention(nn.Module):
    """transformers' GroundingDinoMultiscaleDeformableAttention for known shapes.

    Args:
        original: its modules are shared.
    """

    def __init__(self, original: Any) -> None:
        super().__init__()
        self.heads, self.points, self.level_count = original.n_heads, original.n_points, original.n_levels
        self.offsets, self.weights = original.sampling_offsets, original.attention_weights
        self.value, self.output = original.value_proj, original.output_proj

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor,
        encoder_hidden_states: Tensor,
        position_embeddings: Tensor,
        reference_points: Tensor,
        spatial_shapes: Tensor,
        spatial_shapes_list: list[Size],
        **_: Any,
    ) -> tuple[Tensor, None]:
        """Compute the original's outputs; `spatial_shapes` is float32."""
        x = hidden_states + position_embeddings
        batch, queries, channels = x.shape
        value = self.value(encoder_hidden_states) * attention_mask[..., None].to(x.dtype)
        offsets = self.offsets(x).view(batch, queries, self.heads, self.level_count, self.points, 2)
        weights = self.weights(x).view(batch, queries, self.heads, -1).softmax(-1)
        points = reference_points[:, :, None, :, None, :2]
        if reference_points.shape[-1] == 2:
            grid = points + offsets / spatial_shapes.flip(1)[:, None, :]
        else:
            grid = points + offsets / self.points * reference_points[:, :, None, :, None, 2:] * 0.5
        grid = (2 * grid - 1).transpose(1, 2).flatten(0, 1)
        # (batch * heads, channels of a head, cells)
        value = value.transpose(1, 2).reshape(batch * self.heads, channels // self.heads, -1)
        sampled, first = [], 0
        for level, (height, width) in enumerate(spatial_shapes_list):
            plane = value[:, :, first : first + height * width].unflatten(2, (height, width))
            sampled.append(functional.grid_sample(plane, grid[:, :, level], align_corners=False))
            first += height * width
        rates = weights.transpose(1, 2).reshape(batch * self.heads, 1, queries, -1)
        mixed = (torch.cat(sampled, -1) * rates).sum(-1)
        return self.output(mixed.view(batch, channels, queries).transpose(1, 2)), None


class Rounded(nn.Module):
    """A layer that computes in half precision between float32 tensors.

    Args:
        layer: a linear layer or a convolution; it is copied.
        dtype: of its weights.
    """

    def __init__(self, layer: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.layer, self.dtype = copy.deepcopy(layer).to(dtype), dtype

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        y: Tensor = self.layer(x.to(self.dtype))
        return y.float()


def _exportable(model: Any, precision: Precision) -> Any:
    """Return a copy of the model with modules that can be exported; float32 parameters and buffers are shared."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    exportable = copy.deepcopy(model, shared).eval()
    if precision != "fp32":
        kept = float32_layers(exportable)
        for parent in list(exportable.modules()):
            for name, layer in parent.named_children():
                if isinstance(layer, (nn.Linear, nn.Conv2d)) and id(layer) not in kept:
                    setattr(parent, name, Rounded(layer, DTYPES[precision]))
    for layer in exportable.model.encoder.layers:
        layer.deformable_layer.self_attn = DeformableAttention(layer.deformable_layer.self_attn)
    for layer in exportable.model.decoder.layers:
        layer.encoder_attn = DeformableAttention(layer.encoder_attn)
    return exportable


def _group_norm(norm: nn.GroupNorm, x: Tensor, mask: Tensor) -> Tensor:
    """Apply a group norm to the cells (B, h, w) of the mask; all other cells are ignored and become zero."""
    here = mask[:, None, None].to(x.dtype)
    groups = x.unflatten(1, (norm.num_groups, -1))
    count = here.sum((2, 3, 4), keepdim=True) * groups.shape[2]
    centred = (groups - (groups * here).sum((2, 3, 4), keepdim=True) / count) * here
    spread = (centred * centred).sum((2, 3, 4), keepdim=True) / count
    scaled = (centred * torch.rsqrt(spread + norm.eps)).flatten(1, 2)
    return (scaled * norm.weight[:, None, None] + norm.bias[:, None, None]) * mask[:, None].to(x.dtype)


def _rows(maps: Sequence[Tensor]) -> Tensor:
    """Maps (B, C, h, w) -> (B, cells, C), row by row and level by level."""
    return torch.cat([x.flatten(2) for x in maps], 2).transpose(1, 2)


def _similarity(queries: Tensor, words: Tensor, tokens: Tensor) -> Tensor:
    """(B, Q, C) and (B, T, C) -> (B, Q, T) logits, -inf for padding."""
    return (queries @ words.transpose(1, 2)).masked_fill(~tokens[:, None], float("-inf"))
