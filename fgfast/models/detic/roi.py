"""ROIAlign with adaptive sampling, as matrix products.

The reference averages n_y * n_x bilinear samples in each of 7x7 bins, n = ceil(extent in cells / 7) along each axis.
Bilinear weights, the rules at the border and the average all factor into rows and columns, so a box pools to
W_y (7, H) @ map (H, W) @ W_x^T (W, 7): the same numbers for any n. W comes from closed sums over the evenly spaced
samples, so that all shapes are fixed.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# POOLER_RESOLUTION 7; boxes are assigned to p3..p5 by a canonical size of 224 px on p4 (detectron2's
# assign_boxes_to_levels).
BINS = 7
LEVELS = (3, 4, 5)
CANONICAL_SIZE = 224.0
# detectron2 adds this before flooring, so that 224.0 itself falls on level 4.
LEVEL_EPS = 1e-8
# The least float32 x with floor(4 + log2(x)) = 4 and 5, where the sum is rounded to float32 as detectron2's is.
# Comparisons are the same everywhere; logarithms of different libraries are not.
LEVEL_BOUNDS = (1 - 2**-24, 2 - 2**-22)


def levels_of(boxes: Tensor) -> Tensor:
    """(..., 4) float32 boxes in pixels -> (...) int64, 3 to 5: floor(4 + log2(sqrt(area) / 224)), clamped."""
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    share = torch.sqrt(area) / CANONICAL_SIZE + LEVEL_EPS
    return LEVELS[0] + (share >= LEVEL_BOUNDS[0]).long() + (share >= LEVEL_BOUNDS[1]).long()


def scale_of(levels: Tensor) -> Tensor:
    """(...) int64 levels -> (...) float32, cells of that level per pixel; exact."""
    coarse = torch.where(levels == 4, 2.0**-4, 2.0**-5)
    return torch.where(levels == 3, 2.0**-3, coarse)


def axis_weights(low: Tensor, high: Tensor, size: Tensor, cells: int) -> Tensor:
    """Return the weight of each cell in each bin along one axis.

    Args:
        low, high: (N,) float32, ends of the boxes in cells, already shifted by -0.5.
        size: (N,) whole numbers, valid cells of the map: samples beyond them are zero, and the last one is extended.
        cells: of the map, at least every size.

    Returns:
        (N, 7, cells) float32.
    """
    bin_extent = (high - low) / BINS
    samples = torch.ceil(bin_extent).clamp(min=0)
    step = torch.where(samples > 0, bin_extent / samples.clamp(min=1), 1.0)[:, None, None]
    bins = torch.arange(BINS, device=low.device, dtype=torch.float32)
    first = (low[:, None] + bins * bin_extent[:, None])[:, :, None] + 0.5 * step
    samples, size = samples[:, None, None], size[:, None, None]

    # before[j]: samples left of cell j - 1; those from cell j - 1 up to j are in [before[j], before[j + 1]).
    edge = torch.arange(-1, cells + 1, device=low.device, dtype=torch.float32)
    before = torch.minimum(torch.ceil((edge - first) / step).clamp(min=0), samples)
    count = before[:, :, 1:] - before[:, :, :-1]
    # Distance of those samples from cell j - 1, summed: an arithmetic progression.
    past = count * (first + before[:, :, :-1] * step - edge[:-1]) + step * count * (count - 1) / 2
    cell = torch.arange(cells, device=low.device, dtype=torch.float32)
    rising = torch.where(cell == 0, count[:, :, :-1], past[:, :, :-1])
    # Beyond the last valid cell, samples up to and including `size` take that cell's value.
    through = torch.minimum((torch.floor((size - first) / step) + 1).clamp(min=0), samples)
    falling = torch.where(cell == size - 1, through - before[:, :, 1:-1], count[:, :, 1:] - past[:, :, 1:])
    weights = torch.where(cell < size, rising + falling, 0.0)
    return weights / samples.clamp(min=1)


def _weights(maps: list[Tensor], boxes: Tensor, levels: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Return row and column weights of boxes (N, 4) on their levels (N,): (N, 7, H), (N, 7, W) of the finest map."""
    x0, y0, x1, y1 = (boxes * scale_of(levels)[:, None] - 0.5).unbind(1)
    height, width = maps[0].shape[2:]
    # Both axes together, as if the map were square.
    both = axis_weights(torch.cat([y0, x0]), torch.cat([y1, x1]), sizes.t().reshape(-1), max(height, width))
    return both[: len(boxes), :, :height], both[len(boxes) :, :, :width]


def _sizes_on_levels(maps: list[Tensor], levels: Tensor, valid: Tensor | None) -> Tensor:
    """Return (B, N, 2) whole numbers: the valid size of the map of each box."""
    if valid is not None:
        # Exact: both are multiples of 32 and powers of two.
        return valid[:, None] * scale_of(levels)[:, :, None]
    table = torch.tensor([list(m.shape[2:]) for m in maps], device=levels.device)
    return table[levels - LEVELS[0]]


