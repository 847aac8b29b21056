"""Grounding DINO with a small model of random weights: the way from pictures and phrases to detections."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import torchvision_shim

from fgfast.errors import MissingExtraError, UnknownNameError, UsageError, WeightsError
from fgfast.models import grounding_dino
from fgfast.models.grounding_dino import GroundingDinoDetector, build, prompt_text
from fgfast.records import Detections, Image

torchvision_shim.declare()

PHRASES = ("Bird", "red car", "dog")
# The same picture in a larger batch takes other kernels, which add in another order.
SCORE_TOLERANCE, PIXEL_TOLERANCE = 1e-4, 0.02
# Of token logits with a standard deviation of 5: mantissas of 8 and 11 bits.
HALF_LOGITS: dict[grounding_dino.Precision, float] = {"bf16": 0.6, "fp16": 0.08}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The model is too small for more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def picture(height: int, width: int, seed: int = 0) -> Image:
    """A picture of large blocks, so that resizing leaves something to see."""
    blocks = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return Image(np.ascontiguousarray(blocks.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]))


@pytest.fixture(scope="module")
def detector() -> GroundingDinoDetector:
    return build("grounding_dino_tiny", PHRASES, "random:0")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the Hugging Face cache holds it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    for part in grounding_dino._random("0"):
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def reference(detector: GroundingDinoDetector) -> Any:
    """transformers' own way from pictures and phrases to boxes."""
    from transformers import GroundingDinoProcessor

    return GroundingDinoProcessor(detector._processor, grounding_dino._random("0")[1])


def with_thresholds(detector: GroundingDinoDetector, box: float, text: float) -> GroundingDinoDetector:
    changed = copy.copy(detector)
    changed.box_threshold, changed.text_threshold = box, text
    return changed


def assert_same(got: Detections, wanted: Detections) -> None:
    assert got.labels == wanted.labels
    np.testing.assert_allclose(got.scores, wanted.scores, atol=SCORE_TOLERANCE)
    np.testing.assert_allclose(got.boxes, wanted.boxes, atol=PIXEL_TOLERANCE)


def crafted(tokens: dict[int, float], length: int = 256) -> torch.Tensor:
    """(1, length) logits with these probabilities at these tokens, and next to nothing elsewhere."""
    row = torch.full((1, length), -20.0)
    for index, probability in tokens.items():
        row[0, index] = torch.logit(torch.tensor(probability))
    return row


class TestPrompt:
    def test_each_phrase_is_lower_case_and_ends_with_a_dot(self) -> None:
        assert prompt_text(["Bird", "Red  car "]) == "bird . red car ."

    @pytest.mark.parametrize("phrases", [[], [""], ["bird", "  "]])
    def test_empty(self, phrases: list[str]) -> None:
        with pytest.raises(UsageError, match="at least one subject word"):
            prompt_text(phrases)

    @pytest.mark.parametrize("phrase", ["st. bernard", "bird?"])
    def test_the_networks_separators_are_refused(self, phrase: str) -> None:
        with pytest.raises(UsageError, match="ends a phrase"):
            prompt_text([phrase])

    def test_a_phrase_given_twice(self) -> None:
        with pytest.raises(UsageError, match="'bird' is given twice"):
            prompt_text(["bird", "Bird"])

    def test_more_than_the_network_reads(self) -> None:
        with pytest.raises(UsageError, match=r"tokens; Grounding DINO reads 256"):
            build("grounding_dino_tiny", [f"subject{i:04}" for i in range(30)], "random:0")


