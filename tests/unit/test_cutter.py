"""A Cutter: many images through models that stay loaded, in order, in batches, from several threads."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as pillow

import fgfast
from fgfast.errors import ImageBrokenError, ImageMissingError, UnknownNameError, UsageError
from fgfast.pipeline import cutter as module
from fgfast.pipeline.batched_stages import FinishMask, encode_stage
from fgfast.pipeline.stages import box_mask
from fgfast.records import Image, Mask
from fgfast.runner import Finished, in_order

BOX = (36, 16, 94, 64)
PLAIN = fgfast.Settings(segmenter="box")


def scene(seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    pixels = generator.integers(60, 110, (80, 120, 3), dtype=np.uint8)
    pixels[20:60, 40:90] = generator.integers(180, 230, (40, 50, 3), dtype=np.uint8)
    return pixels


class BoxModel:
    """A model on slots whose mask is the box; it counts its batches, and refuses two at a time."""

    device, batch, depth, buckets = "cpu", 4, 1, 1

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.busy = threading.Lock()

    def bucket(self, image: Image, box: Any) -> int:
        return 0

    def rows(self, bucket: int) -> int:
        return self.batch

    def slot(self, bucket: int) -> list[Any]:
        return [None] * self.batch

    def fill(self, slot: list[Any], row: int, image: Image, box: Any) -> None:
        slot[row] = box_mask(image.pixels, box, 0)

    def launch(self, slot: list[Any], rows: int) -> None:
        assert self.busy.acquire(blocking=False), "two threads computed at once"
        time.sleep(0.002)
        self.batches.append(rows)
        self.busy.release()

    def wait(self, slot: list[Any]) -> None:
        pass

    def read(self, slot: list[Any], row: int) -> Any:
        return slot[row].copy()

    def shrink(self) -> None:
        pass


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> BoxModel:
    """A Cutter's segmenter is this model, which is built once per Cutter."""
    made = BoxModel()
    finish = FinishMask(lambda bits, height, width: Mask(bits, quality=1.0))
    monkeypatch.setattr(module, "segment_stages", lambda *arguments: [encode_stage(made), finish])
    return made


def test_many_images_are_those_cut_one_by_one() -> None:
    images = [scene(seed) for seed in range(7)]
    with fgfast.Cutter(fgfast.Settings(segmenter="grabcut"), cpu_threads=3) as cutter:
        together = list(cutter.cut_many(images, [BOX] * 7))
        for image, cutout in zip(images, together, strict=True):
            np.testing.assert_array_equal(cutter.cut(image, BOX).pixels, cutout.pixels)
            np.testing.assert_array_equal(fgfast.cut_out(image, BOX).pixels, cutout.pixels)


def test_a_model_takes_many_images_in_batches(model: BoxModel) -> None:
    with fgfast.Cutter(PLAIN) as cutter:
        cutouts = list(cutter.cut_many((scene(seed) for seed in range(16)), [BOX] * 16))
    assert sum(model.batches) == 16 and max(model.batches) > 1
    assert all(cutout.mask.bits[16:64, 36:94].all() and cutout.mask.bits.sum() == 48 * 58 for cutout in cutouts)


def test_several_threads_may_use_one_cutter(model: BoxModel) -> None:
    with fgfast.Cutter(PLAIN) as cutter, ThreadPoolExecutor(4) as pool:
        many = [pool.submit(lambda: list(cutter.cut_many([scene(n) for n in range(5)], [BOX] * 5))) for _ in range(2)]
        single = list(pool.map(lambda n: cutter.cut(scene(n), BOX), range(8)))
        assert [len(cutouts.result()) for cutouts in many] == [5, 5]
    for n, cutout in enumerate(single):
        np.testing.assert_array_equal(cutout.pixels[16:64, 36:94], scene(n)[16:64, 36:94])
    assert sum(model.batches) == 18


