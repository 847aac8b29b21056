"""Plain JPEGs through NVIDIA DALI, on the CPU (libjpeg-turbo) or the GPU (nvJPEG). The one module that imports DALI.

Resizing stays out of the pipeline. Where a filter reaches over an image's edge, DALI repeats the edge and Pillow,
which the models were trained with, leaves the filter's rest out. So images that are shrunk differ by several grey
levels on their borders, and by one within (`fgfast.bench.decoders` measures it). `fgfast.ops.resize` is Pillow's to the
bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fgfast.errors import UsageError
from fgfast.records import UInt8

_INPUT = "files"


class DaliJpegs:
    """A `JpegLibrary`: one pipeline, built once.

    Args:
        device: "cpu" or "cuda:N".
        threads: of the pipeline's own; on the GPU they undo the Huffman code where the hardware decoder does not.
        batch: files a call, at most; DALI reserves memory for them.

    Raises:
        UsageError: DALI cannot use the device.
    """

    def __init__(self, device: str, threads: int, batch: int) -> None:
        kind, _, index = device.partition(":")
        self._device = device
        self._gpu = int(index or 0) if kind == "cuda" else None
        self._threads = threads
        self._batch = batch
        self._pipeline: Any = None
        try:
            self._pipeline = self._build()
        except Exception as error:  # DALI raises RuntimeError for most things, and others for a missing driver
            raise UsageError(
                f"DALI cannot decode on {device}: {str(error).rstrip(' .')}. Look at the device (fgfast doctor), or "
                "decode with --decoder cpu"
            ) from error

    def decode(self, files: Sequence[UInt8]) -> list[UInt8]:
        """See `fgfast.io.batched.JpegLibrary`. Waits for the device; the pixels are copies in host memory."""
        if self._pipeline is None:
            self._pipeline = self._build()
        pipeline, self._pipeline = self._pipeline, None
        pipeline.feed_input(_INPUT, list(files))
        (images,) = pipeline.run()
        decoded = [np.array(images.at(n)) for n in range(len(files))]
        # Only now: DALI says that a pipeline is not valid any more after an error, and it is built anew then.
        self._pipeline = pipeline
        return decoded

    def close(self) -> None:
        """Free the pipeline's memory."""
        self._pipeline = None

    def _build(self) -> Any:
        from nvidia.dali import Pipeline, fn, types

        # One batch is in flight: whoever calls waits for its images, so there is nothing to fetch ahead. The
        # default (dynamic) executor copies from GPU to CPU within the pipeline and keeps no buffer between calls.
        pipeline = Pipeline(
            batch_size=self._batch, num_threads=self._threads, device_id=self._gpu, prefetch_queue_depth=1
        )
        with pipeline:
            encoded = fn.external_source(name=_INPUT, ndim=1, dtype=types.UINT8, batch=True)
            images = fn.decoders.image(
                encoded, output_type=types.RGB, adjust_orientation=False, use_fast_idct=False, **self._options()
            )
            pipeline.set_outputs(images if self._gpu is None else images.cpu())
        pipeline.build()
        return pipeline

    def _options(self) -> dict[str, Any]:
        if self._gpu is None:
            return {"device": "cpu"}
        return {
            "device": "mixed",
            # Chroma between its samples is interpolated, as libjpeg does it.
            "jpeg_fancy_upsampling": True,
            # The hardware decoder takes all that it can, or an image's pixels would depend on its place in the batch.
            "hw_decoder_load": 1.0,
            # Workers of several devices share the cores; each would pin its threads to the same ones.
            "affine": False,
        }