class TestDetections:
    def test_shapes_order_and_limits(self, detector: GroundingDinoDetector) -> None:
        images = [picture(90, 120, 1), picture(200, 120, 2)]
        for image, found in zip(images, detector(images), strict=True):
            width, height = image.size
            assert found.boxes.dtype == np.float32 and len(found.boxes) > 3
            assert (np.diff(found.scores) <= 0).all() and (found.scores > detector.box_threshold).all()
            assert set(found.labels) <= set(PHRASES)
            assert (found.boxes >= 0).all() and (found.boxes <= [width, height, width, height]).all()
            assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()

    def test_boxes_are_in_pixels_of_the_stored_picture(self, detector: GroundingDinoDetector) -> None:
        half, quarter = torch.tensor([[0.5, 0.5, 0.5, 0.25]]), torch.tensor([[0.9, 0.1, 0.4, 0.4]])
        inside = detector._select(crafted({1: 0.9}), half, (400, 200))
        clipped = detector._select(crafted({1: 0.9}), quarter, (400, 200))
        np.testing.assert_allclose(inside.boxes, [[100, 75, 300, 125]], atol=1e-4)
        np.testing.assert_allclose(clipped.boxes, [[280, 0, 400, 60]], atol=1e-4)

    def test_stored_size_scales_the_boxes(self, detector: GroundingDinoDetector) -> None:
        # Twice the pixels of a picture that is resized to the same size.
        small, large = picture(128, 160), picture(128, 160)
        large = Image(np.ascontiguousarray(large.pixels.repeat(2, axis=0).repeat(2, axis=1)))
        pixels = detector.preprocess(small)
        logits, boxes = detector.forward(pixels[None])
        one, two = (detector._select(logits[0], boxes[0], image.size) for image in (small, large))
        np.testing.assert_allclose(one.boxes * 2, two.boxes, atol=1e-4)

    def test_the_reference_finds_the_same(self, detector: GroundingDinoDetector, reference: Any) -> None:
        image = picture(90, 120, 3)
        inputs = reference(
            images=image.pixels, text=detector.prompt, return_tensors="pt", input_data_format="channels_last"
        )
        with torch.no_grad():
            outputs = detector._model(**inputs)
        wanted = reference.post_process_grounded_object_detection(
            outputs, threshold=0.4, text_threshold=0.3, target_sizes=[image.pixels.shape[:2]]
        )[0]
        order = wanted["scores"].argsort(descending=True, stable=True)
        order = order[[bool(wanted["text_labels"][i].replace(".", "").strip()) for i in order]]
        found = detector([image])[0]
        assert len(found.boxes) > 3
        np.testing.assert_allclose(found.scores, wanted["scores"][order].numpy(), atol=1e-6)
        np.testing.assert_allclose(found.boxes, wanted["boxes"][order].numpy().clip(0, [120, 90, 120, 90]), atol=1e-3)

    def test_the_reference_names_the_same(self, detector: GroundingDinoDetector, reference: Any) -> None:
        spans = [slice(1, 5), slice(6, 12), slice(13, 16)]
        logits = torch.cat([crafted(dict.fromkeys(range(s.start, s.stop), 0.5 + 0.1 * i)) for i, s in enumerate(spans)])
        boxes = torch.full((3, 4), 0.5)
        outputs = SimpleNamespace(logits=logits[None], pred_boxes=boxes[None], input_ids=detector._text["input_ids"])
        wanted = reference.post_process_grounded_object_detection(outputs, threshold=0.4, text_threshold=0.3)[0]
        assert wanted["text_labels"] == ["bird", "red car", "dog"]
        assert detector._select(logits, boxes, (9, 9)).labels == ("dog", "red car", "Bird")  # by score

    def test_same_bits_again(self, detector: GroundingDinoDetector) -> None:
        first, again = detector([picture(90, 120)])[0], detector([picture(90, 120)])[0]
        other = build("grounding_dino_tiny", PHRASES, "random:1")([picture(90, 120)])[0]
        assert np.array_equal(first.boxes, again.boxes) and np.array_equal(first.scores, again.scores)
        assert not np.array_equal(first.scores[:3], other.scores[:3])

    def test_no_pictures(self, detector: GroundingDinoDetector) -> None:
        assert detector([]) == []

    def test_nothing_found(self, detector: GroundingDinoDetector) -> None:
        none = detector._select(crafted({}), torch.full((1, 4), 0.5), (40, 30))
        assert none.boxes.shape == (0, 4) and none.labels == ()


