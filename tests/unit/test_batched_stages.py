"""Stages on batches: what each does to its work, with a decoder and models that answer at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from fgfast.errors import ImageBrokenError, ImageMissingError
from fgfast.io.decoders import decoder
from fgfast.pipeline.batched_stages import (
    ChoosePrompt,
    DecoderModel,
    FinishMask,
    decode_stage,
    detect_stage,
    encode_stage,
)
from fgfast.pipeline.prompt import detection_numbers
from fgfast.pipeline.work import Work
from fgfast.records import Detections, Image, Mask, Prompt, Sample, Size
from fgfast.runner import run_item

SIZE = Size(30, 40)


@dataclass
class Model:
    """A model whose slots are dicts; it finds what it was filled with."""

    device: str = "cuda:0"
    batch: int = 4
    filled: list[tuple[Any, ...]] = field(default_factory=list)

    depth: int = 2
    buckets: int = 1

    def bucket(self, image: Image, *box: Any) -> Size:
        return image.size

    def rows(self, bucket: Any) -> int:
        return 2

    def slot(self, bucket: Any) -> dict[int, Any]:
        return {}

    def fill(self, slot: dict[int, Any], row: int, *what: Any) -> None:
        slot[row] = what

    def launch(self, slot: dict[int, Any], rows: int) -> None:
        slot["launched"] = rows  # type: ignore[index]

    def wait(self, slot: dict[int, Any]) -> None:
        assert slot["launched"]  # type: ignore[index]

    def shrink(self) -> None:
        """Its shapes are not fixed."""

    def read(self, slot: dict[int, Any], row: int) -> Any:
        boxes = np.array([[1, 2, 30, 20], [0, 0, 5, 5]], np.float32)
        return Detections(boxes, np.array([0.9, 0.95], np.float32), ("bird", "cup"))


def work(size: Size = SIZE, banner: int = 0, **more: Any) -> Work:
    pixels = np.zeros((*size, 3), np.uint8)
    sample = Sample("a.jpg", Path("a.jpg"), banner_rows=banner)
    return Work(0, sample, "a.jpg", image=Image(pixels), **more)


def test_a_gpu_has_its_next_batch_early_and_a_cpu_computes_one_at_a_time() -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    from fgfast.models.serving.batches import depth_of

    assert (depth_of("cuda:0"), depth_of("cpu")) == (2, 1)


def test_detections_come_to_their_image_and_its_prompt_is_chosen() -> None:
    stage, one = detect_stage(Model()), work()
    assert stage.wants and stage.wants(one)
    assert (stage.model.bucket(*stage.inputs(one)), stage.name) == (SIZE, "detect")
    run_item([stage, ChoosePrompt(frozenset({"bird"}))], one)
    assert one.prompt is not None and one.prompt.box.tolist() == [1, 2, 30, 20]
    assert one.flags == [] and len(one.others) == 1


def test_a_prompt_from_another_process_is_kept() -> None:
    prompt = Prompt(np.array([3, 3, 9, 9], np.float32), "bird")
    one = work(prompt=prompt)
    stage = detect_stage(Model())
    assert stage.wants and not stage.wants(one)
    ChoosePrompt(frozenset())(one)
    assert one.prompt is prompt


def test_what_goes_to_another_process_has_no_pixels_and_keeps_its_time() -> None:
    one = work(prompt=Prompt(np.array([3, 3, 9, 9], np.float32), "bird"), flags=["other class"])
    one.packed({"decode": 0.5, "detect": 1.0})
    assert one.image is None and one.detections is None and one.flags == ["other class"]
    one.packed({"decode": 0.25})
    assert one.seconds == {"decode": 0.75, "detect": 1.0}


def test_the_mask_is_made_at_full_size_without_the_banner() -> None:
    def finish(found: Any, height: int, width: int) -> Mask:
        assert found == "logits"
        bits = np.zeros((height, width), bool)
        bits[5:, 5:35] = True
        return Mask(bits, 0.5)

    one = work(banner=4, prompt=Prompt(np.array([5, 5, 35, 26], np.float32), "bird"), low_res="logits")
    FinishMask(finish)(one)
    assert one.mask is not None and one.low_res is None
    assert one.mask.bits[25, 10] and not one.mask.bits[26:].any()
    assert one.mask.quality == 0.5


def test_a_detected_box_has_numbers() -> None:
    prompt = Prompt(np.array([5, 5, 35, 26], np.float32), "bird", 0.8, "bird")
    others = ((0.0, 0.0, 9.0, 9.0, 0.6, "bird"), (0.0, 0.0, 9.0, 9.0, 0.7, "cat"))
    found = detection_numbers(prompt, others, frozenset({"bird"}))
    assert found == pytest.approx({"low score": 0.2, "close runner-up": 0.75, "not the subject": 0.0})
    assert detection_numbers(prompt, others, frozenset({"dog"}))["not the subject"] == 1
    anything = detection_numbers(prompt, others, frozenset())
    assert anything == pytest.approx({"low score": 0.2, "close runner-up": 0.875})
    assert detection_numbers(Prompt(prompt.box, "nothing"), (), frozenset()) == {}
    nothing = Prompt(prompt.box, "bird", 0.0, "bird")
    assert detection_numbers(nothing, others, frozenset())["close runner-up"] == 1


def test_the_segmenter_gets_image_and_box() -> None:
    stage = encode_stage(Model())
    one = work(prompt=Prompt(np.array([5, 5, 35, 26], np.float32), "bird"))
    image, box = stage.inputs(one)
    assert image is one.image and box.tolist() == [5, 5, 35, 26]
    run_item([stage], one)
    assert one.low_res is not None


@pytest.mark.parametrize("name", ["cpu", "dali_cpu"])
def test_files_are_decoded_together_and_a_bad_one_alone_fails(name: str, tmp_path: Path) -> None:
    if name == "dali_cpu":
        pytest.importorskip("nvidia.dali", reason="nvidia-dali-cuda130 is not installed")
    works = []
    for n in range(4):
        path = tmp_path / f"{n}.jpg"
        if n != 3:
            Pillow.fromarray(np.full((20, 30, 3), 40 * n, np.uint8)).save(path, quality=95)
        works.append(Work(n, Sample(path.name, path), path.name))
    (tmp_path / "1.jpg").write_bytes((tmp_path / "1.jpg").read_bytes()[:200])
    model = DecoderModel(decoder(name, "cpu", 2, batch=4), False, "cpu decoder")
    stage = decode_stage(model)
    slot = model.slot(model.bucket(works[0]))
    with pytest.raises(ImageMissingError):
        model.fill(slot, 3, works[3])
    for row in (0, 1, 2):
        model.fill(slot, row, *stage.inputs(works[row]))
    model.launch(slot, 3)
    model.wait(slot)
    for row in (0, 2):
        stage.store(works[row], model.read(slot, row))
        image = works[row].image
        assert image is not None and image.size == (20, 30) and abs(int(image.pixels[5, 5, 0]) - 40 * row) <= 1
    with pytest.raises(ImageBrokenError):
        model.read(slot, 1)
    model.decoder.close()
