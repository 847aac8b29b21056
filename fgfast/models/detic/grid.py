"""Shifted windows as reshapes of whole maps: for exported graphs.

windows.WindowPlan is the same with tables of indices, which are fastest on a CPU. A graph would have to contain those
tables, megabytes per canvas; here a canvas needs only a few vectors as long as its edges.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from fgfast.models.detic.config import WINDOW
from fgfast.models.detic.windows import APART, SLOTS
from fgfast.models.serving.pixels import inside


class WindowGrid(nn.Module):
    """The windows of maps of one size, row by row, as windows.WindowPlan defines them.

    Buffers, for both axes, with n cells of the map padded to whole windows and rolled:
        row_split, column_split: (n,) int64, the cell of the padded map in each place.
        row_source, column_source: the same in float32.
        row_join, column_join: (height,), (width,) int64, the place of each cell of the map.
        row_region, column_region: (n,) float32, 0 to 2; tokens of different regions do not attend to each other.

    Args:
        height, width: of the maps, in tokens.
        shift: cells the windows are shifted by, 0 or 3.
    """

    row_source: Tensor
    row_region: Tensor
    column_source: Tensor
    column_region: Tensor
    row_split: Tensor
    column_split: Tensor
    row_join: Tensor
    column_join: Tensor

    def __init__(self, height: int, width: int, shift: int) -> None:
        super().__init__()
        self.height, self.width, self.shift = height, width, shift
        self.down, self.across = -(-height // WINDOW), -(-width // WINDOW)
        for name, count in (("row", self.down), ("column", self.across)):
            place = torch.arange(count * WINDOW)
            regions = (place >= count * WINDOW - WINDOW).float() + (place >= count * WINDOW - shift).float()
            self.register_buffer(f"{name}_source", place.roll(-shift).float(), persistent=False)
            self.register_buffer(f"{name}_region", regions if shift else regions * 0, persistent=False)
            self.register_buffer(f"{name}_split", place.roll(-shift), persistent=False)
            back = place.roll(shift)[: height if name == "row" else width]
            self.register_buffer(f"{name}_join", back, persistent=False)

    def split(self, x: Tensor) -> Tensor:
        """(B, H * W, C) tokens -> (n * 49, C), slots of n windows; zero in the padding."""
        batch, _, channels = x.shape
        maps = x.view(batch, self.height, self.width, channels)
        below, right = self.down * WINDOW - self.height, self.across * WINDOW - self.width
        if below or right:
            maps = functional.pad(maps, (0, 0, 0, right, 0, below))
        if self.shift:
            maps = maps.index_select(1, self.row_split).index_select(2, self.column_split)
        cells = maps.view(batch, self.down, WINDOW, self.across, WINDOW, channels)
        return cells.transpose(2, 3).reshape(-1, channels)

    def join(self, slots: Tensor, batch: int) -> Tensor:
        """(n * 49, C) -> (B * H * W, C), the reverse of split."""
        channels = slots.shape[1]
        cells = slots.view(batch, self.down, self.across, WINDOW, WINDOW, channels).transpose(2, 3)
        maps = cells.reshape(batch, self.down * WINDOW, self.across * WINDOW, channels)
        if self.shift:
            maps = maps.index_select(1, self.row_join).index_select(2, self.column_join)
        else:
            maps = maps[:, : self.height, : self.width]
        return maps.reshape(-1, channels)

    def limits(self, valid: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the limits for a valid size (B, 2), in tokens.

        Returns:
            (B, H * W, 1) bool, the tokens within the valid size.
            (n, 1, 49, 49) float32, added to the logits; None without shift.
        """
        here = inside(valid, self.height, self.width).flatten(1)[:, :, None]
        return here, self.mask(valid) if self.shift else None

    def mask(self, valid: Tensor | None) -> Tensor:
        """(n, 1, 49, 49) float32, -100 between tokens of different regions; of one image where `valid` is None."""
        region = [self.row_region[None], self.column_region[None]]
        if valid is not None:
            # Tokens beyond the whole windows of the valid size are separate regions.
            whole = (valid.float() + (WINDOW - 1)) // WINDOW * WINDOW
            for axis, source in enumerate((self.row_source, self.column_source)):
                region[axis] = region[axis] + 4 * (source >= whole[:, axis, None]).float()
        rows = region[0].view(-1, self.down, WINDOW)
        columns = region[1].view(-1, self.across, WINDOW)
        same_row = rows[:, :, None, :, None] == rows[:, :, None, None, :]
        same_column = columns[:, None, :, :, None] == columns[:, None, :, None, :]
        together = same_row[:, :, :, :, None, :, None] & same_column[:, :, :, None, :, None, :]
        return torch.where(together, 0.0, APART).view(-1, 1, SLOTS, SLOTS)
