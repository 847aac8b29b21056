"""engine/bindings/module.cc as Python sees it. Call it through fgfast.ops, which checks what it is given."""

import numpy as np
from numpy.typing import NDArray

def attends(size: int) -> bool: ...
def attend(
    q: NDArray[np.float32],
    k: NDArray[np.float32],
    v: NDArray[np.float32],
    rel_pos_h: NDArray[np.float32],
    rel_pos_w: NDArray[np.float32],
    token_at: NDArray[np.int64],
    padding_k: NDArray[np.float32],
    padding_v: NDArray[np.float32],
    side: int,
    threads: int,
    out: NDArray[np.float32],
) -> None: ...
def composite(
    pixels: NDArray[np.uint8],
    bits: NDArray[np.bool_],
    background: NDArray[np.uint8],
    x0: int,
    y0: int,
    out: NDArray[np.uint8],
) -> None: ...
def composite_alpha(
    pixels: NDArray[np.uint8], bits: NDArray[np.bool_], x0: int, y0: int, out: NDArray[np.uint8]
) -> None: ...
def rle_encode(bits: NDArray[np.bool_]) -> bytes: ...
def rle_decode(counts: bytes, height: int, width: int) -> NDArray[np.bool_]: ...
