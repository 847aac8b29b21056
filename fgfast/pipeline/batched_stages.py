"""The stages that process a batch of images, each by a model on slots: decode (by a library), detect, encode."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fgfast.errors import DeviceMemoryError, NotFiniteError, SampleError, UsageError, WeightsError
from fgfast.io.decoders import Decoder
from fgfast.pipeline.prompt import detection_numbers
from fgfast.pipeline.stages import read_source, set_mask, set_prompt
from fgfast.pipeline.work import Work
from fgfast.records import Detections, Float32, Image, Mask
from fgfast.runner import BatchedStage, SlotModel, run_batch

log = logging.getLogger("fgfast")


@dataclass(slots=True)
class _Rows:
    """A slot of `Rechecked`: the model's slot, and the inputs of each row."""

    slot: Any
    inputs: dict[int, tuple[Any, ...]]


class Rechecked:
    """A model whose outputs for an image, where they are not finite, are computed once more in float32.

    It stands for the model in a stage; see `fgfast.runner.SlotModel`. The other images of the batch keep their results.

    Args:
        model: the model.
        exact: builds the same model in float32, when it is first needed; None where the model computes in it.
    """

    def __init__(self, model: SlotModel, exact: Callable[[], SlotModel] | None) -> None:
        self.model, self._build = model, exact
        self.device, self.depth = model.device, model.depth
        self.bucket, self.rows, self.shrink = model.bucket, model.rows, model.shrink
        self._exact: SlotModel | None = None
        self._one_at_a_time = threading.Lock()

    @property
    def batch(self) -> int:
        """The most rows of any slot."""
        return self.model.batch

    @property
    def buckets(self) -> int:
        """The number of buckets among which items are spread."""
        return self.model.buckets

    def slot(self, bucket: Any) -> _Rows:
        """Create a slot."""
        return _Rows(self.model.slot(bucket), {})

    def fill(self, slot: _Rows, row: int, *inputs: Any) -> None:
        """Write inputs into a row."""
        self.model.fill(slot.slot, row, *inputs)
        slot.inputs[row] = inputs

    def launch(self, slot: _Rows, rows: int) -> None:
        """Queue the first `rows` rows on the device."""
        self.model.launch(slot.slot, rows)

    def wait(self, slot: _Rows) -> None:
        """Block until the results of the slot can be read."""
        self.model.wait(slot.slot)

    def read(self, slot: _Rows, row: int) -> Any:
        """Return the result of a row.

        Raises:
            NotFiniteError: it is not finite, in float32 either.
        """
        inputs = slot.inputs.pop(row)
        try:
            return self.model.read(slot.slot, row)
        except NotFiniteError as error:
            if self._build is None:
                raise
            return self._again(self._build, inputs, error)

    def _again(self, build: Callable[[], SlotModel], inputs: tuple[Any, ...], error: NotFiniteError) -> Any:
        with self._one_at_a_time:
            try:
                if self._exact is None:
                    log.warning("some outputs of a model are not finite; these images are computed again in float32")
                    self._exact = build()
                (result,) = run_batch(self._exact, [inputs])
            except (UsageError, WeightsError, DeviceMemoryError) as why:  # there is no model in float32 here
                log.warning("float32 cannot be tried: %s", why)
                raise error from None
        return result


def detect_stage(model: SlotModel) -> BatchedStage[Work]:
    """Image -> Detections, for works without a prompt; those from another process have one."""

    def store(work: Work, found: Detections) -> None:
        work.detections = found

    return BatchedStage("detect", model, lambda work: (work.image,), store, lambda work: work.prompt is None)


@dataclass(frozen=True, slots=True)
class ChoosePrompt:
    """Detections -> Prompt.

    Attributes:
        right: names that count as the subject; see `choose_prompt`.
    """

    right: frozenset[str]
    name: str = "detect"

    def __call__(self, work: Work) -> None:
        if work.prompt is None:
            prompt = set_prompt(work, self.right)
            work.numbers |= detection_numbers(prompt, work.others, self.right)


def encode_stage(model: SlotModel) -> BatchedStage[Work]:
    """Image, Prompt -> low-resolution logits, by SAM's image encoder and mask decoder."""

    def inputs(work: Work) -> tuple[Image, Float32]:
        assert work.image is not None and work.prompt is not None
        return work.image, work.prompt.box

    def store(work: Work, found: Any) -> None:
        work.low_res = found

    return BatchedStage("encode", model, inputs, store)


@dataclass(frozen=True, slots=True)
class FinishMask:
    """Low-resolution logits -> Mask at full size, on the CPU.

    Attributes:
        finish: (logits as read, height, width) -> Mask.
    """

    finish: Callable[[Any, int, int], Mask]
    name: str = "mask"

    def __call__(self, work: Work) -> None:
        assert work.image is not None
        height, width = work.image.size
        mask = self.finish(work.low_res, height, width)
        work.low_res = None
        if work.sample.banner_rows:
            mask.bits[max(0, height - work.sample.banner_rows) :] = False
        set_mask(work, mask)


@dataclass(slots=True)
class _Files:
    """A slot of `DecoderModel`."""

    files: list[bytes]
    names: list[str]
    images: Sequence[Image | SampleError] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class DecoderModel:
    """A decoder of many files at once; see `fgfast.runner.SlotModel`. A file that cannot be decoded fails alone.

    Attributes:
        decoder: the decoder.
        turn_exif: see `fgfast.io.decode.decode`.
        device: a name of its own, because it computes beside the models.
    """

    decoder: Decoder
    turn_exif: bool
    device: str
    depth: int = 1
    buckets: int = 1

    @property
    def batch(self) -> int:
        """The decoder's preferred number of files per call."""
        return self.decoder.batch

    def bucket(self, work: Work) -> str:
        """Return the same bucket for all files: any of them can share a batch."""
        return ""

    def rows(self, bucket: str) -> int:
        """Return `batch`."""
        return self.batch

    def slot(self, bucket: str) -> _Files:
        """Create room for the contents of `batch` files."""
        return _Files([b""] * self.batch, [""] * self.batch)

    def fill(self, slot: _Files, row: int, work: Work) -> None:
        """Read the file."""
        slot.files[row], slot.names[row] = read_source(work), work.sample.key

    def launch(self, slot: _Files, rows: int) -> None:
        """Decode the files, and wait for the images."""
        slot.images = self.decoder(slot.files[:rows], slot.names[:rows], self.turn_exif)

    def wait(self, slot: _Files) -> None:
        """Do nothing: `launch` has waited."""

    def read(self, slot: _Files, row: int) -> Image:
        """Return the image, or raise its error."""
        image = slot.images[row]
        if isinstance(image, SampleError):
            raise image
        return image

    def shrink(self) -> None:
        """Do nothing: there are no fixed shapes, and smaller batches suffice."""


def decode_stage(model: DecoderModel) -> BatchedStage[Work]:
    """File -> Image."""

    def store(work: Work, image: Image) -> None:
        work.image = image

    return BatchedStage("decode", model, lambda work: (work,), store)
