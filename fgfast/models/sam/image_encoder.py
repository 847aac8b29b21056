"""SAM's image encoder: a ViT whose blocks attend within windows or over the whole image, and a neck.

The keys of the state dict are those of segment-anything. In half precision only the matrix products and their weights
are half; the residual stream, normalisation and softmax stay float32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from fgfast.errors import UnknownNameError
from fgfast.models.linear import linear, linear_parts
from fgfast.models.sam.architecture import CHANNELS, PATCH, WINDOW, Architecture
from fgfast.models.sam.attention import IMPLEMENTATIONS, attend, is_native, native

# segment-anything, build_sam.py (partial LayerNorm) and modeling/common.py (LayerNorm2d).
_EPS = 1e-6
# segment-anything, build_sam.py: mlp_ratio.
_MLP_RATIO = 4
# Tokens that the MLP, with its norm and its residual, processes at a time in float32 on the CPU. For all tokens its
# hidden layer would exceed 32 MiB, above which malloc requests fresh pages from the system every time; in pieces the
# MLP of ViT-B is 7 % faster.
_MLP_ROWS = 1024


class ImageEncoder(nn.Module):
    """Images to embeddings.

    Args:
        architecture: the sizes.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        width, grid = architecture.width, architecture.grid
        self.pos_embed = nn.Parameter(torch.zeros(1, grid, grid, width))
        self.patch_embed = PatchEmbed(width)
        self.blocks = nn.ModuleList(
            Block(width, architecture.heads, grid, window=None if n in architecture.global_blocks else WINDOW)
            for n in range(architecture.depth)
        )
        self.neck = nn.Sequential(
            nn.Conv2d(width, CHANNELS, 1, bias=False),
            LayerNorm2d(CHANNELS),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False),
            LayerNorm2d(CHANNELS),
        )

    def attend_by(self, implementation: str | None) -> None:
        """Have all blocks attend by one implementation, for comparisons.

        Args:
            implementation: one of fgfast.models.sam.attention.IMPLEMENTATIONS; None chooses the fastest, as from the
                beginning.

        Raises:
            UnknownNameError: there is no such implementation.
        """
        if implementation is not None and implementation not in IMPLEMENTATIONS:
            raise UnknownNameError("attention", implementation, IMPLEMENTATIONS)
        for block in self.blocks:
            block.attn.implementation = implementation

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, side, side) float32, normalised and padded -> (B, 256, side / 16, side / 16) float32."""
        x = self.patch_embed(pixels) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        first, norm, second, last_norm = self.neck
        # Channels are innermost throughout: the permuted view is in the convolutions' channels_last format.
        x = first(x.permute(0, 3, 1, 2).to(first.weight.dtype))
        x = second(norm(x.float()).to(second.weight.dtype))
        return last_norm(x.float())


class PatchEmbed(nn.Module):
    """16x16 pixels to one token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, stride=PATCH)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, side, side) float32 -> (B, grid, grid, width) float32."""
        tokens: Tensor = self.proj(pixels.to(self.proj.weight.dtype))
        return tokens.permute(0, 2, 3, 1).contiguous().float()


class Block(nn.Module):
    """One pre-norm transformer block.

    Args:
        width: channels.
        heads: attention heads.
        grid: side of the square of tokens.
        window: side of the windows attention is confined to; None for attention over all tokens.
    """

    def __init__(self, width: int, heads: int, grid: int, window: int | None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_EPS)
        self.attn = Attention(width, heads, grid) if window is None else WindowAttention(width, heads, grid, window)
        self.norm2 = nn.LayerNorm(width, eps=_EPS)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, grid, grid, width) float32 -> the same."""
        tokens = x.flatten(1, 2)
        tokens = tokens + self.attn(self.norm1(tokens))
        full = self.mlp.lin1.weight.dtype == torch.float32 and x.device.type == "cpu"
        if full and not torch.compiler.is_compiling():
            for rows in tokens.flatten(0, 1).split(_MLP_ROWS):
                rows += self.mlp(self.norm2(rows))
        else:
            tokens = tokens + self.mlp(self.norm2(tokens))
        return tokens.view_as(x)


