"""The places of tokens in shifted windows: one gather replaces padding, rolling and partitioning.

A map of height x width tokens is padded to whole windows, rolled by `shift` and cut into windows. In rolled maps,
tokens from opposite edges of the image share the windows of the last row and column; they are divided into regions, and
those of different regions do not attend to each other. There are only four kinds of window (inner, last column, last
row, both), and their masks do not depend on the map. The plan lists the windows kind by kind, so that each kind is one
attention with one mask.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from fgfast.models.detic.config import WINDOW

# The reference's value: it vanishes in the softmax and is safe in half precision.
APART = -100.0
SLOTS = WINDOW * WINDOW
KINDS = 4

# PyTorch's memory-efficient attention copies a mask on every call unless its strides are multiples of this
# (aten/src/ATen/native/transformers/attention.cpp, preprocess_mask).
_MASK_STRIDE = 8

# The most bytes of the plans that are kept of images computed lately. A canvas of 800 x 1344 has 9.4 MB per image of a
# batch, so this is 27 canvases of one image, or 7 of four. Making those plans anew takes as long as it takes to upload
# them: some 10 ms an image.
PLAN_BYTES = 256 << 20


class WindowPlan(nn.Module):
    """The windows of a batch of maps of one size. Rows of tokens are counted over the batch: image * H * W + token.

    Buffers, with n the windows of the whole batch and 49 slots in each:
        token: (n * 49,) int64, row of the token in each slot; 0 in slots of the padding.
        filled: (n * 49, 1) float32, 0 in slots of the padding, else 1.
        slot: (B * H * W,) int64, the slot of each token.
        image, row, column: (n * 49,) int64, the position of each slot before rolling, padding included.
        region: (n, 49) int64; tokens of different regions do not attend to each other.

    Args:
        batch, height, width: of the maps, in tokens.
        shift: cells the windows are shifted by, 0 or 3.
    """

    token: Tensor
    filled: Tensor
    slot: Tensor
    image: Tensor
    row: Tensor
    column: Tensor
    region: Tensor

    def __init__(self, batch: int, height: int, width: int, shift: int) -> None:
        super().__init__()
        self.shift = shift
        rows, row_region, row_last = _axis(height, shift)
        columns, column_region, column_last = _axis(width, shift)
        down, across = len(rows), len(columns)
        grid = (batch, down, across, WINDOW, WINDOW)
        kind = np.broadcast_to(2 * row_last[None, :, None] + column_last[None, None, :], grid[:3])
        order = np.argsort(kind.reshape(-1), kind="stable")

        def by_window(values: np.ndarray) -> np.ndarray:
            flat = np.broadcast_to(values, grid).reshape(-1, SLOTS)[order]
            return np.ascontiguousarray(flat, np.int64)

        image = by_window(np.arange(batch)[:, None, None, None, None])
        row = by_window(rows[None, :, None, :, None])
        column = by_window(columns[None, None, :, None, :])
        region = by_window(3 * row_region[None, :, None, :, None] + column_region[None, None, :, None, :])
        filled = (row < height) & (column < width)
        token = np.where(filled, (image * height + row) * width + column, 0)
        slot = np.empty(batch * height * width, np.int64)
        slot[token[filled]] = np.flatnonzero(filled)
        self.windows_of_kind = tuple(int(n) for n in np.bincount(kind.reshape(-1), minlength=KINDS))
        for name, array in (
            ("token", token.reshape(-1)),
            ("filled", filled.reshape(-1, 1).astype(np.float32)),
            ("slot", slot),
            ("image", image.reshape(-1)),
            ("row", row.reshape(-1)),
            ("column", column.reshape(-1)),
            ("region", region),
        ):
            self.register_buffer(name, torch.from_numpy(array), persistent=False)

    def parts(self, at_once: int | None) -> Iterator[tuple[int, int, int]]:
        """Yield runs of windows of one kind as (first, last + 1, kind), each of at most `at_once` slots."""
        first = 0
        for kind, count in enumerate(self.windows_of_kind):
            step = max(1, at_once // SLOTS) if at_once else max(1, count)
            for start in range(first, first + count, step):
                yield start, min(start + step, first + count), kind
            first += count

    def limits(self, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return the limits for a valid size (B, 2), in tokens.

        Returns:
            filled: (n * 49, 1) float32, 0 also outside the valid size.
            region: (n, 49) int64; tokens beyond the whole windows of the valid size are separate regions.
        """
        size = valid[self.image]
        within = (self.row < size[:, 0]) & (self.column < size[:, 1])
        filled = self.filled * within[:, None]
        if not self.shift:
            return filled, self.region
        whole = (size + (WINDOW - 1)) // WINDOW * WINDOW
        beyond = 2 * (self.row >= whole[:, 0]).long() + (self.column >= whole[:, 1]).long()
        return filled, self.region * 4 + beyond.reshape(-1, SLOTS)


