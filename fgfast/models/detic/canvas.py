"""The canvas: the cells of a map that belong to an image, where the canvas is larger than the reference's own.

The reference pads an image (h, w) to multiples of 32 and masks nothing after that, so its results depend on that
canvas. A batch, or an engine of fixed shape, needs a larger one. The results remain those of the image alone if every
layer that mixes cells is given the "valid" size: the size of the reference's own canvas on the map in question.

Graphs of fixed shape have the canvases CANVASES: one per common aspect ratio and orientation, and those that hold every
image. Work per image is proportional to the pixels. The mean over the photographs that the project's authors had at
hand (31 of CUB-200-2011; 26 of GrabCut's and DALI's samples, 3:2 and 4:3), in megapixels of canvas per image:

========================================  ========  ====  ======
widths, the height being 800; and turned  canvases  CUB   others
========================================  ========  ====  ======
1344                                      2         1.08  1.08
1088, 1344                                4         1.00  0.97
1088, 1216, 1344                          6         0.95  0.93
800, 1088, 1216, 1344                     7         0.93  0.93
800, 960, 1088, 1216, 1344                9         0.92  0.93
one of its own per image                  all       0.90  0.91
========================================  ========  ====  ======

After seven, another canvas saves less than 1 %, and costs a recording, the memory of one, and a batch that fills more
slowly. 16:11 of FGVC-Aircraft needs 1184 and takes 1216; 5:4 needs 1024 and takes 1088.

Throughout fgfast.models.detic, `valid` is None (the canvas is the valid size, or masking is not wanted) or a tensor
(B, 2) int64, (height, width) in cells of the map in question. Whole numbers in float32 work as well: graphs use them,
because engines support few operations on int64.
"""

from __future__ import annotations

from torch import Tensor

from fgfast.models.detic.config import SWIN_B
from fgfast.models.serving.canvases import CANVAS_MULTIPLE, canvas_of, common_canvases
from fgfast.models.serving.pixels import inside
from fgfast.records import Size

PYRAMID_STRIDES = (8, 16, 32, 64, 128)

# (height, width) in pixels: of the widest image after resizing and the tallest, then of common ones. See above.
CANVASES = common_canvases(SWIN_B.shorter_edge, SWIN_B.longest_edge)
LARGEST, LARGEST_TURNED = CANVASES[:2]


def own_canvas(sizes: Tensor) -> Tensor:
    """(B, 2) int64 sizes of resized images, pixels -> (B, 2) int64, the reference's canvas of each image alone."""
    return (sizes + (CANVAS_MULTIPLE - 1)) // CANVAS_MULTIPLE * CANVAS_MULTIPLE


def needs_masking(sizes: list[Size], canvas: Size) -> bool:
    """Return whether any image's own canvas differs from this one."""
    return any(canvas_of([size]) != canvas for size in sizes)


def halved(valid: Tensor | None) -> Tensor | None:
    """The valid size on the next coarser map: (B, 2) int64, rounded up."""
    return None if valid is None else (valid + 1) // 2


def clear_outside(x: Tensor, valid: Tensor | None) -> Tensor:
    """Zero the cells of maps (B, C, H, W) outside the valid size; x itself where `valid` is None."""
    if valid is None:
        return x
    return x * inside(valid, x.shape[2], x.shape[3])[:, None].to(x.dtype)
