"""Plain JPEGs through torchvision's nvJPEG; no other module of `fgfast.io` imports torch.

This decoder serves machines that have PyTorch but not DALI. torchvision does not interpolate chroma, so its pixels
differ more from libjpeg's than DALI's do; the parity check measures whether that matters. torchvision has deprecated
its decoders since 0.29, in favour of TorchCodec's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fgfast.errors import UsageError
from fgfast.records import UInt8


class NvJpegs:
    """A `JpegLibrary` on a CUDA device.

    Args:
        device: "cuda" or "cuda:N".

    Raises:
        UsageError: torchvision does not fit the installed torch, or torch cannot use the device.
    """

    def __init__(self, device: str) -> None:
        import torch

        if not torch.cuda.is_available():
            raise UsageError(f"torch cannot use {device}; install a torch built for CUDA, or decode with --decoder cpu")
        try:
            from torchvision.io import ImageReadMode, decode_jpeg
        except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
            raise UsageError(
                f"torchvision cannot be imported ({error}); install the one that belongs to the installed torch, "
                "or decode with --decoder cpu"
            ) from error
        self._torch: Any = torch
        self._decode: Any = decode_jpeg
        self._mode: Any = ImageReadMode.RGB
        self._device = device

    def decode(self, files: Sequence[UInt8]) -> list[UInt8]:
        """Decode a batch and wait for the device; the pixels, (H, W, 3) uint8 each, are copied to host memory."""
        # The files are copied because torch warns about read-only arrays.
        encoded = [self._torch.from_numpy(np.array(file)) for file in files]
        images = self._decode(encoded, mode=self._mode, device=self._device)
        return [image.permute(1, 2, 0).contiguous().cpu().numpy() for image in images]

    def close(self) -> None:
        """Do nothing: torchvision keeps its decoder for the whole process."""
