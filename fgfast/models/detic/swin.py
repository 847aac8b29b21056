"""Swin Transformer, the backbone. The residual stream is float32 in every precision; only matrix products are not."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn
from torch.nn import functional

from fgfast.errors import GraphError
from fgfast.models.detic.canvas import halved
from fgfast.models.detic.config import HEAD_CHANNELS, NORM_EPS, PATCH, WINDOW, DeticConfig
from fgfast.models.detic.grid import WindowGrid
from fgfast.models.detic.window_attention import is_native, native
from fgfast.models.detic.windows import SLOTS, RecentPlans, WindowPlan, apart, kind_masks, relative_index, summed
from fgfast.models.linear import linear
from fgfast.models.serving.pixels import inside
from fgfast.records import Size

# Rows that pass a block together on a CPU, so that values between the matrix products stay in the cache. Of 512 to
# 8192 the best in float32 and near the best in bfloat16, for the MLP of stage 0 on two cores of a Xeon with AMX; the
# whole map together takes 1.7 (float32) to 2.4 (bfloat16) times as long.
ROWS_AT_ONCE = 2048

# The tokens' places in windows, and the limits that masking adds: (filled, regions) or (filled, mask).
Windows = WindowPlan | WindowGrid
Limits = tuple[Tensor, Tensor | None]


class Attention(nn.Module):
    """Self-attention within windows, with a learned bias per offset of two tokens.

    Args:
        channels: of the tokens.
        shift: of the windows, 0 or 3; determines the masks.
    """

    relative_position_index: Tensor
    kind_masks: Tensor
    frozen_bias: Tensor | None

    def __init__(self, channels: int, shift: int) -> None:
        super().__init__()
        self.heads = channels // HEAD_CHANNELS
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * WINDOW - 1) ** 2, self.heads))
        self.register_buffer("relative_position_index", relative_index())
        self.register_buffer("kind_masks", kind_masks(shift), persistent=False)
        self.register_buffer("frozen_bias", None, persistent=False)

    def biases(self) -> Tensor:
        """(4, heads, 49, 49) float32: position bias plus mask of each kind of window."""
        return self.position_bias() + self.kind_masks[:, None]

    def position_bias(self) -> Tensor:
        """(1, heads, 49, 49) float32, read from the table; or `frozen_bias`, which graphs contain instead."""
        if self.frozen_bias is not None:
            return self.frozen_bias
        index = self.relative_position_index.reshape(-1)
        return self.relative_position_bias_table[index].view(SLOTS, SLOTS, self.heads).permute(2, 0, 1)[None]

    def forward(self, x: Tensor, bias: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend, without the last projection.

        Args:
            x: (n * 49, C), slots of n windows, in the precision of the weights.
            bias: (1, heads, 49, 49) float32, added to the logits.
            mask: (n, 1, 49, 49) float32, added to the logits as well, or None.

        Returns:
            (n * 49, C), as x.
        """
        qkv = linear(x, self.qkv).view(-1, SLOTS, 3, self.heads, HEAD_CHANNELS)
        if is_native(qkv):
            return native(qkv, bias, mask).view(x.shape)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=summed(bias, mask, q.dtype))
        return out.transpose(1, 2).reshape(x.shape)


class Mlp(nn.Module):
    """Two linear layers with the exact GELU between them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(n, C) -> (n, C)."""
        return linear(linear(x, self.fc1, gelu=True), self.fc2)