class TestBatch:
    def test_neighbours_change_nothing(self, detector: GroundingDinoDetector) -> None:
        """Also of other sizes, in any order: only pictures of one size are computed together."""
        images = [picture(90, 120, 1), picture(200, 120, 2), picture(180, 240, 3), picture(100, 100, 4)]
        for image, found in zip(images, detector(images), strict=True):
            assert_same(found, detector([image])[0])

    def test_the_reference_depends_on_neighbours(self, detector: GroundingDinoDetector) -> None:
        """Why pictures of different sizes are not padded into one batch."""
        pictures = [picture(90, 120, 1).pixels, picture(200, 120, 2).pixels]
        padded = detector._processor(images=pictures, return_tensors="pt", input_data_format="channels_last")
        text = {name: rows.expand(2, -1) for name, rows in detector._text.items()}
        with torch.no_grad():
            out = detector._model(**padded, **text)
        logits, _ = detector.forward(detector.preprocess(Image(pictures[0]))[None])
        spread = (out.logits[0].amax(1).sort().values - logits[0].amax(1).sort().values).abs().max()
        assert spread > 100 * SCORE_TOLERANCE

    @pytest.mark.parametrize("size", [(4, 300), (300, 4), (12, 12)])
    def test_thin_and_tiny_pictures(self, detector: GroundingDinoDetector, size: tuple[int, int]) -> None:
        found = detector([picture(*size)])[0]
        assert np.isfinite(found.boxes).all() and (found.boxes <= [*size[::-1], *size[::-1]]).all()


