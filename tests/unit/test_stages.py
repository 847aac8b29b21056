from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fgfast.config import Background
from fgfast.errors import ImageBrokenError
from fgfast.methods import ModelSpec
from fgfast.ops.background import blurred_background, cover, extended_view
from fgfast.ops.evidence import NAMES
from fgfast.pipeline.prompt import choose_prompt
from fgfast.pipeline.stages import Cut, Detect, MaskSubject, annotations_detector, box_mask, center_detector, set_mask
from fgfast.pipeline.work import Work, result_of
from fgfast.records import Detections, Float32, Image, Mask, Sample, Size, UInt8
from fgfast.runner import Finished

SIZE = Size(30, 40)


def sample(*boxes: tuple[float, ...], **more: object) -> Sample:
    return Sample("a", Path("a"), boxes=np.array(boxes, np.float32).reshape(-1, 4), **more)


def detections(*boxes: tuple[float, ...]) -> Detections:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(array, np.ones(len(array), np.float32), ("box",) * len(array))


def test_the_largest_box_prompts() -> None:
    prompt, flag, others = choose_prompt(detections((0, 0, 5, 5), (10, 10, 30, 25), (0, 0, 20, 15)), sample(), SIZE)
    assert prompt.box.tolist() == [10, 10, 30, 25]
    assert prompt.reason == "box, the best of 3"
    assert [other[:4] for other in others] == [(0, 0, 20, 15), (0, 0, 5, 5)]
    assert flag == ""


def test_boxes_are_clipped_to_the_image_before_they_are_compared() -> None:
    prompt, *_ = choose_prompt(detections((-100, -100, 5, 5), (10, 10, 20, 41)), sample(), SIZE)
    assert prompt.box.tolist() == [10, 10, 20, 30]


@pytest.mark.parametrize("boxes", [(), ((50, 50, 60, 60),), ((3, 3, 3.5, 20),)])
def test_without_a_usable_box_the_centre_stands_in_and_is_flagged(boxes: tuple) -> None:
    prompt, flag, _ = choose_prompt(detections(*boxes), sample(banner_rows=10), SIZE)
    assert prompt.box.tolist() == [4, 2, 36, 18]
    assert "centre" in prompt.reason
    assert prompt.guess
    assert flag == "no box"


def found(*rows: tuple[tuple[float, ...], float, str]) -> Detections:
    return Detections(
        np.array([r[0] for r in rows], np.float32),
        np.array([r[1] for r in rows], np.float32),
        tuple(r[2] for r in rows),
    )


RIGHT = frozenset({"bird"})


def test_the_right_class_comes_before_score_and_score_before_size() -> None:
    rows = (((0, 0, 40, 30), 0.9, "cat"), ((0, 0, 30, 30), 0.3, "bird"), ((5, 5, 10, 10), 0.5, "bird"))
    prompt, flag, others = choose_prompt(found(*rows), sample(), SIZE, RIGHT)
    assert (prompt.box.tolist(), flag) == ([5, 5, 10, 10], "")
    assert [other[5] for other in others] == ["bird", "cat"]


def test_agreement_with_the_annotated_box_comes_before_score() -> None:
    rows = (((0, 0, 10, 10), 0.9, "bird"), ((20, 10, 38, 28), 0.4, "bird"))
    prompt, flag, _ = choose_prompt(found(*rows), sample((20, 10, 40, 30)), SIZE, RIGHT)
    assert (prompt.box.tolist(), flag) == ([20, 10, 38, 28], "")


def test_another_class_is_flagged_and_nothing_at_all_falls_back_to_the_annotation() -> None:
    _, flag, _ = choose_prompt(found(((0, 0, 10, 10), 0.9, "cat")), sample(), SIZE, RIGHT)
    assert flag == "other class"
    prompt, flag, _ = choose_prompt(detections(), sample((3, 4, 20, 21)), SIZE, RIGHT)
    assert (prompt.box.tolist(), flag) == ([3, 4, 20, 21], "not detected")


def test_lvis_names_count_as_the_words_they_are() -> None:
    _, flag, _ = choose_prompt(found(((0, 0, 9, 9), 0.9, "car_(automobile)")), sample(), SIZE, frozenset({"car"}))
    assert flag == ""


def work(**sample: object) -> Work:
    pixels = np.full((30, 40, 3), 7, np.uint8)
    return Work(3, Sample("a/b.jpg", Path("b.jpg"), **sample), "a/b.jpg", image=Image(pixels))


def test_an_empty_mask_is_replaced_by_its_box_and_flagged() -> None:
    item = work(boxes=np.array([[5, 6, 20, 21]], np.float32))
    Detect(annotations_detector(ModelSpec("annotations"), ""))(item)
    MaskSubject(lambda pixels, box, banner: Mask(np.zeros(pixels.shape[:2], np.bool_)), flagged=True)(item)
    assert item.flags == ["empty"]
    assert item.mask is not None
    assert item.mask.bits.sum() == 15 * 15


def quarter(pixels: UInt8, box: Float32, banner: int) -> Mask:
    """The middle of the box."""
    bits = np.zeros(pixels.shape[:2], np.bool_)
    (x0, y0, x1, y1), (dx, dy) = box.astype(int), (box[2:] - box[:2]).astype(int) // 4
    bits[y0 + dy : y1 - dy, x0 + dx : x1 - dx] = True
    return Mask(bits)


