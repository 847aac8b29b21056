"""SAM's mask decoder: tokens and image attend to each other twice, then each mask token becomes a map of logits.

Takes (image, box) pairs: several boxes may share an embedding, and whatever depends on the image alone is computed once
per image, not per box. Always float32: it is a four-hundredth of the encoder's arithmetic.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from fgfast.models.sam.architecture import CHANNELS, MASK_TOKENS

# segment-anything, build_sam.py (TwoWayTransformer) and transformer.py (attention_downsample_rate).
_DEPTH = 2
_HEADS = 8
_MLP_WIDTH = 2048
_CROSS_WIDTH = CHANNELS // 2
# Two transposed convolutions of stride 2: logits per image token along one edge.
_FINER = 4
# segment-anything, modeling/common.py: LayerNorm2d; the other norms have torch's own 1e-5.
_UPSCALING_EPS = 1e-6


class MaskDecoder(nn.Module):
    """(image, box) pairs to logits and qualities."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer()
        self.iou_token = nn.Embedding(1, CHANNELS)
        self.mask_tokens = nn.Embedding(MASK_TOKENS, CHANNELS)
        self.output_upscaling = nn.Sequential(
            Upscale(CHANNELS, CHANNELS // 4),
            nn.LayerNorm(CHANNELS // 4, eps=_UPSCALING_EPS),
            nn.GELU(),
            Upscale(CHANNELS // 4, CHANNELS // 8),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(Perceptron(CHANNELS, CHANNELS // 8) for _ in range(MASK_TOKENS))
        self.iou_prediction_head = Perceptron(CHANNELS, MASK_TOKENS)

    def forward(
        self,
        embeddings: Tensor,
        image_index: Tensor,
        box_tokens: Tensor,
        image_positions: Tensor,
        no_mask: Tensor,
        multimask: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Decode N pairs.

        Args:
            embeddings: (E, 256, g, g) float32, one per image.
            image_index: (N,) int64, the embedding of each box.
            box_tokens: (N, 2, 256) float32, from the prompt encoder.
            image_positions: (g * g, 256) float32, the prompt encoder's dense_pe.
            no_mask: (256,) float32, the prompt encoder's no_mask.
            multimask: return three maps per box (whole, part, subpart) instead of one.

        Returns:
            Logits (N, M, 4g, 4g) float32, and estimated IoU (N, M) float32; M is 3 with multimask, else 1.
        """
        image = embeddings.flatten(2).transpose(1, 2) + no_mask
        chosen = range(1, MASK_TOKENS) if multimask else range(1)
        return self.decode(image, image_index, box_tokens, image_positions, embeddings.shape[-1], chosen)

    def decode(
        self,
        image: Tensor,
        image_index: Tensor | None,
        prompt_tokens: Tensor,
        image_positions: Tensor,
        grid: int,
        chosen: range,
    ) -> tuple[Tensor, Tensor]:
        """Decode N prompts.

        Args:
            image: (E, g * g, 256) float32, image tokens with the embedding of the mask prompt, or of none, added.
            image_index: (N,) int64, the image of each prompt; None where each has its own, in order.
            prompt_tokens: (N, T, 256) float32, from the prompt encoder.
            image_positions: (g * g, 256) float32, the prompt encoder's dense_pe.
            grid: g.
            chosen: the maps to return, of 0 to 3.

        Returns:
            Logits (N, M, 4g, 4g) float32, and estimated IoU (N, M) float32.
        """
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(prompt_tokens.shape[0], -1, -1), prompt_tokens], 1)
        tokens, image = self.transformer(tokens, image, image_positions, image_index)

        maps = self.output_upscaling(image).flatten(1, 3)
        mixes = torch.stack([self.output_hypernetworks_mlps[n](tokens[:, 1 + n]) for n in chosen], 1)
        logits = in_rows(mixes @ maps.transpose(1, 2), grid)
        iou: Tensor = self.iou_prediction_head(tokens[:, 0])
        return logits, iou[:, chosen.start : chosen.stop]


class Upscale(nn.ConvTranspose2d):
    """A transposed convolution of 2x2 with stride 2, as one matrix product on innermost channels.

    Its windows do not overlap: every pixel becomes a 2x2 square independently. The squares stay where their pixels are,
    on an axis of their own, until there are logits, which have a thirty-second of the channels to move (`in_rows`).
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """(N, ..., inputs) float32 -> (N, ..., 4, outputs), each square row by row."""
        assert self.bias is not None
        weight = self.weight.permute(2, 3, 1, 0).flatten(0, 2)
        squares: Tensor = functional.linear(x, weight, torch.cat([self.bias] * 4))
        return squares.unflatten(-1, (4, -1))


def in_rows(logits: Tensor, grid: int) -> Tensor:
    """Arrange logits as an image: (N, M, g * g * 4 * 4), squares in squares of pixels, -> (N, M, 4g, 4g)."""
    maps = logits.flatten(0, 1)
    for side, rest in ((grid, 4), (2 * grid, 1)):
        squares = maps.view(-1, side, side, 2, 2, rest).transpose(2, 3)
        maps = squares.reshape(-1, 2 * side, 2 * side, rest)
    return maps.view(-1, logits.shape[1], _FINER * grid, _FINER * grid)


class TwoWayTransformer(nn.Module):
    """Tokens attend to the image and the image to the tokens, twice; then tokens to the image once more."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(first=n == 0) for n in range(_DEPTH))
        self.final_attn_token_to_image = Attention(_CROSS_WIDTH)
        self.norm_final_attn = nn.LayerNorm(CHANNELS)

    def forward(
        self, tokens: Tensor, image: Tensor, image_positions: Tensor, image_index: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Mix tokens and image.

        Args:
            tokens: (N, T, 256) float32; the original tokens serve as positions of the tokens throughout.
            image: (E, P, 256) float32, P pixels of the embedding.
            image_positions: (P, 256) float32.
            image_index: (N,) int64 into E; None where E is N.

        Returns:
            Tokens (N, T, 256) and image (N, P, 256), float32.
        """
        positions = tokens
        first, *others = self.layers
        tokens, image = first(tokens, image, positions, image_positions, image_index)
        for block in others:
            tokens, image = block(tokens, image, positions, image_positions)
        to_image = self.final_attn_token_to_image
        q, k, v = to_image.q_proj(tokens + positions), to_image.k_proj(image + image_positions), to_image.v_proj(image)
        return self.norm_final_attn(tokens + to_image(q, k, v)), image


class TwoWayBlock(nn.Module):
    """Tokens to tokens, tokens to image, MLP on the tokens, image to tokens; each followed by a norm.

    Args:
        first: the first block, whose self-attention has neither positions nor a residual.
    """

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention(CHANNELS)
        self.norm1 = nn.LayerNorm(CHANNELS)
        self.cross_attn_token_to_image = Attention(_CROSS_WIDTH)
        self.norm2 = nn.LayerNorm(CHANNELS)
        self.mlp = Mlp()
        self.norm3 = nn.LayerNorm(CHANNELS)
        self.norm4 = nn.LayerNorm(CHANNELS)
        self.cross_attn_image_to_token = Attention(_CROSS_WIDTH)

    def forward(
        self,
        tokens: Tensor,
        image: Tensor,
        positions: Tensor,
        image_positions: Tensor,
        image_index: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Same as TwoWayTransformer.forward; positions is (N, T, 256), and without image_index image is (N, P, 256)."""
        to_image, to_tokens = self.cross_attn_token_to_image, self.cross_attn_image_to_token
        located = image + image_positions
        image_k, image_v, image_q = to_image.k_proj(located), to_image.v_proj(image), to_tokens.q_proj(located)
        if image_index is not None:
            image, image_k, image_v, image_q = (
                x.index_select(0, image_index) for x in (image, image_k, image_v, image_q)
            )

        tokens = self.norm1(self._self_attend(tokens, positions))
        tokens = self.norm2(tokens + to_image(to_image.q_proj(tokens + positions), image_k, image_v))
        tokens = self.norm3(tokens + self.mlp(tokens))
        token_k, token_v = to_tokens.k_proj(tokens + positions), to_tokens.v_proj(tokens)
        return tokens, self.norm4(image + to_tokens(image_q, token_k, token_v))

    def _self_attend(self, tokens: Tensor, positions: Tensor) -> Tensor:
        attention = self.self_attn
        located = tokens if self.first else tokens + positions
        mixed: Tensor = attention(attention.q_proj(located), attention.k_proj(located), attention.v_proj(tokens))
        return mixed if self.first else tokens + mixed


class Attention(nn.Module):
    """Multi-head attention whose callers compute the projections, so that shared inputs are projected once.

    Args:
        width: channels within the attention; the heads split them.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(CHANNELS, width)
        self.k_proj = nn.Linear(CHANNELS, width)
        self.v_proj = nn.Linear(CHANNELS, width)
        self.out_proj = nn.Linear(width, CHANNELS)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Projected q (N, Q, width), k and v (N, K, width), all float32 -> (N, Q, 256) float32."""
        q, k, v = (x.unflatten(2, (_HEADS, -1)).transpose(1, 2) for x in (q, k, v))
        return self.out_proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Linear, ReLU, Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.lin1 = nn.Linear(CHANNELS, _MLP_WIDTH)
        self.lin2 = nn.Linear(_MLP_WIDTH, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, 256) float32 -> the same."""
        return self.lin2(functional.relu(self.lin1(x)))


class Perceptron(nn.Module):
    """Three linear layers with ReLU between them.

    Args:
        inputs: channels in and within.
        outputs: channels out.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(inputs, inputs), nn.Linear(inputs, inputs), nn.Linear(inputs, outputs)])

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs) float32 -> (N, outputs)."""
        first, second, last = self.layers
        return last(functional.relu(second(functional.relu(first(x)))))