def pool_dense(maps: list[Tensor], boxes: Tensor, levels: Tensor, sizes: Tensor) -> Tensor:
    """Pool all boxes on all maps, with zero weights on other levels: fixed shapes and few large products, for GPUs.

    Args:
        maps: p3, p4, p5, (B, C, h, w).
        boxes: (B, N, 4) float32, pixels.
        levels: (B, N) int64, 3 to 5.
        sizes: (B, N, 2) whole numbers, the valid (h, w) of the map of each box.

    Returns:
        (B, N, C, 7, 7), in the precision of the maps.
    """
    batch, count = levels.shape
    rows, columns = _weights(maps, boxes.flatten(0, 1), levels.flatten(), sizes.flatten(0, 1))
    total: Tensor | None = None
    for level, features in zip(LEVELS, maps, strict=True):
        channels, height, width = features.shape[1:]
        here = (levels == level).view(-1, 1, 1)
        row = (rows[:, :, :height] * here).to(features.dtype).view(batch, count * BINS, height)
        column = columns[:, :, :width].to(features.dtype).view(batch, count, 1, BINS, width)
        flat = features.permute(0, 2, 3, 1).reshape(batch, height, width * channels)
        pooled = column @ (row @ flat).view(batch, count, BINS, width, channels)
        total = pooled if total is None else total + pooled
    assert total is not None
    return total.permute(0, 1, 4, 2, 3)


def pool_taps(maps: list[Tensor], boxes: Tensor, levels: Tensor, sizes: Tensor) -> Tensor:
    """Pool as pool_dense does, but only cells with a weight, as one weighted sum of gathered rows: the least work, for
    the CPU.

    A few large operations instead of some per box: with other processes on the cores, every operation waits for its
    threads.
    """
    batch, count = levels.shape
    rows, columns = _weights(maps, boxes.flatten(0, 1), levels.flatten(), sizes.flatten(0, 1))
    row_start, row_count, row_cell, row_weight = _taps(rows)
    column_start, column_count, column_cell, column_weight = _taps(columns)

    # One bag per box and bin; its taps are all pairs of a row and a column.
    taps = (row_count[:, :, None] * column_count[:, None, :]).flatten()
    first = taps.cumsum(0) - taps
    bag = torch.repeat_interleave(taps)
    number = torch.arange(len(bag), device=bag.device) - first[bag]
    row_bin, column_bin = bag // BINS, bag // (BINS * BINS) * BINS + bag % BINS
    across = column_count.flatten()[column_bin]
    row = row_start.flatten()[row_bin] + number // across
    column = column_start.flatten()[column_bin] + number % across

    base, width = _places(maps, levels)
    box = bag // (BINS * BINS)
    cell = base[box] + row_cell[row] * width[box] + column_cell[column]
    channels = maps[0].shape[1]
    table = torch.cat([m.permute(0, 2, 3, 1).reshape(-1, channels) for m in maps]).float()
    weight = row_weight[row] * column_weight[column]
    pooled = functional.embedding_bag(cell, table, first, mode="sum", per_sample_weights=weight)
    return pooled.to(maps[0].dtype).view(batch, count, BINS, BINS, channels).permute(0, 1, 4, 2, 3)


def _taps(weights: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the nonzero weights of (N, 7, cells): start and count (N, 7) int64 per bin, cells and weights (T,)."""
    some = weights != 0
    count = some.sum(2)
    start = (count.flatten().cumsum(0) - count.flatten()).view(count.shape)
    return start, count, some.nonzero()[:, 2], weights[some]


def _places(maps: list[Tensor], levels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the start of each box's map among all maps, flattened and joined, and the map's width: (B * N,) each."""
    batch, count = levels.shape
    height, width = (torch.tensor([m.shape[axis] for m in maps], device=levels.device) for axis in (2, 3))
    cells = height * width
    begins = (cells * batch).cumsum(0) - cells * batch
    level = (levels - LEVELS[0]).flatten()
    image = torch.arange(batch, device=levels.device).repeat_interleave(count)
    return begins[level] + image * cells[level], width[level]


def pool(maps: list[Tensor], boxes: Tensor, levels: Tensor, valid: Tensor | None) -> Tensor:
    """Pool each box on its level by ROIAlign, in the faster form for the device.

    Args:
        maps: p3, p4, p5, (B, C, h, w).
        boxes: (B, N, 4) float32, pixels, unclipped.
        levels: (B, N) int64, 3 to 5.
        valid: (B, 2) int64, pixels, treated as the size of the map; None: the whole map.

    Returns:
        (B, N, C, 7, 7), in the precision of the maps.
    """
    sizes = _sizes_on_levels(maps, levels, valid)
    host = maps[0].is_cpu and not torch.compiler.is_compiling()
    return (pool_taps if host else pool_dense)(maps, boxes, levels, sizes)
