"""Masks as the page and the server exchange them: run lengths in base64, checked before memory is taken.

The runs are little-endian uint32 over the mask's rows, one after the other; background first (that run alone may be 0),
then alternating. Their sum is the number of pixels.
"""

from __future__ import annotations

import base64
import binascii

import numpy as np

from fgfast.errors import UsageError
from fgfast.records import Bool, Size

_RUN = np.dtype("<u4")


def encode_runs(bits: Bool) -> str:
    """Return the runs of a mask.

    Args:
        bits: (H, W) bool, with at least one pixel.
    """
    flat = np.ascontiguousarray(bits).ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    first = [0, 0] if flat[0] else [0]
    runs = np.diff(np.concatenate([first, edges, [flat.size]]))
    return base64.b64encode(runs.astype(_RUN).tobytes()).decode()


def decode_runs(text: object, size: Size) -> Bool:
    """Return the mask, (H, W) bool, of runs that anybody sent.

    Args:
        text: the runs in base64.
        size: of the mask, in pixels. It is the ledger's, so it is bounded.

    Raises:
        UsageError: these are no runs, or they do not cover the mask.
    """
    pixels = size.height * size.width
    if not isinstance(text, str):
        raise UsageError("runs must be run lengths as text in base64")
    # A mask has one run more than it has pixels at most, of four bytes each, which base64 writes as 16/3 characters.
    if len(text) > 16 * (pixels + 1) // 3 + 4:
        raise UsageError(f"runs have {len(text):,} characters, more than a mask of {pixels:,} pixels can have")
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        raise UsageError("runs must be run lengths as text in base64") from None
    if not data or len(data) % _RUN.itemsize:
        raise UsageError(f"runs must be numbers of four bytes, not {len(data)} bytes")
    runs = np.frombuffer(data, _RUN)
    if (runs[1:] == 0).any():
        raise UsageError("only the first of the runs may be 0")
    total = int(runs.sum(dtype=np.uint64))  # at most 2**32 of less than 2**32 each
    if total != pixels:
        raise UsageError(f"runs cover {total:,} pixels, but the mask has {size.width} x {size.height}")
    ones = (np.arange(len(runs)) & 1).astype(np.bool_)
    return np.repeat(ones, runs).reshape(size)
