"""Compares masks: whether a decoder's pixels give the same masks as the CPU decoder's."""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image as Pillow

from fgfast import methods
from fgfast.bench.images import samples
from fgfast.config import Settings
from fgfast.io.decode import decode, read_bytes
from fgfast.io.decoders import Decoder, decoder
from fgfast.ops.overlap import iou
from fgfast.pipeline.choices import choose_segmenter
from fgfast.pipeline.job import segment_stages
from fgfast.pipeline.prompt import center_box
from fgfast.pipeline.work import Work
from fgfast.records import Bool, Float32, Image, Prompt, Sample, UInt8
from fgfast.runner import run_item
from fgfast.tolerances import DECODER_MASK_IOU

# The number of images whose masks are compared: that of the sample photographs in all variations.
_MASKED = 40
# The sample photographs are encoded as most data sets are, with chroma at half the resolution: decoders differ most in
# how they upsample it.
_PHOTOGRAPH: dict[str, Any] = {"format": "JPEG", "quality": 90, "subsampling": 2}

Segment = Callable[[UInt8, Float32], Bool]
"""(pixels (H, W, 3) uint8 RGB, box (4,) float32 in pixels) -> mask (H, W)."""


@dataclass(frozen=True, slots=True)
class MaskParity:
    """How the masks made from a decoder's pixels compare with those made from the CPU decoder's.

    Attributes:
        decoder: the name of the decoder.
        images: the number of images that were compared.
        worst_iou: the lowest IoU of the two masks of an image.
        mean_iou: the mean IoU.
    """

    decoder: str
    images: int
    worst_iou: float
    mean_iou: float

    @property
    def right(self) -> bool:
        """Whether the masks agree on every image: whether the worst IoU reaches `DECODER_MASK_IOU`."""
        return self.worst_iou >= DECODER_MASK_IOU


def compare_masks(decoder: str, ours: Sequence[Bool], theirs: Sequence[Bool]) -> MaskParity:
    """Compare the masks of the same images under two decoders.

    Args:
        decoder: the name of the decoder under test.
        ours: the masks from its pixels, (H, W) bool per image.
        theirs: the masks from the CPU decoder's pixels, in the same order.

    Raises:
        ValueError: there is no image, a mask is missing, or the two masks of an image differ in size.
    """
    if not ours:
        raise ValueError("the masks of at least one image must be compared, not of none")
    overlaps = [iou(mine, other) for mine, other in zip(ours, theirs, strict=True)]
    return MaskParity(decoder, len(overlaps), min(overlaps), statistics.fmean(overlaps))


class Prompted(NamedTuple):
    """A file whose image is segmented.

    Attributes:
        data: the content of the file.
        box: the prompt, (4,) float32 x0 y0 x1 y1 in pixels.
    """

    data: bytes
    box: Float32


def prompted(folder: Path | None) -> list[Prompted]:
    """Return the files whose masks are compared: some of a folder, evenly spaced, or the sample photographs.

    A photograph is prompted by the box around its subject, a file of a folder by the middle of the image.
    """
    found = []
    if folder:
        paths = sorted(folder.rglob("*.jpg"))
        for path in paths[:: max(1, len(paths) // _MASKED)][:_MASKED]:
            data = read_bytes(path)
            found.append(Prompted(data, center_box(decode(data, path.name, turn_exif=False).size)))
        return found
    for pixels, box in samples()[0]:
        file = io.BytesIO()
        Pillow.fromarray(pixels).save(file, **_PHOTOGRAPH)
        found.append(Prompted(file.getvalue(), box))
    return found


def segmenter_of(name: str, model_weights: str, device: str) -> tuple[str, Segment]:
    """Load a segmenter as `fgfast convert` does on that device; return its name, which replaces "auto", and itself.

    Raises:
        UsageError: there is no segmenter of that name, or its weights or packages are missing.
    """
    settings = choose_segmenter(Settings(segmenter=name, model_weights=model_weights, devices=device))
    stages = segment_stages(settings, methods.method(settings.segmenter, "segmenter"), settings.places[0])

    def segment(pixels: UInt8, box: Float32) -> Bool:
        work = Work(0, Sample("image", Path("image")), "image", image=Image(pixels), prompt=Prompt(box, "given"))
        run_item(stages, work)
        assert work.mask is not None
        return work.mask.bits

    return settings.segmenter, segment


def compared_masks(
    ours: Mapping[str, Sequence[Decoder]], files: Sequence[Prompted], segment: Segment
) -> list[MaskParity]:
    """Compare the masks under every other decoder with those under the CPU decoder.

    Args:
        ours: name -> decoders; the first one of each decodes.
        files: the files to segment.
        segment: the segmenter.
    """

    def masks(pixels: Sequence[UInt8]) -> list[Bool]:
        return [segment(mine, file.box) for mine, file in zip(pixels, files, strict=True)]

    contents = [file.data for file in files]
    others = {name: own[0] for name, own in ours.items() if name != "cpu"}
    theirs = masks(decode_all(decoder("cpu"), contents)) if others else []
    return [compare_masks(name, masks(decode_all(each, contents)), theirs) for name, each in others.items()]


def decode_all(ours: Decoder, files: Sequence[bytes]) -> list[UInt8]:
    """Decode files in batches of the decoder's preferred size; raise the error of the first file that fails."""
    found: list[UInt8] = []
    for at in range(0, len(files), ours.batch):
        batch = files[at : at + ours.batch]
        for result in ours(batch, [f"{ours.name}'s image"] * len(batch), False):
            if not isinstance(result, Image):
                raise result
            found.append(result.pixels)
    return found