class TestThresholds:
    def test_defaults_are_the_model_cards(self, detector: GroundingDinoDetector) -> None:
        assert (detector.box_threshold, detector.text_threshold) == (0.4, 0.3)

    def test_box_threshold_keeps_the_best(self, detector: GroundingDinoDetector) -> None:
        image = picture(90, 120)
        everything = with_thresholds(detector, 0, 0)([image])[0]
        middle = float(np.sort(everything.scores)[len(everything.scores) // 2])
        found = with_thresholds(detector, middle, 0)([image])[0]
        count = int((everything.scores > middle).sum())
        assert 0 < count < len(everything.scores)
        assert_same(found, Detections(everything.boxes[:count], everything.scores[:count], everything.labels[:count]))

    def test_tokens_decide_the_phrase(self, detector: GroundingDinoDetector) -> None:
        # [CLS]=0 b i r d . r e d c a r . d o g . [SEP]: bird 1..4, red car 6..11, dog 13..15
        box = torch.full((1, 4), 0.5)
        assert detector._select(crafted({2: 0.5}), box, (9, 9)).labels == ("Bird",)
        assert detector._select(crafted({2: 0.5, 11: 0.6}), box, (9, 9)).labels == ("red car",)
        assert detector._select(crafted({13: 0.7, 11: 0.6}), box, (9, 9)).labels == ("dog",)

    def test_a_box_without_a_phrase_is_dropped(self, detector: GroundingDinoDetector) -> None:
        # The dot behind "bird" scores high, no phrase does.
        box = torch.full((1, 4), 0.5)
        assert detector._select(crafted({5: 0.9, 2: 0.2}), box, (9, 9)).labels == ()
        assert detector._select(crafted({5: 0.9, 2: 0.35}), box, (9, 9)).labels == ("Bird",)

    @pytest.mark.parametrize("value", [-0.1, 1.0])
    def test_out_of_range(self, value: float) -> None:
        with pytest.raises(UsageError, match=r"threshold must be in 0\.\.1"):
            build("grounding_dino_tiny", PHRASES, "random:0", text_threshold=value)


class TestPreprocessing:
    def test_equals_the_models_own(self, detector: GroundingDinoDetector) -> None:
        from PIL import Image as Pillow

        image = picture(90, 120, 5)
        resized = np.asarray(Pillow.fromarray(image.pixels).resize((170, 128), Pillow.Resampling.BILINEAR))
        wanted = (resized / np.float32(255) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        got = detector.preprocess(image)
        assert got.dtype == torch.float32 and got.shape == (3, 128, 170)
        np.testing.assert_allclose(got.numpy(), wanted.transpose(2, 0, 1), atol=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision(detector: GroundingDinoDetector, precision: grounding_dino.Precision) -> None:
    half = build("grounding_dino_tiny", PHRASES, "random:0", precision=precision)
    pixels = detector.preprocess(picture(90, 120))[None]
    logits, boxes = half.forward(pixels)
    assert logits.dtype == boxes.dtype == torch.float32
    assert not torch.equal(boxes, boxes.to(getattr(torch, grounding_dino.DTYPES[precision])).float())
    assert half([picture(90, 120)])[0].boxes.shape[0] > 3

    # Compared before the network chooses its queries: whom it chooses, and in what order, turns on small differences.
    with torch.no_grad():
        exact = detector._model(pixel_values=pixels, **detector._text).enc_outputs_class
        with torch.autocast("cpu", getattr(torch, grounding_dino.DTYPES[precision])):
            rough = half._model(pixel_values=pixels, **half._text).enc_outputs_class
    seen = torch.isfinite(exact)
    assert rough.dtype == torch.float32 and torch.equal(seen, torch.isfinite(rough))
    assert 0 < (exact - rough)[seen].abs().max() < HALF_LOGITS[precision]


class TestWeights:
    def test_a_folder(self, detector: GroundingDinoDetector, checkpoint: Path) -> None:
        image = picture(90, 120)
        assert_same(build("grounding_dino_base", PHRASES, checkpoint)([image])[0], detector([image])[0])

    def test_the_cache(self, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fgfast.models.weights.path", lambda name: checkpoint)
        assert build("grounding_dino_tiny", PHRASES).phrases == PHRASES

    def test_a_pull_that_was_asked_for(self, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fgfast.models.weights.pull", lambda name: checkpoint)
        assert build("grounding_dino_tiny", PHRASES, pull=True).phrases == PHRASES

    @pytest.mark.parametrize("name", grounding_dino.NAMES)
    def test_absent_says_what_to_type(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("HF_HUB_CACHE", raising=False)
        monkeypatch.setenv("HF_HOME", str(tmp_path))
        with pytest.raises(UsageError, match=f"fgfast models pull {name}"):
            build(name, PHRASES)

    def test_weights_that_lack_some(self, checkpoint: Path, tmp_path: Path) -> None:
        from safetensors.torch import load_file, save_file

        for file in checkpoint.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        weights = load_file(checkpoint / "model.safetensors")
        weights.pop("model.text_projection.weight")
        save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(WeightsError, match=r"lacks 1 weights, the first .*text_projection"):
            build("grounding_dino_tiny", PHRASES, tmp_path)

    def test_no_checkpoint(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"lacks config\.json, model\.safetensors"):
            build("grounding_dino_tiny", PHRASES, tmp_path)

    def test_names(self) -> None:
        with pytest.raises(UnknownNameError, match="grounding_dino_tiny"):
            build("grounding_dino_tini", PHRASES)
        with pytest.raises(UsageError, match="random:SEED"):
            build("grounding_dino_tiny", PHRASES, "random:x")
        with pytest.raises(UnknownNameError, match="precision"):
            build("grounding_dino_tiny", PHRASES, "random:0", precision="int8")  # type: ignore[arg-type]

    @pytest.mark.parametrize("package", ["torch", "transformers"])
    def test_the_extra_is_named(self, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingExtraError, match=rf'{package}, .*pip install "fgfast\[text\]"'):
            build("grounding_dino_tiny", PHRASES, "random:0")
