"""PyTorch's flags for all of a process: float32 is float32, and cuDNN's attention is off unless it was measured.

TensorFloat-32 has ten bits of mantissa, three decimal digits. PyTorch allows it for convolutions by default, in every
precision: CenterNet's last convolution, which stays float32 in half-precision Detic, gives coordinates of up to 2400
pixels. PyTorch 2.9 replaced the flags (`allow_tf32`) by texts (`fp32_precision`), and raises where one kind is read
after only the other was set (ATen/Context.cpp, `allowTF32CuDNN`, `allowTF32CuBLAS`); so both are set, the old ones
first, because they reset the new ones to "none", which takes over what was set for all operators.

PyTorch prefers cuDNN's attention on Hopper and on Blackwell's data-centre GPUs (`check_prefer_cudnn_attention` in
ATen/native/transformers/cuda/sdp_utils.cpp). It builds a plan for each new shape, which takes tenths of a second; an
eager detector meets new shapes all the time.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_backends: Any = torch.backends
_EXACT = "ieee"


def set_flags() -> None:
    """Turn TensorFloat-32 and cuDNN's attention off in this process. It is cheap where they are off already."""
    if not _exact():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch 2.9 and 2.10 warn of the old flags
            torch.set_float32_matmul_precision("highest")  # oneDNN's on a CPU, too
            _backends.cuda.matmul.allow_tf32 = False
            _backends.cudnn.allow_tf32 = False
        for operators in _operators():
            operators.fp32_precision = _EXACT
    if _backends.cuda.cudnn_sdp_enabled():
        _backends.cuda.enable_cudnn_sdp(False)


@contextmanager
def cudnn_attention(on: bool) -> Iterator[None]:
    """Allow cuDNN's attention inside, for a graph of fixed shapes that is faster with it; False changes nothing."""
    if not on:
        yield
        return
    _backends.cuda.enable_cudnn_sdp(True)
    try:
        yield
    finally:
        _backends.cuda.enable_cudnn_sdp(False)


def _exact() -> bool:
    if operators := _operators():
        return all(one.fp32_precision == _EXACT for one in operators)
    return torch.get_float32_matmul_precision() == "highest" and not _backends.cudnn.allow_tf32


def _operators() -> tuple[Any, ...]:
    """Return what has a precision of its own, from PyTorch 2.9 on."""
    if not hasattr(_backends.cudnn, "conv"):
        return ()
    cudnn, onednn = _backends.cudnn, _backends.mkldnn
    return _backends.cuda.matmul, cudnn.conv, cudnn.rnn, onednn.matmul, onednn.conv, onednn.rnn
