"""A second look: which boxes, what the masks say, and that the stages and SAM take it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgfast.config import Settings, differences
from fgfast.errors import UsageError
from fgfast.models.grabcut_again import ALONE, OTHER, WEIGHED, look_again, without_box
from fgfast.ops.doubt import SENTENCES
from fgfast.ops.second_look import FROM_BOX, SLIGHT, boxes, disagreement, other_gap
from fgfast.pipeline.stages import MaskSubject, box_mask
from fgfast.pipeline.work import Work
from fgfast.records import Image, Mask, Prompt, Sample, Size

SIZE = Size(200, 300)
BOX = np.array([100, 50, 200, 150], np.float32)


def test_the_five_boxes() -> None:
    found = boxes(BOX, SIZE, np.array([110, 60, 160, 110], np.float32))
    assert [[round(edge, 2) for edge in box.tolist()] for box in found] == [
        [94, 44, 206, 156],
        [105.82, 50.18, 199.82, 144.18],
        [96, 54, 196, 154],
        [82.5, 32.5, 217.5, 167.5],
        [108.5, 58.5, 161.5, 111.5],
    ]
    assert all(box.dtype == np.float32 for box in found)


@pytest.mark.parametrize("box", [(-50, -50, 900, 900), (0, 0, 1, 1), (500, 500, 600, 600), (7, 7, 7, 7)])
def test_boxes_stay_in_the_image(box: tuple[float, ...]) -> None:
    found = boxes(np.array(box, np.float32), SIZE, None)
    assert len(found) == 5
    assert all(0 <= x0 <= x1 <= 300 and 0 <= y0 <= y1 <= 200 for x0, y0, x1, y1 in (b.tolist() for b in found))


def blob(width: int) -> Any:
    bits = np.zeros((100, 100), np.bool_)
    bits[:, :width] = True
    return bits


def test_equal_masks_agree() -> None:
    same = [blob(50)] * 5
    assert {*disagreement(blob(50), same).values()} == {0.0}
    assert {*disagreement(blob(0), [blob(0)] * 5).values()} == {0.0}
    assert "unstable own box" not in disagreement(blob(50), same[:FROM_BOX])


def test_each_disagreement_raises_its_number() -> None:
    slight = disagreement(blob(50), [blob(50), blob(25), blob(50), blob(50), blob(50)])
    assert slight["unstable box, worst"] == 0.5 and slight["unstable box"] == pytest.approx(0.3)
    assert slight["grows with the box"] == slight["unstable own box"] == 0
    assert disagreement(blob(50), [*[blob(50)] * 3, blob(100), blob(50)])["grows with the box"] == 0.5
    assert disagreement(blob(50), [*[blob(50)] * 4, blob(0)])["unstable own box"] == 1


def test_masks_of_other_numbers_and_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="4 or 5 boxes, not 3"):
        disagreement(blob(50), [blob(50)] * 3)
    with pytest.raises(ValueError, match="one size"):
        disagreement(blob(50), [blob(50)[1:]] * 5)


def scene(boxes: Any = ((100, 50, 200, 150),)) -> Any:
    pixels = np.random.default_rng(0).normal((60, 90, 60), 6, (*SIZE, 3))
    for x0, y0, x1, y1 in boxes:
        pixels[y0:y1, x0:x1] += (130, 60, 0)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def part(x0: int, y0: int, x1: int, y1: int) -> Any:
    bits = np.zeros(SIZE, np.bool_)
    bits[y0:y1, x0:x1] = True
    return bits


def test_without_a_box_a_whole_subject_comes_again_and_a_half_does_not() -> None:
    right = without_box(scene(), part(100, 50, 200, 150), BOX)
    half = without_box(scene(), part(100, 50, 150, 150), np.array([100, 50, 150, 150], np.float32))
    nothing = without_box(scene(), part(10, 50, 60, 150), np.array([10, 50, 60, 150], np.float32))
    assert set(right) == set(half) == set(ALONE)
    assert right["unstable without a box"] < 0.1 and right["cut by the box"] == 0
    assert half["unstable without a box"] > 0.4 and 0.2 < half["cut by the box"] < 0.5  # one of the four sides
    assert nothing["unstable without a box"] == OTHER
    # Another subject of the same colours is another mask, but not a side of the box.
    two = without_box(scene(((100, 50, 200, 150), (220, 20, 280, 180))), part(100, 50, 200, 150), BOX)
    assert 0.3 < two["unstable without a box"] <= OTHER and two["cut by the box"] == 0


@pytest.mark.parametrize("bits", [part(0, 0, 0, 0), part(5, 5, 7, 7), part(0, 0, 300, 200)])
def test_of_a_mask_without_colours_of_its_own_or_around_it_nothing_is_said(bits: Any) -> None:
    assert without_box(scene(), bits, BOX) == {}


@pytest.mark.parametrize("box", [(-50, -50, 900, 900), (7, 7, 7, 7), (500, 500, 600, 600), (np.nan,) * 4])
def test_hostile_boxes_give_numbers_in_range(box: tuple[float, ...]) -> None:
    found = without_box(scene(), part(100, 50, 150, 150), np.array(box, np.float32))
    assert all(0 <= number <= 1 for number in found.values()) and found


def test_the_gap_of_other_boxes_is_that_of_most() -> None:
    fits = part(100, 50, 200, 150)
    others = boxes(BOX, SIZE, None)[: len(SLIGHT)]
    follows = [part(*(round(edge) for edge in box.tolist())) for box in others]
    assert other_gap(BOX, fits, follows, SIZE) < 0.05
    assert other_gap(BOX, part(0, 0, 0, 0), follows, SIZE) < 0.05  # one odd box of four
    assert other_gap(BOX, fits, [part(0, 0, 0, 0)] * 3, SIZE) == 1
    assert other_gap(BOX[[0, 1, 0, 1]], fits, [fits] * 3, SIZE) == 1  # a box without an area


def test_all_numbers_of_a_second_look_have_a_sentence_and_a_banner_and_a_guess_are_heeded() -> None:
    bits, others = part(100, 50, 200, 150), [part(100, 50, 200, 150)] * 5
    found = look_again(scene(), BOX, bits, others)
    assert set(WEIGHED) <= set(found) <= set(SENTENCES)
    assert found == look_again(scene(), BOX, bits, others)
    assert "box gap, other boxes" not in look_again(scene(), BOX, bits, others, guess=True)
    dark = scene()
    dark[160:] = 255 - dark[160:]
    below = look_again(dark, BOX, bits, others, banner_rows=40)
    assert below == look_again(scene(), BOX, bits, others, banner_rows=40)
    assert "unstable without a box" not in look_again(scene(), BOX, bits, others, banner_rows=200)


def test_a_segmenter_that_follows_its_box_is_unstable() -> None:
    asked = []

    def follows(pixels: Any, box: Any, banner: int) -> Mask:
        asked.append(box)
        return Mask(box_mask(pixels, box, banner))

    for look, count in ((False, 1), (True, 6)):
        asked.clear()
        work = Work(0, Sample("a", Path("a")), "a")
        work.image, work.prompt = Image(np.zeros((*SIZE, 3), np.uint8)), Prompt(BOX, "bird")
        MaskSubject(follows, second_look=look)(work)
        assert len(asked) == count and ("unstable box" in work.numbers) == look
    assert work.numbers["grows with the box"] == pytest.approx(1 - 1e4 / 136**2, abs=0.01)


def test_an_empty_mask_gets_a_second_look_too() -> None:
    work = Work(0, Sample("a", Path("a"), banner_rows=300), "a")
    work.image, work.prompt = Image(np.zeros((*SIZE, 3), np.uint8)), Prompt(BOX, "bird")
    MaskSubject(lambda pixels, box, banner: Mask(np.zeros(pixels.shape[:2], np.bool_)), second_look=True)(work)
    assert work.numbers["unstable box"] == 0 and "empty" in work.flags


def test_the_setting() -> None:
    for segmenter in ("box", "annotations"):
        with pytest.raises(UsageError, match="second-look has no effect"):
            Settings(segmenter=segmenter, second_look=True)
    on, off = Settings(second_look=True).describe(), Settings().describe()
    earlier = {name: value for name, value in off.items() if name != "second_look"}
    assert differences(earlier, off) == differences(off, earlier) == []
    assert differences(earlier, on) == ["second_look: False -> True"]
    assert differences({**off, "weights": 1}, off) == ["weights: 1 -> None"]


def test_sam_decodes_the_other_boxes_from_the_same_embedding() -> None:
    pytest.importorskip("torch", reason="models need the extra models")
    from fgfast.methods import ModelSpec
    from fgfast.models.sam.build import build_sam
    from fgfast.models.sam.segmenter import finish
    from fgfast.models.sam.sessions import sam_in_torch
    from fgfast.runner import run_batch

    sam = build_sam(ModelSpec("sam_tiny256", "random:0"))
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    inputs = [(Image(pixels), BOX), (Image(pixels[:150].copy()), BOX + 20)]
    plain, looking = sam_in_torch(sam, batch=3), sam_in_torch(sam, batch=3)
    looking.second_look = True
    for one, two, (image, box) in zip(run_batch(plain, inputs), run_batch(looking, inputs), inputs, strict=True):
        assert len(one.others) == 0 and two.others.shape[0] == FROM_BOX
        np.testing.assert_allclose(two.logits, one.logits, atol=1e-3)  # batches of other sizes round otherwise
        other = boxes(box, image.size, None)[FROM_BOX - 1]
        (alone,) = run_batch(plain, [(image, other)])
        np.testing.assert_allclose(two.others[FROM_BOX - 1], alone.logits, atol=1e-3)
        mask = finish(two, *image.size)
        assert set(mask.numbers) == {"unstable box", "unstable box, worst", "grows with the box"}
        assert finish(one, *image.size).numbers == {}