Plan = TypeVar("Plan", bound=nn.Module)


class RecentPlans(Generic[Plan]):
    """The plans of the maps computed lately; beyond a number of bytes the least recently used ones are dropped.

    A plan on a GPU belongs to the stream on which it was made, which is part of its key: PyTorch's allocator gives the
    memory of a dropped one to later work of the same stream, so kernels that are queued still find it. A copy is empty.

    Args:
        most: bytes; one plan is kept even if it is larger. None: PLAN_BYTES.
    """

    def __init__(self, most: int | None = None) -> None:
        self.most = most
        self._plans: dict[Hashable, tuple[Plan, int]] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[RecentPlans[Plan]], tuple[int | None]]:
        return RecentPlans, (self.most,)

    @property
    def held(self) -> int:
        """Bytes of the plans."""
        return sum(size for _, size in self._plans.values())

    def get(self, key: Hashable, make: Callable[[], Plan]) -> Plan:
        """Return the plan of a key, made on first use. Any thread."""
        with self._lock:
            found = self._plans.pop(key, None)
            if found is None:
                plan = make()
                found = plan, sum(buffer.nbytes for buffer in plan.buffers())
            self._plans[key] = found
            most = PLAN_BYTES if self.most is None else self.most
            while self.held > most and len(self._plans) > 1:
                del self._plans[next(iter(self._plans))]
            return found[0]


def _axis(size: int, shift: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return one axis of the padded, rolled map: source cell (n, 7), region (n, 7), whether last window (n,)."""
    padded = -(-size // WINDOW) * WINDOW
    rolled = np.arange(padded)
    region = np.zeros(padded, np.int64)
    last = np.zeros(padded // WINDOW, np.int64)
    if shift:
        region = (rolled >= padded - WINDOW).astype(np.int64) + (rolled >= padded - shift)
        last[-1] = 1
    source = (rolled + shift) % padded
    return source.reshape(-1, WINDOW), region.reshape(-1, WINDOW), last


def kind_masks(shift: int) -> Tensor:
    """(4, 49, 49) float32, added to the attention logits in each kind of window."""
    wrapped = (torch.arange(WINDOW) >= WINDOW - shift).long()
    kinds = [(kind // 2 * 2 * wrapped[:, None] + kind % 2 * wrapped).flatten() for kind in range(KINDS)]
    return apart(torch.stack(kinds))


def apart(region: Tensor) -> Tensor:
    """(n, 49, 49) float32 from regions (n, 49): -100 between tokens of different regions, else 0."""
    return (region[:, :, None] != region[:, None, :]).to(torch.float32) * APART


def summed(bias: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return what attention adds to the logits: bias + mask, added in float32.

    Args:
        bias: (1, heads, 49, 49) float32.
        mask: (n, 1, 49, 49) float32, or None.
        dtype: of the result.

    Returns:
        (n or 1, heads, 49, 49); on a GPU, where nothing is compiled, as `spaced` gives it.
    """
    if bias.is_cpu or torch.compiler.is_compiling():
        return (bias if mask is None else bias + mask).to(dtype)
    return spaced(bias, mask, dtype)


def spaced(bias: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Compute `summed` in one pass, each row in memory of 56 elements, so that attention takes it as it is."""
    heads, windows = bias.shape[1], 1 if mask is None else len(mask)
    columns = -(-SLOTS // _MASK_STRIDE) * _MASK_STRIDE
    room = torch.empty(windows, heads, SLOTS, columns, dtype=dtype, device=bias.device)[..., :SLOTS]
    return torch.add(bias, 0 if mask is None else mask, out=room)


def relative_index() -> Tensor:
    """(49, 49) int64: row of the bias table for each pair (query, key) of a window."""
    cell = torch.arange(WINDOW)
    position = torch.stack(torch.meshgrid(cell, cell, indexing="ij")).flatten(1)
    offset = position[:, :, None] - position[:, None, :] + (WINDOW - 1)
    return offset[0] * (2 * WINDOW - 1) + offset[1]
