"""What `fgfast bench models` compares of a SAM: the mask of one box, and the logits that it was made from."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from fgfast.records import Bool, Float32, Image, UInt8
from fgfast.runner import run_batch


class Segmented(NamedTuple):
    """The result for one box.

    Attributes:
        mask: (H, W) bool, the size of the image.
        logits: (s, s) float32 over SAM's square, whose side is 4 s.
    """

    mask: Bool
    logits: Float32


Segment = Callable[[UInt8, Float32], Segmented]
"""(pixels (H, W, 3) uint8 RGB, box (1, 4) float32 in pixels) -> Segmented."""


def segment_by(model: Any) -> Segment:
    """Return the function of a SamSegmenter, with any sessions."""
    return partial(_segment, model)


def _segment(model: Any, image: UInt8, box: Float32) -> Segmented:
    import torch

    (low_res,) = run_batch(model, [(Image(image), box[0])])
    bits: Bool = model.finish(low_res, *image.shape[:2], torch.get_num_threads()).bits
    return Segmented(bits, low_res.logits[0])


def logits_error(found: Float32, expected: Float32) -> float:
    """Return the rms difference of logits, as a fraction of the spread of those that are expected.

    Args:
        found: (s, s) float32.
        expected: (s, s) float32, in float32 throughout.
    """
    exact = expected.astype(np.float64)
    return float(np.sqrt(np.square(found - exact).mean()) / exact.std())