class Block(nn.Module):
    """Window attention and MLP, each after a norm and around a residual."""

    def __init__(self, channels: int, shift: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, NORM_EPS)
        self.attn = Attention(channels, shift)
        self.norm2 = nn.LayerNorm(channels, NORM_EPS)
        self.mlp = Mlp(channels)

    def forward(self, x: Tensor, plan: Windows, limits: Limits | None) -> Tensor:
        """Compute one block.

        Args:
            x: (B, H * W, C) float32.
            plan: the windows of these maps, with this block's shift.
            limits: plan.limits(valid), or None without masking.

        Returns:
            (B, H * W, C) float32.
        """
        if isinstance(plan, WindowGrid):
            return self._whole(x, plan, limits)
        dtype = self.attn.qkv.weight.dtype
        at_once = ROWS_AT_ONCE if x.is_cpu and not torch.compiler.is_compiling() else None
        rows = x.flatten(0, 1)
        biases = self.attn.biases()
        filled, region = limits or (plan.filled, None)
        windows = []
        for start, end, kind in plan.parts(at_once):
            slots = slice(start * SLOTS, end * SLOTS)
            part = self.norm1(rows.index_select(0, plan.token[slots])) * filled[slots]
            bias, mask = biases[kind : kind + 1], None
            if region is not None and plan.shift:
                bias, mask = biases[:1], apart(region[start:end])[:, None]
            windows.append(self.attn(part.to(dtype), bias, mask))
        attended = _join(windows)
        done = []
        for start in range(0, len(rows), at_once or len(rows)):
            part = slice(start, start + (at_once or len(rows)))
            y = rows[part] + linear(attended.index_select(0, plan.slot[part]), self.attn.proj)
            done.append(y + self.mlp(self.norm2(y).to(dtype)))
        return _join(done).view(x.shape)

    def _whole(self, x: Tensor, grid: WindowGrid, limits: Limits | None) -> Tensor:
        """Compute the block on whole maps."""
        dtype, batch = self.attn.qkv.weight.dtype, len(x)
        normed, mask = self.norm1(x), None
        if limits is not None:
            normed, mask = normed * limits[0].to(normed.dtype), limits[1]
        elif grid.shift:
            mask = grid.mask(None).repeat(batch, 1, 1, 1)
        attended = self.attn(grid.split(normed.to(dtype)), self.attn.position_bias(), mask)
        # In rows, each linear layer is one product in a graph.
        rows = x.flatten(0, 1) + self.attn.proj(grid.join(attended, batch)).float()
        return (rows + self.mlp(self.norm2(rows).to(dtype)).float()).view(x.shape)


