"""What is done to a batch of images: decode where a library does it, detect, encode. Each is a model on slots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fgfast.errors import SampleError
from fgfast.io.decode import read_bytes
from fgfast.io.decoders import Decoder
from fgfast.pipeline.stages import set_mask, set_prompt
from fgfast.pipeline.work import Work
from fgfast.records import Detections, Float32, Image, Mask
from fgfast.runner import BatchedStage, SlotModel


def detect_stage(model: SlotModel) -> BatchedStage[Work]:
    """Images -> Detections, of those that have no prompt yet; one that comes from another process has."""

    def store(work: Work, found: Detections) -> None:
        work.detections = found

    return BatchedStage("detect", model, _image, store, lambda work: work.prompt is None)


def _image(work: Work) -> tuple[Image]:
    assert work.image is not None
    return (work.image,)


@dataclass(frozen=True, slots=True)
class ChoosePrompt:
    """Detections -> Prompt.

    Attributes:
        right: names that count as the subject, see `choose_prompt`.
    """

    right: frozenset[str]
    name: str = "detect"

    def __call__(self, work: Work) -> None:
        if work.prompt is None:
            set_prompt(work, self.right)


def encode_stage(model: SlotModel) -> BatchedStage[Work]:
    """Images, Prompts -> low-resolution logits: SAM's image encoder and mask decoder."""

    def store(work: Work, found: Any) -> None:
        work.low_res = found

    return BatchedStage("encode", model, _image_and_box, store)


def _image_and_box(work: Work) -> tuple[Image, Float32]:
    assert work.image is not None and work.prompt is not None
    return work.image, work.prompt.box


@dataclass(frozen=True, slots=True)
class FinishMask:
    """Low-resolution logits -> Mask at full size, on the CPU.

    Attributes:
        finish: (logits as read, height, width) -> something with `bits` (H, W) bool and `quality`.
    """

    finish: Callable[[Any, int, int], Any]
    name: str = "mask"

    def __call__(self, work: Work) -> None:
        assert work.image is not None
        height, width = work.image.pixels.shape[:2]
        made = self.finish(work.low_res, height, width)
        work.low_res = None
        if work.sample.banner_rows:
            made.bits[max(0, height - work.sample.banner_rows) :] = False
        set_mask(work, Mask(made.bits, float(made.quality)))


@dataclass(slots=True)
class _Files:
    """A slot of `DecoderModel`."""

    files: list[bytes]
    names: list[str]
    images: Sequence[Image | SampleError] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class DecoderModel:
    """A decoder of many files at once, on slots. A file that cannot be decoded is an error of its own and spoils no
    batch.

    Attributes:
        decoder: decodes.
        turn_exif: see `fgfast.io.decode.decode`.
        device: its own, for it computes beside the models.
    """

    decoder: Decoder
    turn_exif: bool
    device: str
    depth: int = 1

    @property
    def batch(self) -> int:
        """The most files per call, as the decoder says."""
        return self.decoder.batch

    def bucket(self, work: Work) -> str:
        """One bucket: all files can share a batch."""
        return ""

    def rows(self, bucket: str) -> int:
        """The same for every bucket."""
        return self.decoder.batch

    def slot(self, bucket: str) -> _Files:
        """Room for the contents of files."""
        return _Files([b""] * self.batch, [""] * self.batch)

    def fill(self, slot: _Files, row: int, work: Work) -> None:
        """Read the file."""
        slot.files[row], slot.names[row] = read_bytes(work.sample.path), work.sample.key

    def launch(self, slot: _Files, rows: int) -> None:
        """Decode."""
        slot.images = self.decoder(slot.files[:rows], slot.names[:rows], self.turn_exif)

    def wait(self, slot: _Files) -> None:
        """Nothing is left to wait for."""

    def read(self, slot: _Files, row: int) -> Image:
        """The image; raises the error of one that cannot be decoded."""
        image = slot.images[row]
        if isinstance(image, SampleError):
            raise image
        return image

    def shrink(self) -> None:
        """The decoder takes any number of files: smaller batches are all there is to do."""


def decode_stage(model: DecoderModel) -> BatchedStage[Work]:
    """Files -> Images."""

    def store(work: Work, image: Image) -> None:
        work.image = image

    return BatchedStage("decode", model, lambda work: (work,), store)
