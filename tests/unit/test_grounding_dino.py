"""Grounding DINO with a small model of random weights: the way from images and phrases to detections."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from parity.in_slots import alone

from fgfast.errors import UsageError
from fgfast.methods import ModelSpec
from fgfast.models.grounding_dino import small
from fgfast.models.grounding_dino.detector import GroundingDinoDetector
from fgfast.models.grounding_dino.graph import ImageGraph
from fgfast.models.grounding_dino.prompt import prompt_text
from fgfast.models.grounding_dino.sessions import build
from fgfast.models.serving.batches import resized
from fgfast.records import Detections, Image, Size
from fgfast.studies import torchvision_shim

torchvision_shim.declare()

PHRASES = ("Bird", "red car", "dog")
# The same image in a larger batch takes other kernels, which add in another order.
SCORE_TOLERANCE, PIXEL_TOLERANCE = 1e-4, 0.02


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The model is too small for more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_image(height: int, width: int, seed: int = 0) -> Image:
    """An image of large blocks, so that resizing leaves something to see."""
    blocks = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return Image(np.ascontiguousarray(blocks.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]))


@pytest.fixture(scope="module")
def detector() -> GroundingDinoDetector:
    return build(ModelSpec("grounding_dino_tiny", "random:0"), PHRASES)


@pytest.fixture(scope="module")
def network() -> Any:
    return small.network(0).eval()


@pytest.fixture(scope="module")
def reference(detector: GroundingDinoDetector) -> Any:
    """transformers' own way from images and phrases to boxes."""
    from transformers import GroundingDinoProcessor

    return GroundingDinoProcessor(detector._processor, small.tokenizer())


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
            build(ModelSpec("grounding_dino_tiny", "random:0"), [f"subject{i:04}" for i in range(30)])


class TestDetections:
    def test_shapes_order_and_limits(self, detector: GroundingDinoDetector) -> None:
        images = [make_image(90, 120, 1), make_image(200, 120, 2)]
        for image in images:
            found = alone(detector, image)
            height, width = image.size
            assert found.boxes.dtype == np.float32 and len(found.boxes) > 3
            assert (np.diff(found.scores) <= 0).all() and (found.scores > detector.box_threshold).all()
            assert set(found.labels) <= set(PHRASES)
            assert (found.boxes >= 0).all() and (found.boxes <= [width, height, width, height]).all()
            assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()

    def test_boxes_are_in_pixels_of_the_stored_image(self, detector: GroundingDinoDetector) -> None:
        half, quarter = torch.tensor([[0.5, 0.5, 0.5, 0.25]]), torch.tensor([[0.9, 0.1, 0.4, 0.4]])
        inside = detector._select(crafted({1: 0.9}), half, Size(200, 400))
        clipped = detector._select(crafted({1: 0.9}), quarter, Size(200, 400))
        np.testing.assert_allclose(inside.boxes, [[100, 75, 300, 125]], atol=1e-4)
        np.testing.assert_allclose(clipped.boxes, [[280, 0, 400, 60]], atol=1e-4)

    @torch.inference_mode()
    def test_stored_size_scales_the_boxes(self, detector: GroundingDinoDetector, network: Any) -> None:
        # Twice the pixels of an image that is resized to the same size.
        tiny, large = make_image(128, 160), make_image(128, 160)
        large = Image(np.ascontiguousarray(large.pixels.repeat(2, axis=0).repeat(2, axis=1)))
        pixels = torch.from_numpy(resized(tiny.pixels, detector.resized_size(*tiny.size)))[None]
        sizes = torch.tensor([pixels.shape[1:3]])
        logits, boxes, _ = ImageGraph(network)(pixels, sizes, detector.tokens[None])
        one, two = (detector._select(logits[0], boxes[0], image.size) for image in (tiny, large))
        np.testing.assert_allclose(one.boxes * 2, two.boxes, atol=1e-4)

    def test_the_reference_finds_the_same(self, detector: GroundingDinoDetector, reference: Any, network: Any) -> None:
        image = make_image(90, 120, 3)
        inputs = reference(
            images=image.pixels, text=detector.prompt, return_tensors="pt", input_data_format="channels_last"
        )
        with torch.no_grad():
            outputs = network(**inputs)
        wanted = reference.post_process_grounded_object_detection(
            outputs, threshold=0.4, text_threshold=0.3, target_sizes=[image.pixels.shape[:2]]
        )[0]
        order = wanted["scores"].argsort(descending=True, stable=True)
        order = order[[bool(wanted["text_labels"][i].replace(".", "").strip()) for i in order]]
        found = alone(detector, image)
        assert len(found.boxes) > 3
        np.testing.assert_allclose(found.scores, wanted["scores"][order].numpy(), atol=1e-6)
        np.testing.assert_allclose(found.boxes, wanted["boxes"][order].numpy().clip(0, [120, 90, 120, 90]), atol=1e-3)

    def test_the_reference_names_the_same(self, detector: GroundingDinoDetector, reference: Any) -> None:
        spans = [slice(1, 5), slice(6, 12), slice(13, 16)]
        logits = torch.cat([crafted(dict.fromkeys(range(s.start, s.stop), 0.5 + 0.1 * i)) for i, s in enumerate(spans)])
        boxes = torch.full((3, 4), 0.5)
        outputs = SimpleNamespace(logits=logits[None], pred_boxes=boxes[None], input_ids=detector.tokens[None])
        wanted = reference.post_process_grounded_object_detection(outputs, threshold=0.4, text_threshold=0.3)[0]
        assert wanted["text_labels"] == ["bird", "red car", "dog"]
        assert detector._select(logits, boxes, Size(9, 9)).labels == ("dog", "red car", "Bird")  # by score

    def test_same_bits_again(self, detector: GroundingDinoDetector) -> None:
        first, again = alone(detector, make_image(90, 120)), alone(detector, make_image(90, 120))
        other = alone(build(ModelSpec("grounding_dino_tiny", "random:1"), PHRASES), make_image(90, 120))
        assert np.array_equal(first.boxes, again.boxes) and np.array_equal(first.scores, again.scores)
        assert not np.array_equal(first.scores[:3], other.scores[:3])

    def test_nothing_found(self, detector: GroundingDinoDetector) -> None:
        none = detector._select(crafted({}), torch.full((1, 4), 0.5), Size(30, 40))
        assert none.boxes.shape == (0, 4) and none.labels == ()


