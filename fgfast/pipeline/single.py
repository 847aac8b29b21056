"""The cut-out of one image, without a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fgfast import methods
from fgfast.config import Settings
from fgfast.errors import UsageError
from fgfast.io.decode import as_image
from fgfast.ops.geometry import clip_box
from fgfast.pipeline.choices import choose_segmenter
from fgfast.pipeline.job import detect_stages, segment_stages
from fgfast.pipeline.plan import load_background
from fgfast.pipeline.stages import Cut
from fgfast.pipeline.work import Work
from fgfast.records import Cutout, Sample
from fgfast.runner import run_item

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage


def cut_out(
    image: str | Path | bytes | np.ndarray[Any, Any] | PillowImage,
    box: Sequence[float] | None = None,
    *,
    settings: Settings | None = None,
    turn_exif: bool = True,
) -> Cutout:
    """Cut the subject out of one image.

    Args:
        image: a path, the bytes of an image file, a Pillow image, or an array (H, W, 3) RGB or (H, W) grey of uint8 or
            uint16. The same image has the same pixels in each.
        box: x0 y0 x1 y1 around the subject in pixels; None takes the middle of the image.
        settings: segmenter, background and crop; settings about files are ignored.
        turn_exif: apply the EXIF orientation of a file or a Pillow image; the box is in pixels of the turned image.

    Returns:
        The cut-out with its mask; `flags` holds the reasons to doubt it.

    Raises:
        SampleError: the image is missing, too large, damaged or of an unsupported kind.
        UsageError: the array or the box has the wrong shape.

    Example:
        >>> import fgfast, numpy as np
        >>> image = np.full((80, 120, 3), 90, np.uint8)
        >>> image[20:60, 40:90] = (220, 40, 40)
        >>> cutout = fgfast.cut_out(image, box=(36, 16, 94, 64))
        >>> cutout.size, bool(cutout.mask.bits[40, 60]), bool(cutout.mask.bits[5, 5])
        (Size(height=80, width=120), True, False)
    """
    settings = choose_segmenter(settings or Settings())
    stored, sample = as_image(image, turn_exif), Sample("image", Path("image"))
    if box is not None:
        sample = Sample("image", Path("image"), boxes=_as_box(box)[None])
        x0, y0, x1, y1 = clip_box(sample.boxes[0], stored.size)
        if min(x1 - x0, y1 - y0) < 1:
            height, width = stored.size
            raise UsageError(f"box {box!r} has no pixel inside the image of {width}x{height} pixels; give it in pixels")
    detector = methods.method("center" if box is None else "annotations", "detector")
    segmenter = methods.method(settings.segmenter, "segmenter")
    stages = [
        *detect_stages(settings, detector, (), "cpu"),
        *segment_stages(settings, segmenter, settings.places[0]),
        Cut(settings.fill, load_background(settings.fill), settings.crop, settings.pad),
    ]
    work = Work(0, sample, "image", image=stored)
    run_item(stages, work)
    assert work.cutout is not None
    return work.cutout


def _as_box(box: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float32]]:
    try:
        array = np.asarray(box, np.float32)
    except (TypeError, ValueError):
        array = np.zeros(0, np.float32)
    if array.shape != (4,) or not np.isfinite(array).all() or array[2] <= array[0] or array[3] <= array[1]:
        raise UsageError(f"box must be four numbers x0 y0 x1 y1 with x0 < x1 and y0 < y1, not {box!r}")
    return array