class PatchMerging(nn.Module):
    """Each 2x2 cell of tokens becomes one token of twice the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels, NORM_EPS)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """(B, H * W, C) -> (B, H / 2 * W / 2, 2 C), float32; a cell's tokens in the order (0,0) (1,0) (0,1) (1,1)."""
        batch, _, channels = x.shape
        cells = x.view(batch, height // 2, 2, width // 2, 2, channels).permute(0, 1, 3, 4, 2, 5)
        merged = self.norm(cells.reshape(-1, 4 * channels)).to(self.reduction.weight.dtype)
        return self.reduction(merged).float().view(batch, -1, 2 * channels)


class Stage(nn.Module):
    """Blocks of one resolution, and the merging that leads to the next."""

    def __init__(self, channels: int, depth: int, last: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(channels, WINDOW // 2 * (n % 2)) for n in range(depth))
        self.downsample = None if last else PatchMerging(channels)

    def forward(self, x: Tensor, plans: tuple[Windows, Windows], limits: list[Limits] | None) -> Tensor:
        """(B, H * W, C) -> (B, H * W, C), float32; plans and limits without shift and with it."""
        for n, block in enumerate(self.blocks):
            x = block(x, plans[n % 2], limits and limits[n % 2])
        return x


class PatchEmbed(nn.Module):
    """4x4 pixels become one token."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, PATCH, PATCH)
        self.norm = nn.LayerNorm(channels, NORM_EPS)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float32, normalised -> (B, H / 4, W / 4, C) float32."""
        patches = self.proj(images.to(self.proj.weight.dtype))
        return self.norm(patches.permute(0, 2, 3, 1).float())


class Swin(nn.Module):
    """The backbone: swin1, swin2, swin3 at strides 8, 16, 32.

    Attributes:
        as_grid: windows by reshaping (grid.py) instead of by tables of indices (windows.py).
        plans: windows of the shapes that are kept with the model, see `keep`.
        recent: windows of other shapes, of a bounded size.
    """

    def __init__(self, config: DeticConfig) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(config.channels)
        self.layers = nn.ModuleList(
            Stage(channels, depth, last=n == 3)
            for n, (channels, depth) in enumerate(zip(config.stage_channels, config.depths, strict=True))
        )
        for n in (1, 2, 3):
            self.add_module(f"norm{n}", nn.LayerNorm(config.stage_channels[n], NORM_EPS))
        self.plans, self.recent = nn.ModuleDict(), RecentPlans[Windows]()
        self._kept: Counter[tuple[int, Size]] = Counter()
        self.as_grid = False

    def keep(self, batch: int, canvas: Size) -> None:
        """Keep the windows of a batch on a canvas with the model until `drop`: for graphs that contain their addresses.

        A recorded CUDA graph reads them at every replay; traced and compiled ones take them for constants.
        """
        self._kept[batch, canvas] += 1
        device = self.get_parameter("patch_embed.norm.weight").device
        for key, shape in self._kept_shapes(batch, canvas).items():
            if key not in self.plans:
                self.plans[key] = self._made(*shape).to(device)

    def drop(self, batch: int, canvas: Size) -> None:
        """Take back one `keep`; windows that no other one keeps are freed."""
        self._kept[batch, canvas] -= 1
        self._kept = +self._kept
        needed = {key for kept in self._kept for key in self._kept_shapes(*kept)}
        for key in self.plans.keys() & self._kept_shapes(batch, canvas).keys() - needed:
            del self.plans[key]

    def _kept_shapes(self, batch: int, canvas: Size) -> dict[str, tuple[int, int, int, int]]:
        """Return batch, height, width and shift of all windows of a canvas, by key."""
        cells = [PATCH * 2**n for n in range(len(self.layers))]
        shapes = [(batch, canvas[0] // c, canvas[1] // c, shift) for c in cells for shift in (0, WINDOW // 2)]
        return {self._key(*shape): shape for shape in shapes}

    def _key(self, batch: int, height: int, width: int, shift: int) -> str:
        return f"{batch}x{height}x{width}+{shift}{'grid' * self.as_grid}"

    def _made(self, batch: int, height: int, width: int, shift: int) -> Windows:
        return WindowGrid(height, width, shift) if self.as_grid else WindowPlan(batch, height, width, shift)

    def plan(self, batch: int, height: int, width: int, shift: int) -> Windows:
        """Return the windows of maps of this size: those kept with the model, or else those made lately."""
        key = self._key(batch, height, width, shift)
        if key in self.plans:
            kept: Windows = self.plans[key]  # type: ignore[assignment]
            return kept
        device = self.get_parameter("patch_embed.norm.weight").device
        stream = 0
        if device.type == "cuda":
            stream = torch.cuda.current_stream(device).cuda_stream
            if torch.cuda.is_current_stream_capturing():
                raise GraphError(f"the windows {key} are recorded, and must be kept before: call Swin.keep")
        return self.recent.get((key, device, stream), lambda: self._made(batch, height, width, shift).to(device))

    def forward(self, images: Tensor, valid: Tensor | None) -> list[Tensor]:
        """Return the three maps from which the pyramid is made.

        Args:
            images: (B, 3, H, W) float32, normalised; H and W multiples of 32.
            valid: (B, 2) int64, pixels, or None; see canvas.py.

        Returns:
            (B, C, H / s, W / s) float32 for s = 8, 16, 32, normed, channels last in memory.
        """
        tokens = self.patch_embed(images)
        batch, height, width, _ = tokens.shape
        x = tokens.flatten(1, 2)
        valid = None if valid is None else valid // PATCH
        outputs = []
        for n, stage in enumerate(self.layers):
            plans = self.plan(batch, height, width, 0), self.plan(batch, height, width, WINDOW // 2)
            x = stage(x, plans, None if valid is None else [plan.limits(valid) for plan in plans])
            if n:
                normed = self.get_submodule(f"norm{n}")(x)
                outputs.append(normed.view(batch, height, width, -1).permute(0, 3, 1, 2))
            if stage.downsample is not None:
                if valid is not None:
                    x = x * inside(valid, height, width).flatten(1)[:, :, None].to(x.dtype)
                x = stage.downsample(x, height, width)
                height, width, valid = height // 2, width // 2, halved(valid)
        return outputs


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
