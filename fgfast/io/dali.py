"""Plain JPEGs through NVIDIA DALI, on the CPU (libjpeg-turbo) or the GPU (nvJPEG); no other module imports DALI.

The pipeline does not resize. Where a filter reaches over an image's edge, DALI repeats the edge, while Pillow, with
which the models were trained, drops the rest of the filter. Images shrunk by DALI therefore differ from Pillow's by
several grey levels on their borders and by one inside (docs/performance.md). `fgfast.ops.resize` is
bit-identical to Pillow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fgfast.errors import UsageError
from fgfast.records import UInt8

_INPUT = "files"


class DaliJpegs:
    """A `JpegLibrary` around one DALI pipeline, which is built once.

    Args:
        device: "cpu" or "cuda:N".
        threads: the pipeline's own threads; on the GPU they decode the Huffman code where the hardware does not.
        batch: most files per call; DALI reserves memory for them.

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
        except Exception as error:  # DALI raises RuntimeError for most faults, other kinds for a missing driver
            raise UsageError(
                f"DALI cannot decode on {device}: {str(error).rstrip(' .')}. Check the device (fgfast doctor), or "
                "decode with --decoder cpu"
            ) from error

    def decode(self, files: Sequence[UInt8]) -> list[UInt8]:
        """Decode a batch and wait for the device; the pixels, (H, W, 3) uint8 each, are copied to host memory."""
        if self._pipeline is None:
            self._pipeline = self._build()
        pipeline, self._pipeline = self._pipeline, None
        pipeline.feed_input(_INPUT, list(files))
        (images,) = pipeline.run()
        decoded = [np.array(images.at(n)) for n in range(len(files))]
        # After an error a DALI pipeline is invalid: it is kept only now, and rebuilt by the next call otherwise.
        self._pipeline = pipeline
        return decoded

    def close(self) -> None:
        """Free the pipeline's memory."""
        self._pipeline = None

    def _build(self) -> Any:
        from nvidia.dali import Pipeline, fn, types

        # One batch is in flight, because the caller waits for its images: prefetching would gain nothing. The default
        # (dynamic) executor copies from GPU to CPU within the pipeline and keeps no buffer between calls.
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
            # Chroma is interpolated between its samples, as in libjpeg.
            "jpeg_fancy_upsampling": True,
            # The hardware decoder takes every image it can; otherwise pixels would depend on the place in the batch.
            "hw_decoder_load": 1.0,
            # The workers of several devices share the cores; with affinity each would pin its threads to the same ones.
            "affine": False,
        }
