"""SAM's image encoder in the form with the fewest ONNX operators; its results are those of ImageEncoder.

* Tokens stay in rows, so that every linear layer is one Gemm with the checkpoint's own weight.
* Windows are one Gather of rows, with the bias of `qkv` appended as the row of all padding places.
* Attention is one Attention. In half precision the relative positions are folded into longer heads (attention.py),
  because fused kernels on GPUs then need no bias of heads x tokens x tokens. In float32, which is for CPUs, they are
  the mask of a few heads at a time: heads that are three times as long take three times the arithmetic there, and such
  engines write the scores to memory anyway. Which table row belongs to which pair of tokens is resolved here, once,
  into constants.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from fgfast.models.sam.architecture import CHANNELS
from fgfast.models.sam.attention import one_hot_positions
from fgfast.models.sam.image_encoder import Attention, Block, ImageEncoder, WindowAttention

# Heads whose mask is made at a time where all tokens attend to each other: of all 12 of ViT-B it would take 800 MB.
_HEADS = 4
# Fused attention kernels want head sizes that are multiples of 8; in PyTorch heads are padded to 32 as well.
_ALIGN = 32


class ExportedEncoder(nn.Module):
    """Images to embeddings.

    Args:
        encoder: its weights are shared, not copied.
    """

    def __init__(self, encoder: ImageEncoder) -> None:
        super().__init__()
        self.patches, self.pos_embed, self.neck = encoder.patch_embed.proj, encoder.pos_embed, encoder.neck
        self.grid = encoder.pos_embed.shape[1]
        self.blocks = nn.ModuleList(_Block(block, self.grid**2) for block in encoder.blocks)
        # The columns appended to the keys, the same for all blocks with windows and for all without.
        for block in self.blocks:
            if block.folds and not hasattr(self, block.columns):
                like = block.qkv.weight
                columns = one_hot_positions(block.side, block.padding, like).view(1, 1, block.side**2, -1)
                self.register_buffer(block.columns, columns, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, side, side) float32, normalised and padded -> (B, 256, side / 16, side / 16) float32."""
        tokens = self.patches(pixels.to(self.patches.weight.dtype)).permute(0, 2, 3, 1).float()
        rows = (tokens + self.pos_embed).flatten(0, 2)
        for block in self.blocks:
            rows = block(rows, getattr(self, block.columns, None))
        first, norm, second, last_norm = self.neck
        # A convolution of 1x1 is a product on rows, and its norm one on their last axis.
        rows = functional.linear(rows.to(first.weight.dtype), first.weight.flatten(1)).float()
        rows = functional.layer_norm(rows, (CHANNELS,), norm.weight, norm.bias, norm.eps)
        square = rows.unflatten(0, (-1, self.grid, self.grid)).permute(0, 3, 1, 2)
        return last_norm(second(square.to(second.weight.dtype)).float())


class _Block(nn.Module):
    """One block on rows.

    Args:
        block: its weights are shared.
        tokens: per image.
    """

    def __init__(self, block: Block, tokens: int) -> None:
        super().__init__()
        attention: Attention = block.attn
        self.norm1, self.norm2, self.mlp = block.norm1, block.norm2, block.mlp
        self.qkv, self.proj = attention.qkv, attention.proj
        self.tokens, self.heads = tokens, attention.heads
        self.windows = isinstance(attention, WindowAttention)
        if self.windows:
            self.register_buffer("token_at", attention.token_at.flatten(), persistent=False)
            self.register_buffer("place_of", attention.place_of, persistent=False)
        offsets, self.size = attention.rel_pos_h.shape
        self.side = (offsets + 1) // 2
        self.folds = self.qkv.weight.dtype != torch.float32
        self.padding = -(self.size + 2 * self.side) % _ALIGN if self.folds else 0
        self.columns = f"columns{self.side}"
        by_row, by_column = (self._table(t) for t in (attention.rel_pos_h, attention.rel_pos_w))
        self.register_buffer("by_row", by_row, persistent=False)
        # The heads are padded by columns of zeros in this table.
        self.register_buffer("by_column", functional.pad(by_column, (0, self.padding)), persistent=False)

    def _table(self, rel_pos: Tensor) -> Tensor:
        """(2S - 1, D) float32 -> (S, D, S) of the weights' dtype: per query row, the vector of each key row.

        Multiplied by sqrt(D) where it is folded, because attention divides by it.
        """
        at, gain = torch.arange(self.side), math.sqrt(self.size) if self.folds else 1
        rows = rel_pos.detach()[at[:, None] - at + self.side - 1] * gain
        return rows.transpose(1, 2).to(self.qkv.weight.dtype).contiguous()

    def forward(self, rows: Tensor, columns: Tensor | None) -> Tensor:
        """(B * tokens, width) float32 -> the same; columns (1, 1, N, 2S + padding), where it folds, join the keys."""
        half = self.qkv.weight.dtype
        mixed = self._mix(self.qkv(self.norm1(rows).to(half)), columns)
        rows = rows + self.proj(mixed).float()
        hidden = functional.gelu(self.mlp.lin1(self.norm2(rows).to(half)))
        return rows + self.mlp.lin2(hidden).float()

    def _mix(self, qkv: Tensor, columns: Tensor | None) -> Tensor:
        """Attend: (B * tokens, 3 * width) -> (B * tokens, width)."""
        count, size = self.side**2, self.size
        if self.windows:
            qkv = qkv.unflatten(0, (-1, self.tokens))
            # The output of `qkv` for a padding token, which is zero.
            padding = self.qkv.bias.expand(qkv.shape[0], 1, -1)
            qkv = torch.cat([qkv, padding], 1).index_select(1, self.token_at)
        parts = qkv.reshape(-1, count, 3, self.heads, size).permute(2, 0, 3, 1, 4)
        q, k, v = parts[0], parts[1], parts[2]
        squares = q.unflatten(2, (self.side, self.side))
        rows_bias = squares @ self.by_row
        columns_bias = (squares.transpose(2, 3) @ self.by_column).transpose(2, 3)
        if columns is None:
            mixed = self._masked(q, k, v, rows_bias, columns_bias)
        else:
            long_q = torch.cat([squares, rows_bias, columns_bias], -1).flatten(2, 3)
            long_k = torch.cat([k, columns.expand(k.shape[0], self.heads, -1, -1)], -1)
            long_v = functional.pad(v, (0, columns.shape[-1]))
            mixed = functional.scaled_dot_product_attention(long_q, long_k, long_v, scale=1 / math.sqrt(size))
        mixed = mixed[..., :size].transpose(1, 2)
        if not self.windows:
            return mixed.reshape(-1, self.heads * size)
        places = self.token_at.shape[0]
        return mixed.reshape(-1, places, self.heads * size).index_select(1, self.place_of).flatten(0, 1)

    def _masked(self, q: Tensor, k: Tensor, v: Tensor, rows_bias: Tensor, columns_bias: Tensor) -> Tensor:
        """Attend with the biases (G, H, S, S, S) as a mask: q, k and v (G, H, N, D) -> the same."""
        step = self.heads if self.windows else _HEADS
        pieces = (x.split(step, 1) for x in (q, k, v, rows_bias, columns_bias))
        mixed = [_masked(*piece) for piece in zip(*pieces, strict=True)]
        return torch.cat(mixed, 1) if len(mixed) > 1 else mixed[0]


def _masked(q: Tensor, k: Tensor, v: Tensor, rows_bias: Tensor, columns_bias: Tensor) -> Tensor:
    mask = (rows_bias[..., :, None] + columns_bias[..., None, :]).flatten(4).flatten(2, 3)
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
