"""A plain implementation of Detic Swin-B as specified: the reference if the original is not installed.

It computes the same function from the same weights in the same way as the original: it pads, rolls, partitions into
windows, adds bias and mask to explicit attention, runs whole maps at once, convolves in the default memory layout, and
computes the two predictions separately. Proposals, pooling and selection are those of fgfast.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from fgfast.models.detic.canvas import PYRAMID_STRIDES
from fgfast.models.detic.cascade import Refined, combine
from fgfast.models.detic.config import WINDOW
from fgfast.models.detic.graph import DetectorGraph
from fgfast.models.detic.proposals import Candidates, CenterNetHead, level_candidates
from fgfast.models.detic.swin import Block, Swin


class PlainGraph(DetectorGraph):
    """The graph of the detector as specified, for one image on its own canvas."""

    def forward(self, pixels: Tensor, sizes: Tensor, vocabulary: Tensor) -> Refined:
        """Arguments and result are those of DetectorGraph."""
        model = self.model
        maps = [m.contiguous() for m in plain_swin(model.backbone.bottom_up, self.images(pixels, sizes).contiguous())]
        pyramid = model.backbone.from_backbone(maps, None)
        head, found = model.proposal_generator.centernet_head, []
        for n, level in enumerate(pyramid):
            heat, distances = plain_head(head, level, n)
            found.append(level_candidates(heat, distances, PYRAMID_STRIDES[n], None, model.config))
        boxes, scores = (torch.cat(list(column), 1) for column in zip(*found, strict=True))
        proposals = model.proposal_generator.best(Candidates(boxes, scores))
        stages = model.roi_heads(pyramid[:3], proposals.boxes, sizes, None)
        return combine(stages, proposals.scores, vocabulary)


def plain_head(head: CenterNetHead, x: Tensor, level: int) -> tuple[Tensor, Tensor]:
    """Run one level of the proposal head: (1, C, h, w) -> heat logits (1, 1, h, w), distances (1, 4, h, w)."""
    for layer in head.bbox_tower:
        x = layer(x)
    return head.agn_hm(x), functional.relu(head.scales[level](head.bbox_pred(x)))


def plain_swin(swin: Swin, images: Tensor) -> list[Tensor]:
    """Run the backbone: (1, 3, H, W) -> swin1, swin2, swin3 as (1, C, h, w)."""
    x = swin.patch_embed(images)
    outputs = []
    for n, stage in enumerate(swin.layers):
        _, height, width, channels = x.shape
        mask = shift_mask(height, width, x.device)
        for number, block in enumerate(stage.blocks):
            x = plain_block(block, x, WINDOW // 2 * (number % 2), mask)
        if n:
            outputs.append(swin.get_submodule(f"norm{n}")(x).permute(0, 3, 1, 2))
        if stage.downsample is not None:
            x = stage.downsample(x.flatten(1, 2), height, width).view(1, height // 2, width // 2, 2 * channels)
    return outputs


def plain_block(block: Block, x: Tensor, shift: int, mask: Tensor) -> Tensor:
    """Run one block on (1, H, W, C) float32."""
    _, height, width, channels = x.shape
    y = functional.pad(block.norm1(x), (0, 0, 0, -width % WINDOW, 0, -height % WINDOW))
    if shift:
        y = torch.roll(y, (-shift, -shift), (1, 2))
    rows, columns = y.shape[1] // WINDOW, y.shape[2] // WINDOW
    cut = windows(y).reshape(-1, WINDOW * WINDOW, channels)
    qkv = block.attn.qkv(cut).view(len(cut), WINDOW * WINDOW, 3, block.attn.heads, -1).permute(2, 0, 3, 1, 4)
    logits = (qkv[0] * qkv.shape[-1] ** -0.5) @ qkv[1].transpose(-2, -1) + block.attn.biases()[:1]
    if shift:
        logits = logits + mask[:, None]
    attended = (logits.softmax(-1) @ qkv[2]).transpose(1, 2).reshape(cut.shape)
    y = block.attn.proj(attended).view(1, rows, columns, WINDOW, WINDOW, channels).permute(0, 1, 3, 2, 4, 5)
    y = y.reshape(1, rows * WINDOW, columns * WINDOW, channels)
    if shift:
        y = torch.roll(y, (shift, shift), (1, 2))
    x = x + y[:, :height, :width]
    return x + block.mlp(block.norm2(x))


def windows(x: Tensor) -> Tensor:
    """Partition (1, H, W, C), H and W multiples of 7, into (windows, 7, 7, C)."""
    _, height, width, channels = x.shape
    grid = x.view(height // WINDOW, WINDOW, width // WINDOW, WINDOW, channels)
    return grid.permute(0, 2, 1, 3, 4).reshape(-1, WINDOW, WINDOW, channels)


def shift_mask(height: int, width: int, device: torch.device) -> Tensor:
    """Return the mask (windows, 49, 49) float32: -100 between regions of the rolled, padded map, 0 within them."""
    regions = torch.zeros(1, -(-height // WINDOW) * WINDOW, -(-width // WINDOW) * WINDOW, 1, device=device)
    cuts = (slice(0, -WINDOW), slice(-WINDOW, -(WINDOW // 2)), slice(-(WINDOW // 2), None))
    for number, (row, column) in enumerate((r, c) for r in cuts for c in cuts):
        regions[:, row, column] = number
    flat = windows(regions).reshape(-1, WINDOW * WINDOW)
    return (flat[:, :, None] != flat[:, None, :]).float() * -100.0
