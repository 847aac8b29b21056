"""Annotated masks: finding and reading them, and every way in which one can be wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from fgfast.datasets import mask_files
from fgfast.datasets.masks import read_mask
from fgfast.errors import DatasetError, MaskUnusableError, UsageError
from fgfast.mask_source import MaskKind
from fgfast.records import Bool, Sample, Size, UInt8

SIZE = Size(30, 40)
BLOCK: Bool = np.zeros(SIZE, np.bool_)
BLOCK[5:20, 8:31] = True
RAMP: UInt8 = np.tile(np.linspace(0, 255, SIZE.width).astype(np.uint8), (SIZE.height, 1))


def written(path: Path, values: np.ndarray, mode: str | None = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def sample(path: Path, kind: MaskKind = "grey") -> Sample:
    return Sample("a.jpg", Path("a.jpg"), mask=mask_files.from_files(kind, {"a.jpg": path}).get("a.jpg"))


def reason_for(one: Sample, size: Size = SIZE) -> tuple[str, str]:
    with pytest.raises(MaskUnusableError) as caught:
        read_mask(one, size)
    return caught.value.reason, caught.value.detail


class TestImages:
    @pytest.mark.parametrize(
        ("name", "values", "mode"),
        [
            ("bilevel.png", BLOCK, None),
            ("zero_one.png", BLOCK.astype(np.uint8), None),
            ("black_white.png", BLOCK.astype(np.uint8) * 255, None),
            ("black_white.bmp", BLOCK.astype(np.uint8) * 255, None),
            ("palette.gif", BLOCK.astype(np.uint8) * 255, "P"),
            ("rgb.png", BLOCK.astype(np.uint8) * 255, "RGB"),
            ("sixteen.png", BLOCK.astype(np.uint16) * 65535, None),
            ("lossy.jpg", BLOCK.astype(np.uint8) * 255, None),
            ("soft.png", np.where(BLOCK, 255, 0).astype(np.uint8), None),
        ],
    )
    def test_every_form_of_two_values(self, name: str, values: np.ndarray, mode: str | None, tmp_path: Path) -> None:
        if name == "soft.png":
            values = values.copy()
            values[5, 8:31], values[4, 8:31] = 128, 127  # half the range and more is subject
        path = written(tmp_path / name, values, mode)
        np.testing.assert_array_equal(read_mask(sample(path), SIZE), BLOCK)

    def test_a_cut_out_is_a_mask_by_its_alpha(self, tmp_path: Path) -> None:
        colours = np.dstack([RAMP, RAMP[::-1], RAMP, BLOCK.astype(np.uint8) * 255])
        np.testing.assert_array_equal(read_mask(sample(written(tmp_path / "a.png", colours)), SIZE), BLOCK)

    @pytest.mark.parametrize(
        "values",
        [
            RAMP,  # a photograph
            BLOCK.astype(np.uint8) * 17,  # a label map
            np.where(BLOCK, 255, 7).astype(np.uint8),  # a label map with "void"
            np.where(BLOCK, np.where(RAMP > 90, 15, 255), 0).astype(np.uint8),  # the same, as VOC has it
            np.dstack([BLOCK.astype(np.uint8) * 128, *[np.zeros(SIZE, np.uint8)] * 2]),  # colours
            BLOCK.astype(np.float32),
        ],
        ids=["photograph", "labels", "labels and void", "object and void", "colours", "float"],
    )
    def test_what_could_mean_anything_is_no_mask(self, values: np.ndarray, tmp_path: Path) -> None:
        suffix = "tif" if values.dtype == np.float32 else "png"
        reason, detail = reason_for(sample(written(tmp_path / f"a.{suffix}", values)))
        assert reason == "mask unclear" and "a." in detail and "expected" in detail

    @pytest.mark.parametrize("object_is_larger", [True, False])
    @pytest.mark.parametrize(
        ("labels", "suffix"),
        [
            ((0, 1, 255), "png"),
            ((0, 128, 255), "png"),
            ((0, 100, 150, 255), "png"),
            ((0, 254, 255), "png"),
            ((1, 255), "png"),
            ((0, 51, 204), "png"),
            ((0, 128, 255), "jpg"),
            ((0, 60, 200, 255), "jpg"),
        ],
        ids=str,
    )
    def test_a_label_of_its_own_is_unclear_whatever_its_area(
        self, labels: tuple[int, ...], suffix: str, object_is_larger: bool, tmp_path: Path
    ) -> None:
        size = Size(120, 160)
        values = np.full(size, labels[0], np.uint8)
        areas = [slice(5, 20), slice(30, 100)] if object_is_larger else [slice(5, 90), slice(95, 110)]
        values[areas[1], 20:140] = labels[-1]
        for n, label in enumerate(labels[1:-1]):
            values[areas[0], 10 + 40 * n : 40 + 40 * n] = label
        reason, detail = reason_for(sample(written(tmp_path / f"a.{suffix}", values)), size)
        assert reason == "mask unclear" and "without --mask-dir" in detail
        if suffix == "png":
            middle = labels[-2] if len(labels) > 2 else labels[0]
            assert f"{middle} ({(values == middle).mean():.2%})" in detail

    def test_a_thin_label_of_one_beside_void_is_unclear(self, tmp_path: Path) -> None:
        values = np.where(BLOCK, 255, 0).astype(np.uint8)
        values[6, 10:20] = 1
        assert reason_for(sample(written(tmp_path / "a.png", values)))[0] == "mask unclear"

    def test_values_of_edges_alone_are_no_subject(self, tmp_path: Path) -> None:
        values = np.zeros(SIZE, np.uint8)
        values[10], values[11] = 140, 120
        assert reason_for(sample(written(tmp_path / "a.png", values)))[0] == "mask unclear"

    @pytest.mark.parametrize("factor", [2, 3, 5])
    @pytest.mark.parametrize("method", [Image.Resampling.BOX, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS])
    def test_soft_edges_are_read(self, factor: int, method: Image.Resampling, tmp_path: Path) -> None:
        large = Image.fromarray(np.kron(BLOCK, np.ones((factor, factor), np.uint8)).astype(np.uint8) * 255)
        shifted = large.transform(large.size, Image.Transform.AFFINE, (1, 0, 0.4, 0, 1, 0.4), Image.Resampling.BILINEAR)
        values = np.asarray(shifted.resize((SIZE.width, SIZE.height), method))
        bits = read_mask(sample(written(tmp_path / "a.png", values)), SIZE)
        assert np.array_equal(bits, values > 127) and (bits != BLOCK).mean() < 0.05

    @pytest.mark.parametrize("quality", [30, 75, 95])
    @pytest.mark.parametrize(("name", "low", "high"), [("a.jpg", 0, 255), ("a.jpg", 1, 254), ("a.webp", 0, 255)])
    def test_noise_of_formats_with_losses_is_no_value(
        self, name: str, low: int, high: int, quality: int, tmp_path: Path
    ) -> None:
        noise = np.random.default_rng(quality).integers(-4, 5, (120, 160))
        wanted = np.kron(BLOCK, np.ones((4, 4), np.bool_))
        values = np.clip(np.where(wanted, high, low) + noise, 0, 255).astype(np.uint8)
        bits = read_mask(sample(written(tmp_path / name, values, quality=quality)), Size(120, 160))
        np.testing.assert_array_equal(bits, wanted)

    @pytest.mark.parametrize(
        ("colours", "inverted"),
        [
            (((0, 0, 0), (255, 255, 255)), False),
            (((255, 255, 255), (0, 0, 0)), True),  # what a viewer shows
            (((0, 0, 0), (128, 0, 0)), False),  # VOC's colours
            (((0, 0, 0), (90, 90, 90)), False),
        ],
        ids=["black and white", "white and black", "colours", "grey"],
    )
    def test_a_palette_is_read_by_black_and_white_else_by_index(
        self, colours: tuple[tuple[int, ...], ...], inverted: bool, tmp_path: Path
    ) -> None:
        image = Image.fromarray(BLOCK.astype(np.uint8)).convert("P")
        image.putpalette([value for colour in colours for value in colour])
        image.save(tmp_path / "a.png")
        with Image.open(tmp_path / "a.png") as again:
            assert again.mode == "P"
        np.testing.assert_array_equal(read_mask(sample(tmp_path / "a.png"), SIZE), BLOCK ^ inverted)

    def test_a_palette_with_a_third_index_is_unclear(self, tmp_path: Path) -> None:
        values = BLOCK.astype(np.uint8)
        values[BLOCK & (RAMP > 180)] = 255
        image = Image.fromarray(values, "P")
        image.putpalette([0, 0, 0, 128, 0, 0, *[0] * 759, 224, 224, 192])
        image.save(tmp_path / "a.png")
        assert reason_for(sample(tmp_path / "a.png"))[0] == "mask unclear"

    def test_levels_are_shares_of_annotators(self, tmp_path: Path) -> None:
        levels = np.zeros(SIZE, np.uint8)
        for n, level in enumerate((51, 102, 127, 128, 153, 204, 255)):
            levels[:, 2 * n] = level
        bits = read_mask(sample(written(tmp_path / "a.png", levels), "levels"), SIZE)
        assert np.flatnonzero(bits.all(0)).tolist() == [6, 8, 10, 12] and bits.sum() == 4 * SIZE.height

    def test_the_border_of_a_trimap_is_subject(self, tmp_path: Path) -> None:
        trimap = np.full(SIZE, 2, np.uint8)
        trimap[5:20, 8:31] = 3
        trimap[7:18, 10:29] = 1
        np.testing.assert_array_equal(read_mask(sample(written(tmp_path / "a.png", trimap), "trimap"), SIZE), BLOCK)
        trimap[0, 0] = 0
        assert reason_for(sample(written(tmp_path / "b.png", trimap), "trimap"))[0] == "mask unclear"

    def test_each_fault_has_a_reason_of_its_own(self, tmp_path: Path) -> None:
        good = written(tmp_path / "a.png", BLOCK)
        assert reason_for(sample(tmp_path / "absent.png"))[0] == "no mask"
        reason, detail = reason_for(sample(good), Size(31, 40))
        assert reason == "mask size" and "40x30" in detail and "40x31" in detail
        assert reason_for(sample(written(tmp_path / "b.png", ~np.ones(SIZE, bool))))[0] == "empty mask"
        good.write_bytes(good.read_bytes()[:60])
        assert reason_for(sample(good))[0] == "mask broken"
        gone = sample(written(tmp_path / "c.png", BLOCK))
        (tmp_path / "c.png").unlink()
        assert reason_for(gone)[0] == "no mask"


def samples(*keys: str) -> list[Sample]:
    return [Sample(key, Path("/nowhere") / key) for key in keys]


class TestFolders:
    def found(self, folder: Path, all_of: Sequence[Sample]) -> dict[str, str]:
        masks = mask_files.in_folder(folder, all_of, [s.key for s in all_of]).masks
        return {key: mask.path.relative_to(folder).as_posix() for key, mask in masks.items()}

    def test_masks_are_found_by_mirrored_paths(self, tmp_path: Path) -> None:
        for name in ("images/1/a.png", "1/b.bmp", "2/a.jpg.png", ".hidden/1/c.png"):
            written(tmp_path / name, BLOCK)
        all_of = samples("images/1/a.jpg", "images/1/b.jpg", "images/2/a.jpg", "images/1/c.jpg")
        assert self.found(tmp_path, all_of) == {
            "images/1/a.jpg": "images/1/a.png",
            "images/1/b.jpg": "1/b.bmp",
            "images/2/a.jpg": "2/a.jpg.png",
        }

    def test_images_that_differ_in_their_suffix_do_not_share_a_mask(self, tmp_path: Path) -> None:
        for name in ("a.png", "b.jpg.png", "b.png.png"):
            written(tmp_path / name, BLOCK)
        all_of = samples("a.jpg", "a.webp", "b.jpg", "b.png")
        assert self.found(tmp_path, all_of) == {"b.jpg": "b.jpg.png", "b.png": "b.png.png"}

    def test_unicode_forms_are_one_name(self, tmp_path: Path) -> None:
        written(tmp_path / "u\u0308.png", BLOCK)
        assert list(self.found(tmp_path, samples("\u00fc.jpg"))) == ["\u00fc.jpg"]

    def test_two_masks_of_an_image_are_refused(self, tmp_path: Path) -> None:
        for name in ("a.png", "a.bmp"):
            written(tmp_path / name, BLOCK)
        with pytest.raises(DatasetError, match=r"'a.jpg' has several masks: a.bmp, a.png"):
            self.found(tmp_path, samples("a.jpg"))

    def test_no_mask_at_all_and_the_images_themselves_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"expected 1/a.png"):
            self.found(tmp_path, samples("images/1/a.jpg", "images/2/b.jpg"))
        written(tmp_path / "a.png", BLOCK)
        with pytest.raises(UsageError, match="folder of the images themselves"):
            self.found(tmp_path, [replace(samples("a.png")[0], path=tmp_path / "a.png")])


def coco(path: Path, annotations: list[dict[str, Any]], **image: Any) -> Path:
    entry = {"id": 7, "file_name": "a.jpg", "height": SIZE.height, "width": SIZE.width} | image
    rows = [{"id": n, "image_id": 7, "category_id": 1, "iscrowd": 0} | row for n, row in enumerate(annotations, 1)]
    path.write_text(json.dumps({"images": [entry], "annotations": rows, "categories": [{"id": 1, "name": "it"}]}))
    return path


def compressed(bits: Bool) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(bits.astype(np.uint8)))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def uncompressed(bits: Bool) -> dict[str, Any]:
    flat = np.concatenate([[False], bits.T.ravel(), [not bits.T.ravel()[-1]]])
    counts = np.diff(np.flatnonzero(np.diff(flat)), prepend=-1)
    counts[0] = np.flatnonzero(np.diff(flat))[0]
    return {"size": list(bits.shape), "counts": counts.tolist()}


RECTANGLE = [[8, 5, 31, 5, 31, 20, 8, 20]]


class TestCoco:
    def read(self, path: Path, key: str = "a.jpg") -> Bool:
        all_of = samples(key)
        return read_mask(replace(all_of[0], mask=mask_files.in_coco(path, all_of, [key]).masks[key]), SIZE)

    @pytest.mark.parametrize(
        "segmentation",
        [compressed(BLOCK), uncompressed(BLOCK), RECTANGLE, RECTANGLE[0]],
        ids=["compressed", "uncompressed", "polygon", "one flat polygon"],
    )
    def test_every_form(self, segmentation: Any, tmp_path: Path) -> None:
        path = coco(tmp_path / "a.json", [{"segmentation": segmentation}])
        np.testing.assert_array_equal(self.read(path), BLOCK)

    def test_annotations_of_an_image_are_united_crowds_included(self, tmp_path: Path) -> None:
        other = np.roll(BLOCK, 9, axis=1)
        rows = [{"segmentation": RECTANGLE}, {"segmentation": uncompressed(other), "iscrowd": 1, "category_id": 2}]
        np.testing.assert_array_equal(self.read(coco(tmp_path / "a.json", rows)), BLOCK | other)

    @pytest.mark.parametrize(
        "file_name", ["a.jpg", "./a.jpg", "1/a.jpg", "1\\a.jpg", "images/1/a.jpg", "/home/me/data/1/a.jpg"]
    )
    def test_images_are_matched_by_file_name(self, file_name: str, tmp_path: Path) -> None:
        path = coco(tmp_path / "a.json", [{"segmentation": RECTANGLE}], file_name=file_name)
        all_of = samples("images/1/a.jpg", "images/2/b.jpg")
        assert list(mask_files.in_coco(path, all_of, [s.key for s in all_of]).masks) == ["images/1/a.jpg"]

    @pytest.mark.parametrize("file_name", ["3/a.jpg", "a.png", "home/a.jpg"])
    def test_an_image_in_another_folder_is_another_image(self, file_name: str, tmp_path: Path) -> None:
        path = coco(tmp_path / "a.json", [{"segmentation": RECTANGLE}], file_name=file_name)
        content = json.loads(path.read_text())
        content["images"].append({"id": 8, "file_name": "2/b.jpg"})
        content["annotations"].append({"id": 9, "image_id": 8, "segmentation": RECTANGLE})
        path.write_text(json.dumps(content))
        all_of = samples("images/1/a.jpg", "images/2/b.jpg")
        found = mask_files.in_coco(path, all_of, [s.key for s in all_of])
        assert list(found.masks) == ["images/2/b.jpg"] and found.unused == 1

    @pytest.mark.parametrize("keys", [("1/a.jpg", "2/a.jpg"), ("images/1/a.jpg", "images/2/a.jpg")])
    def test_a_name_that_could_be_two_images_is_refused(self, keys: tuple[str, str], tmp_path: Path) -> None:
        path = coco(tmp_path / "a.json", [{"segmentation": RECTANGLE}])
        all_of = samples(*keys)
        with pytest.raises(DatasetError, match=f"could be '{keys[0]}' or '{keys[1]}'"):
            mask_files.in_coco(path, all_of, [s.key for s in all_of])

    @pytest.mark.parametrize(
        "segmentation",
        [
            [],
            None,
            [[1, 2, 3, 4]],
            [[1, 2, 3, 4, 5, 6, 7]],
            [["x", 2, 3, 4, 5, 6]],
            [[1e9, 2, 3, 4, 5, 6]],
            {"size": list(SIZE), "counts": [5, 6]},
            {"size": list(SIZE), "counts": "§"},
            {"size": list(SIZE), "counts": [1200.0]},
            {"counts": [1200]},
        ],
    )
    def test_a_segmentation_that_is_not_understood_fails_its_image(self, segmentation: Any, tmp_path: Path) -> None:
        good = {"segmentation": RECTANGLE}
        path = coco(tmp_path / "a.json", [good, {"segmentation": segmentation}])
        with pytest.raises(MaskUnusableError, match="annotation 2 in") as caught:
            self.read(path)
        assert caught.value.reason == "mask broken"

    def test_a_mask_of_another_size_fails_its_image(self, tmp_path: Path) -> None:
        wrong = [{"segmentation": compressed(BLOCK[:-1])}]
        for path in (
            coco(tmp_path / "a.json", wrong, height=None, width=None),
            coco(tmp_path / "b.json", [{"segmentation": RECTANGLE}], height=29),
        ):
            with pytest.raises(MaskUnusableError) as caught:
                self.read(path)
            assert caught.value.reason == "mask size"

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("{", "not JSON"),
            ("[]", "a list 'images'"),
            ('{"images": [], "annotations": 3}', "a list 'annotations'"),
            ('{"images": [{"id": 1}], "annotations": []}', "expected id and file_name"),
            ('{"images": [], "annotations": [{"id": 1, "image_id": 4}]}', "image 4 not listed"),
        ],
    )
    def test_a_malformed_file_is_refused(self, content: str, message: str, tmp_path: Path) -> None:
        path = tmp_path / "a.json"
        path.write_text(content)
        with pytest.raises(DatasetError, match=message):
            self.read(path)

    def test_a_file_about_other_images_is_refused(self, tmp_path: Path) -> None:
        path = coco(tmp_path / "a.json", [{"segmentation": RECTANGLE}], file_name="z.jpg")
        with pytest.raises(UsageError, match=r"names images like 'z.jpg', the data set like 'a.jpg'"):
            self.read(path)