def test_pillow_in_and_out_and_every_other_kind(tmp_path: Path) -> None:
    pillow.fromarray(scene()).save(tmp_path / "x.png")
    kinds = [tmp_path / "x.png", str(tmp_path / "x.png"), (tmp_path / "x.png").read_bytes(), pillow.fromarray(scene())]
    with fgfast.Cutter(PLAIN) as cutter:
        for cutout in cutter.cut_many([*kinds, scene()], [BOX] * 5):
            assert cutout.image.mode == "RGB" and cutout.image.size == (120, 80)
            assert cutout.image.getpixel((5, 5)) == (0, 0, 0)
            assert cutout.image.getpixel((50, 30)) == tuple(scene()[30, 50])


def test_an_image_that_fails_raises_when_its_turn_comes() -> None:
    with fgfast.Cutter(PLAIN) as cutter:
        found = cutter.cut_many([scene(), "gone.jpg", scene()])
        assert next(found).size == (80, 120)
        with pytest.raises(ImageMissingError, match=r"gone\.jpg"):
            next(found)
        assert list(found) == []
        assert cutter.cut(scene()).size == (80, 120)


def test_an_error_takes_its_image_s_place_where_that_is_wanted() -> None:
    inputs = [scene(), b"no image", scene(), scene(), "gone.jpg"]
    boxes = [None, None, (500, 500, 600, 600), BOX, BOX]
    with fgfast.Cutter(PLAIN) as cutter:
        found = list(cutter.cut_many(inputs, boxes, return_errors=True))
    kinds = [fgfast.Cutout, ImageBrokenError, UsageError, fgfast.Cutout, ImageMissingError]
    assert [type(one) for one in found] == kinds


def test_images_and_boxes_must_be_as_many() -> None:
    with fgfast.Cutter(PLAIN) as cutter:
        with pytest.raises(UsageError, match="one box, or None, per image"):
            list(cutter.cut_many([scene(), scene()], [BOX]))
        with pytest.raises(UsageError, match="several images"):
            cutter.cut_many("bird.jpg")
        with pytest.raises(UsageError, match="several images"):
            cutter.cut_many(scene())


def test_what_the_iterable_raises_is_raised() -> None:
    def images() -> Iterator[np.ndarray]:
        yield scene()
        raise ValueError("camera unplugged")

    with fgfast.Cutter(PLAIN) as cutter, pytest.raises(ValueError, match="camera unplugged"):
        list(cutter.cut_many(images()))


def test_a_bounded_number_of_images_is_read_ahead() -> None:
    taken = []

    def images() -> Iterator[np.ndarray]:
        for n in range(1000):
            taken.append(n)
            yield scene()

    with fgfast.Cutter(PLAIN, cpu_threads=2) as cutter:
        for n, _ in enumerate(cutter.cut_many(images())):
            assert len(taken) <= n + 8
            if n == 20:
                break
    assert len(taken) < 40


