"""engine/bindings as Python sees it. Call it through fgfast.ops, which checks what it is given.

`Any` is an array on the CPU or on a GPU; `stream` a cudaStream_t, and nothing on the CPU.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

def area_average(pixels: NDArray[np.uint8], out: NDArray[np.uint8]) -> None: ...
def area_coverage(bits: NDArray[np.bool_], out: NDArray[np.uint8]) -> None: ...
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
def attend_windows(
    qkv: NDArray[np.uint16],
    bias: NDArray[np.float32],
    mask: NDArray[np.float32] | None,
    threads: int,
    out: NDArray[np.uint16],
) -> None: ...
def attends_bf16(size: int) -> bool: ...
def attend_bf16(
    q: NDArray[np.uint16],
    k: NDArray[np.uint16],
    v: NDArray[np.uint16],
    rel_pos_h: NDArray[np.float32],
    rel_pos_w: NDArray[np.float32],
    token_at: NDArray[np.int64],
    padding_k: NDArray[np.uint16],
    padding_v: NDArray[np.uint16],
    side: int,
    threads: int,
    out: NDArray[np.uint16],
) -> None: ...
def bf16_attends_by() -> str: ...
def colour_contrast(lab: NDArray[np.uint8], bits: NDArray[np.bool_], out: NDArray[np.float64]) -> None: ...
def composite(pixels: Any, bits: Any, background: Any, x0: int, y0: int, out: Any, stream: int = 0) -> None: ...
def composite_alpha(pixels: Any, bits: Any, x0: int, y0: int, out: Any, stream: int = 0) -> None: ...
def cuda_refusal(device: int) -> str: ...
def has_cuda() -> bool: ...
def mask_parts(bits: NDArray[np.bool_]) -> tuple[NDArray[np.int64], int]: ...
def mask_post(
    logits: Any,
    side: int,
    resized_height: int,
    resized_width: int,
    bits: Any,
    facts: Any,
    threads: int = 1,
    stream: int = 0,
) -> None: ...
def nms(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    classes: NDArray[np.int64] | None,
    threshold: float,
    limit: int,
) -> NDArray[np.int64]: ...
def nms_ordered(
    boxes: Any,
    order: Any,
    classes: Any,
    threshold: float,
    workspace: Any,
    kept: Any,
    kept_count: Any,
    stream: int = 0,
) -> None: ...
def outline_edges(
    lab: NDArray[np.uint8], bits: NDArray[np.bool_], outline: NDArray[np.bool_], out: NDArray[np.int64]
) -> int: ...
def resize(pixels: NDArray[np.uint8], out: NDArray[np.uint8], down_first: bool, threads: int) -> None: ...
def rle_encode(bits: NDArray[np.bool_]) -> bytes: ...
def rle_decode(counts: bytes, height: int, width: int) -> NDArray[np.bool_]: ...