def test_a_mask_short_of_a_box_of_the_subject_is_flagged_with_its_number() -> None:
    item = work(boxes=np.array([[8, 6, 32, 22]], np.float32))
    Detect(annotations_detector(ModelSpec("annotations"), ""))(item)
    MaskSubject(quarter)(item)
    assert item.flags == ["short of the box"] and item.numbers["short of the box"] == 0.25
    assert set(item.numbers) <= {"short of the box", *NAMES} and item.numbers["box gap"] > 0.25
    Cut(Background(), None, "none", 0.0)(item)
    assert item.cutout is not None
    assert (item.cutout.flags, item.cutout.numbers) == (("short of the box",), item.numbers)
    outcome = result_of(Finished(item)).outcome
    assert (outcome.status, outcome.reasons, outcome.numbers) == ("flagged", item.cutout.flags, item.cutout.numbers)


def test_the_middle_of_the_image_does_not_bound_a_subject() -> None:
    for detector in (center_detector, annotations_detector):
        item = work()
        Detect(detector(ModelSpec(""), ""))(item)
        MaskSubject(quarter)(item)
        assert item.prompt is not None
        assert item.prompt.guess
        assert item.flags == ([] if detector is center_detector else ["no box"])
        assert item.numbers and not {"short of the box", "box gap", "fill"} & {*item.numbers}


def test_numbers_are_computed_of_masks_without_flags_and_of_estimates() -> None:
    item = work(boxes=np.array([[8, 6, 32, 22]], np.float32))
    Detect(annotations_detector(ModelSpec("annotations"), ""))(item)
    bits = box_mask(item.image.pixels, item.prompt.box, 0)  # type: ignore[union-attr]
    set_mask(item, Mask(bits, quality=1.25, stability=0.75))
    assert (item.numbers["low quality"], item.numbers["low stability"]) == (0.0, 0.25)
    assert item.numbers["box gap"] == 0 and item.numbers["fill"] == 1


def test_a_box_is_not_flagged_for_hugging_itself() -> None:
    item = work()
    Detect(center_detector(ModelSpec("center"), ""))(item)
    MaskSubject(lambda pixels, box, banner: Mask(box_mask(pixels, box, banner)), flagged=False)(item)
    assert item.flags == []


def test_pixels_that_a_box_touches_belong_to_it() -> None:
    bits = box_mask(np.zeros((10, 10, 3), np.uint8), np.array([1.2, 2.0, 3.1, 4.0], np.float32), 0)
    assert np.argwhere(bits).min(0).tolist() == [2, 1]
    assert np.argwhere(bits).max(0).tolist() == [3, 3]


def test_failures_become_outcomes_with_their_stage() -> None:
    error = ImageBrokenError("truncated", "b.jpg is truncated")
    result = result_of(Finished(work(), "decode", error, {"decode": 0.1}))
    assert (result.position, result.temp_files) == (3, ())
    outcome = result.outcome
    assert (outcome.status, outcome.stage, outcome.reasons) == ("failed", "decode", ("truncated",))
    assert outcome.detail == "b.jpg is truncated"


def test_our_own_faults_are_called_internal_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    outcome = result_of(Finished(work(), "mask", ZeroDivisionError("oops"))).outcome
    assert outcome.reasons == ("internal error",)
    assert "ZeroDivisionError: oops" in outcome.detail
    assert "a/b.jpg" in caplog.text


def test_the_blur_knows_nothing_of_the_subject() -> None:
    pixels = np.full((60, 80, 3), 100, np.uint8)
    bits = np.zeros((60, 80), np.bool_)
    bits[20:40, 30:50] = True
    pixels[bits] = (255, 0, 0)
    blurred = blurred_background(pixels, bits)
    assert np.abs(blurred[~bits].astype(int) - 100).max() <= 1
    pixels[bits] = (0, 255, 255)
    np.testing.assert_array_equal(blurred_background(pixels, bits)[~bits], blurred[~bits])


def test_the_blur_hides_detail() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    blurred = blurred_background(pixels, np.zeros((200, 300), np.bool_))
    assert blurred.std() < 0.1 * pixels.std()
    assert abs(float(blurred.mean()) - float(pixels.mean())) < 2


@pytest.mark.parametrize("size", [(10, 10), (7, 30), (64, 5)])
def test_a_background_image_covers_without_distortion(size: tuple[int, int]) -> None:
    image = np.zeros((20, 40, 3), np.uint8)
    image[:, 20:] = 255
    covered = cover(image, *size)
    assert covered.shape == (size[1], size[0], 3)
    assert covered[0, 0, 0] == 0
    assert covered[-1, -1, 0] == 255


def test_a_window_beyond_the_image_repeats_its_edge() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    view = extended_view(image, (-1, 0, 3, 2))
    assert view.shape == (2, 4, 3)
    np.testing.assert_array_equal(view[:, 0], image[:, 0])
    np.testing.assert_array_equal(view[:, 3], image[:, 1])


def test_a_sample_crosses_processes_whole() -> None:
    import pickle

    boxes = np.array([[1, 2, 3.5, 4], [0, 0, 9, 9]], np.float32)
    sample = Sample("a/b.jpg", Path("/x/a/b.jpg"), "auk", "train", boxes, 20)
    copy = pickle.loads(pickle.dumps(sample))
    assert (copy.key, copy.path, copy.label, copy.split, copy.banner_rows) == (
        *("a/b.jpg", Path("/x/a/b.jpg"), "auk", "train"),
        20,
    )
    assert copy.boxes.dtype == np.float32 and (copy.boxes == boxes).all() and copy.boxes.flags.writeable
    assert pickle.loads(pickle.dumps(Sample("a.jpg", Path("a.jpg")))).boxes.shape == (0, 4)