def test_a_closed_cutter_says_so_and_what_has_begun_goes_on() -> None:
    with fgfast.Cutter(PLAIN) as cutter:
        begun = cutter.cut_many([scene()] * 3)
        next(begun)
    assert len(list(begun)) == 2
    cutter.close()
    for call in (cutter.cut, cutter.cut_many):
        with pytest.raises(UsageError, match="closed"):
            call([scene()])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"masks": "rle"}, "masks rle has no effect"),
        ({"quality": 80}, r"Cutout\.save"),
        ({"keep_names": True, "format": "png"}, "format png has no effect"),
        ({"decoder": "dali"}, "decoder dali has no effect"),
        ({"devices": "cpu,cpu"}, "one device"),
        ({"format": "webp"}, r"format webp has no effect .*Cutout\.save"),
        ({"vocabulary": "bird", "segmenter": "sam", "detector": "center"}, "vocabulary bird has no effect"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_without_effect_are_errors(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        fgfast.Cutter(fgfast.Settings(**options))


@pytest.mark.parametrize("options", [{"detector": "detic"}, {"vocabulary": "bird"}], ids=str)
def test_a_detector_has_no_effect_where_the_box_is_given(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="no effect where the box is given"):
        fgfast.cut_out(scene(), BOX, settings=fgfast.Settings(**options))


def test_words_without_a_detector_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGFAST_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match=r"vocabulary has no effect .*fgfast models pull detic"):
        fgfast.Cutter(fgfast.Settings(vocabulary="bird", segmenter="box"))


def test_annotated_boxes_must_be_given() -> None:
    with fgfast.Cutter(fgfast.Settings(detector="annotations", segmenter="box")) as cutter:
        assert cutter.cut(scene(), BOX).prompt.box.tolist() == list(BOX)
        with pytest.raises(UsageError, match="give its box"):
            cutter.cut(scene())


def test_choices_say_what_was_taken() -> None:
    cutter = fgfast.Cutter(fgfast.Settings(precision="bf16", segmenter="box"))
    assert cutter.settings.detector == "center" and cutter.settings.precision == "auto"
    assert any(choice.startswith("precision: no effect without a model") for choice in cutter.choices)


def test_a_cutout_saves_converts_and_shows_itself(tmp_path: Path) -> None:
    cutout = fgfast.cut_out(scene(), BOX, settings=PLAIN)
    for name in ("new/a.png", "a.bmp", "a.webp", "a.JPG"):
        path = cutout.save(tmp_path / name, *([100] if name == "a.webp" else []))
        with pillow.open(path) as image:
            limit = 40 if name == "a.JPG" else 0
            assert np.abs(np.asarray(image).astype(int) - cutout.pixels).max() <= limit
    with pillow.open(io.BytesIO(cutout._repr_png_())) as image:
        np.testing.assert_array_equal(np.asarray(image), cutout.pixels)
    assert cutout.mask_image.mode == "1" and cutout.mask_image.size == (120, 80)
    np.testing.assert_array_equal(np.asarray(cutout.mask_image), cutout.mask.bits)
    assert cutout.share == pytest.approx(48 * 58 / 9600)
    assert len(cutout.encode(".jpg", 10)) < len(cutout.encode(".jpg")) < len(cutout.encode(".jpg", 100))


def test_a_cutout_refuses_what_a_format_cannot_keep(tmp_path: Path) -> None:
    cutout = fgfast.cut_out(scene(), BOX, settings=fgfast.Settings(segmenter="box", background="transparent"))
    assert cutout.image.mode == "RGBA" and cutout.image.getpixel((5, 5))[3] == 0
    for name, quality, says in (
        ("a.jpg", None, "no transparency"),
        ("a.png", 90, "no effect with .png"),
        ("a.webp", 101, "1 to 100"),
    ):
        with pytest.raises(UsageError, match=says):
            cutout.save(tmp_path / name, quality)
    with pytest.raises(UnknownNameError, match="image format"):
        cutout.save(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_items_come_in_order_whenever_they_finish() -> None:
    class Sleep:
        name = "sleep"

        def __call__(self, item: dict[str, Any]) -> None:
            time.sleep(item["seconds"])

    times = np.random.default_rng(3).uniform(0, 0.01, 40)
    items = ({"n": n, "seconds": seconds} for n, seconds in enumerate(times))
    found: list[Finished[Any]] = list(in_order(items, [Sleep()], threads=4))
    assert [one.item["n"] for one in found] == list(range(40))


@pytest.mark.full
def test_sam_cuts_many_as_it_cuts_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="models need the extra models")
    monkeypatch.setenv("FGFAST_CACHE", str(tmp_path))
    settings = fgfast.Settings(
        segmenter="sam_vit_b", model_weights="random:0", precision="fp32", batch=2, devices="cpu"
    )
    with fgfast.Cutter(settings) as cutter:
        many = list(cutter.cut_many([scene(n) for n in range(2)], [BOX] * 2))
        for n, cutout in enumerate(many):
            one = cutter.cut(scene(n), BOX)
            assert (one.mask.bits == cutout.mask.bits).mean() > 0.99
            assert one.mask.quality == pytest.approx(cutout.mask.quality, abs=1e-3)