class Mlp(nn.Module):
    """Linear, GELU (exact), Linear."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(width, _MLP_RATIO * width)
        self.lin2 = nn.Linear(_MLP_RATIO * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) float32 -> the same of the weights' dtype."""
        return linear(linear(x, self.lin1, gelu=True), self.lin2)


class Attention(nn.Module):
    """Attention over all tokens of a square, with decomposed relative positions.

    Args:
        width: channels.
        heads: attention heads.
        side: side of the square within which tokens attend to each other.
    """

    def __init__(self, width: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads = heads
        self.implementation: str | None = None
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, width // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, width // heads))
        # (windows, N) int64: the token at each place of each window; here one window of all tokens. On the CPU even
        # where the parameters are on the meta device (Sam.build), because it is not loaded from a file.
        self.register_buffer("token_at", torch.arange(side * side, device="cpu")[None], persistent=False)
        self.token_at: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) float32 -> the same of the weights' dtype."""
        if self.implementation is None and is_native(x, self.qkv.weight, self.rel_pos_h.shape[1]):
            q, k, v = (part.unflatten(2, (self.heads, -1)) for part in linear_parts(x, self.qkv, 3))
            tables = self.rel_pos_h, self.rel_pos_w
            mixed = native(q, k, v, tables, self.token_at, self.qkv.bias).flatten(2)
        else:
            mixed = self.by_torch(x)
        return linear(mixed, self.proj)

    def by_torch(self, x: Tensor) -> Tensor:
        """Return the input of `proj`: (B, N, width) float32 -> the same of the weights' dtype."""
        return self.mix(*linear_parts(x, self.qkv, 3))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend: (G, N, width) each, N a square number -> (G, N, width)."""
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        mixed = attend(q, k, v, self.rel_pos_h, self.rel_pos_w, self.implementation)
        return mixed.transpose(1, 2).flatten(2)


class WindowAttention(Attention):
    """Attention within windows; those at the right and bottom edge are filled with padding tokens.

    A padding token is zero before `qkv`, so its query, key and value are the bias. In PyTorch's attention, one zero
    token is projected, and every padding place uses its result.

    Args:
        width: channels.
        heads: attention heads.
        grid: side of the square of all tokens.
        window: side of a window.
    """

    def __init__(self, width: int, heads: int, grid: int, window: int) -> None:
        super().__init__(width, heads, window)
        self.window = window
        padded = math.ceil(grid / window) * window
        places = torch.full((padded, padded), grid * grid, device="cpu")
        places[:grid, :grid] = torch.arange(grid * grid, device="cpu").view(grid, grid)
        across = padded // window
        places = places.view(across, window, across, window).transpose(1, 2).reshape(-1, window * window)
        # grid * grid stands for padding.
        self.token_at = places
        # (grid * grid,) int64, the inverse: the place of each token.
        self.register_buffer("place_of", torch.argsort(places.flatten())[: grid * grid], persistent=False)
        self.place_of: Tensor

    def by_torch(self, x: Tensor) -> Tensor:
        """Return the input of `proj`; see Attention.by_torch."""
        tokens = functional.pad(x.to(self.qkv.weight.dtype), (0, 0, 0, 1))
        mixed = self.mix(*(self._windows(part) for part in linear_parts(tokens, self.qkv, 3)))
        return _take(mixed.unflatten(0, (x.shape[0], -1)).flatten(1, 2), self.place_of)

    def _windows(self, tokens: Tensor) -> Tensor:
        """(B, grid * grid + 1, width), the last for padding -> (B * windows, N, width)."""
        windows: Tensor = _take(tokens, self.token_at.flatten()).unflatten(1, (-1, self.window**2))
        return windows.flatten(0, 1)


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of each pixel: (B, C, h, w) -> the same, float32, channels innermost in memory."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _take(rows: Tensor, index: Tensor) -> Tensor:
    """Return rows[:, index]: (B, R, C), (K,) int64 -> (B, K, C). An embedding is twice as fast as indexing on CPUs."""
    batch, count, _ = rows.shape
    offsets = torch.arange(batch, device=index.device)[:, None] * count
    return functional.embedding(index + offsets, rows.flatten(0, 1))