class TestBatch:
    def test_the_reference_depends_on_neighbours(self, detector: GroundingDinoDetector, network: Any) -> None:
        """Why images of different sizes are not padded into one batch."""
        arrays = [make_image(90, 120, 1).pixels, make_image(200, 120, 2).pixels]
        padded = detector._processor(images=arrays, return_tensors="pt", input_data_format="channels_last")
        alone = detector._processor(images=arrays[:1], return_tensors="pt", input_data_format="channels_last")
        with torch.no_grad():
            together = network(**padded, input_ids=detector.tokens.expand(2, -1)).logits[0]
            by_itself = network(**alone, input_ids=detector.tokens[None]).logits[0]
        spread = (together.amax(1).sort().values - by_itself.amax(1).sort().values).abs().max()
        assert spread > 100 * SCORE_TOLERANCE

    @pytest.mark.parametrize("size", [(4, 300), (300, 4), (12, 12)])
    def test_thin_and_tiny_images(self, detector: GroundingDinoDetector, size: tuple[int, int]) -> None:
        found = alone(detector, make_image(*size))
        assert np.isfinite(found.boxes).all() and (found.boxes <= [*size[::-1], *size[::-1]]).all()


class TestThresholds:
    def test_defaults_are_the_model_cards(self, detector: GroundingDinoDetector) -> None:
        assert (detector.box_threshold, detector.text_threshold) == (0.4, 0.3)

    def test_box_threshold_keeps_the_best(self, detector: GroundingDinoDetector) -> None:
        image = make_image(90, 120)
        everything = alone(with_thresholds(detector, 0, 0), image)
        middle = float(np.sort(everything.scores)[len(everything.scores) // 2])
        found = alone(with_thresholds(detector, middle, 0), image)
        count = int((everything.scores > middle).sum())
        assert 0 < count < len(everything.scores)
        assert_same(found, Detections(everything.boxes[:count], everything.scores[:count], everything.labels[:count]))

    def test_tokens_decide_the_phrase(self, detector: GroundingDinoDetector) -> None:
        # [CLS]=0 b i r d . r e d c a r . d o g . [SEP]: bird 1..4, red car 6..11, dog 13..15
        box = torch.full((1, 4), 0.5)
        assert detector._select(crafted({2: 0.5}), box, Size(9, 9)).labels == ("Bird",)
        assert detector._select(crafted({2: 0.5, 11: 0.6}), box, Size(9, 9)).labels == ("red car",)
        assert detector._select(crafted({13: 0.7, 11: 0.6}), box, Size(9, 9)).labels == ("dog",)

    def test_a_box_without_a_phrase_is_dropped(self, detector: GroundingDinoDetector) -> None:
        # The dot behind "bird" scores high, no phrase does.
        box = torch.full((1, 4), 0.5)
        assert detector._select(crafted({5: 0.9, 2: 0.2}), box, Size(9, 9)).labels == ()
        assert detector._select(crafted({5: 0.9, 2: 0.35}), box, Size(9, 9)).labels == ("Bird",)

    @pytest.mark.parametrize("value", [-0.1, 1.0])
    def test_out_of_range(self, value: float) -> None:
        with pytest.raises(UsageError, match=r"threshold must be in 0\.\.1"):
            build(ModelSpec("grounding_dino_tiny", "random:0"), PHRASES, text_threshold=value)


class TestPreprocessing:
    def test_equals_the_models_own(self, detector: GroundingDinoDetector, network: Any) -> None:
        image = make_image(90, 120, 5)
        pixels = resized(image.pixels, detector.resized_size(*image.size))
        assert pixels.dtype == np.uint8 and pixels.shape == (128, 170, 3)
        own = detector._processor(images=[image.pixels], return_tensors="pt", input_data_format="channels_last")
        ours = ImageGraph(network).normalise(torch.from_numpy(pixels)[None])
        np.testing.assert_allclose(ours.numpy(), own["pixel_values"].numpy(), atol=1e-6)
