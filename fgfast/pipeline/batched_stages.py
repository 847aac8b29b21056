"""Stages that work on batches: decoding where a library does it, and the two models. What each does to a batch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fgfast.errors import SampleError
from fgfast.io.decode import read_bytes
from fgfast.io.decoders import Decoder
from fgfast.pipeline.stages import Work, choose, keep
from fgfast.records import Detections, Float32, Image, Mask


class BatchModel(Protocol):
    """A model on slots: see fgfast.models.serving.batches."""

    device: str

    @property
    def batch(self) -> int: ...

    def bucket(self, image: Image) -> Any: ...

    def rows(self, bucket: Any) -> int: ...

    def slot(self, bucket: Any) -> Any: ...

    def launch(self, slot: Any, rows: int) -> None: ...

    def wait(self, slot: Any) -> None: ...


class BatchDetector(BatchModel, Protocol):
    """A detector on slots."""

    def fill(self, slot: Any, row: int, image: Image) -> None: ...

    def read(self, slot: Any, row: int) -> Detections: ...


class BatchSegmenter(BatchModel, Protocol):
    """A segmenter on slots; one box (4,) float32 per image, in its stored pixels."""

    def fill(self, slot: Any, row: int, image: Image, box: Float32) -> None: ...

    def read(self, slot: Any, row: int) -> Any: ...


class ModelStage:
    """What the stages of both models share: their model's buckets and slots."""

    name: str
    model: BatchModel

    @property
    def device(self) -> str:
        """Of the model."""
        return self.model.device

    @property
    def batch(self) -> int:
        """Most images of a batch."""
        return self.model.batch

    @property
    def depth(self) -> int:
        """Batches queued on the device at a time: a GPU has its next one before it is through with the last."""
        return 2 if self.model.device.startswith("cuda") else 1

    def wants(self, work: Work) -> bool:
        """Every image."""
        return True

    def bucket(self, work: Work) -> Hashable:
        """As the model says."""
        assert work.image is not None
        found: Hashable = self.model.bucket(work.image)
        return found

    def rows(self, bucket: Any) -> int:
        """As the model says."""
        return self.model.rows(bucket)

    def slot(self, bucket: Any) -> Any:
        """As the model makes it."""
        return self.model.slot(bucket)

    def launch(self, slot: Any, rows: int) -> None:
        """Compute, or queue."""
        self.model.launch(slot, rows)

    def wait(self, slot: Any) -> None:
        """Until the results are in host memory."""
        self.model.wait(slot)


@dataclass(frozen=True, slots=True)
class DetectBatch(ModelStage):
    """Images -> Detections."""

    model: BatchDetector
    name: str = "detect"

    def wants(self, work: Work) -> bool:
        """Images that have no prompt yet; one that comes from another process has."""
        return work.prompt is None

    def fill(self, slot: Any, row: int, work: Work) -> None:
        """Resize the image into its row."""
        assert work.image is not None
        self.model.fill(slot, row, work.image)

    def read(self, slot: Any, row: int, work: Work) -> None:
        """What was found."""
        work.detections = self.model.read(slot, row)


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
            choose(work, self.right)


@dataclass(frozen=True, slots=True)
class EncodeBatch(ModelStage):
    """Images, Prompts -> low-resolution logits: SAM's image encoder and mask decoder."""

    model: BatchSegmenter
    name: str = "encode"

    def fill(self, slot: Any, row: int, work: Work) -> None:
        """Resize the image into its row, and its box with it."""
        assert work.image is not None and work.prompt is not None
        self.model.fill(slot, row, work.image, work.prompt.box)

    def read(self, slot: Any, row: int, work: Work) -> None:
        """The logits."""
        work.low_res = self.model.read(slot, row)


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
        width, height = work.image.size
        made = self.finish(work.low_res, height, width)
        work.low_res = None
        if work.sample.banner_rows:
            made.bits[max(0, height - work.sample.banner_rows) :] = False
        keep(work, Mask(made.bits, float(made.quality)), judge=True)


@dataclass(slots=True)
class _Files:
    """A slot of `DecodeBatch`."""

    files: list[bytes]
    names: list[str]
    images: Sequence[Image | SampleError] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class DecodeBatch:
    """Files -> Images, many at once. A file that cannot be decoded is an error of its own and spoils no batch.

    Attributes:
        decoder: does it.
        turn_exif: see `fgfast.io.decode.decode`.
        device: its own, for it computes beside the models.
    """

    decoder: Decoder
    turn_exif: bool
    device: str
    name: str = "decode"
    depth: int = 1

    @property
    def batch(self) -> int:
        """As the decoder likes it."""
        return self.decoder.batch

    def wants(self, work: Work) -> bool:
        """Every image."""
        return True

    def bucket(self, work: Work) -> Hashable:
        """All files can share a batch."""
        return ""

    def rows(self, bucket: Hashable) -> int:
        """As the decoder likes it."""
        return self.decoder.batch

    def slot(self, bucket: Hashable) -> _Files:
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

    def read(self, slot: _Files, row: int, work: Work) -> None:
        """The image, or its error."""
        image = slot.images[row]
        if isinstance(image, SampleError):
            raise image
        work.image = image
