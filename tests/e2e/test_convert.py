"""The main job, from a data set on disk to a twin that loads like it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layouts import BUILDERS, HEIGHT, SHARED, SUBJECT, WIDTH, files_below, make_image, text
from PIL import Image as pillow
from pycocotools import mask as coco_mask

import fgfast
from fgfast.config import Background, Selection, Settings
from fgfast.datasets import open_dataset
from fgfast.errors import OutputRefusedError, SettingsDifferError, UsageError
from fgfast.io.ledger import Ledger
from fgfast.records import Outcome

BOX = Settings(segmenter="box")


def pixels(path: Path, mode: str | None = "RGB") -> np.ndarray:
    with pillow.open(path) as image:
        return np.asarray(image.convert(mode) if mode else image)


def kind(path: Path) -> tuple[tuple[int, int], str | None]:
    with pillow.open(path) as image:
        return image.size, image.format


@pytest.mark.parametrize("name", BUILDERS)
def test_the_twin_is_the_same_data_set(name: str, tmp_path: Path) -> None:
    """Same samples, labels, splits, boxes, sizes and annotation files; only the images differ."""
    source = BUILDERS[name](tmp_path)
    report = fgfast.convert(name, tmp_path / "out", root=source, settings=BOX)
    old, new = open_dataset(name, source), open_dataset(name, report.twin)
    assert report.counts["failed"] == 0
    assert sum(report.counts.values()) == report.total == len(old.samples)
    assert report.twin.name == old.folder
    assert old.classes == new.classes
    for before, after in zip(old.samples, new.samples, strict=True):
        assert (before.key, before.label, before.split) == (after.key, after.label, after.split)
        np.testing.assert_array_equal(before.boxes, after.boxes)
        assert kind(before.path) == kind(after.path)
    images = {sample.key for sample in old.samples}
    before_files = {k: v for k, v in files_below(source).items() if k not in images}
    after_files = {k: v for k, v in files_below(report.twin).items() if k not in images}
    for key, content in after_files.items():
        assert content == before_files[key], f"{key} should have been copied byte for byte"
    assert after_files or name == "folder"


def test_the_background_is_gone_and_the_subject_is_untouched(tmp_path: Path) -> None:
    source = BUILDERS["cub"](tmp_path)
    settings = Settings(segmenter="box", format="png", background="white")
    report = fgfast.convert("cub", tmp_path / "out", root=source, settings=settings)
    x0, y0, x1, y1 = SUBJECT
    for sample in open_dataset("cub", report.twin).samples:
        assert sample.key.endswith(".png")
        before = pixels(source / Path(sample.key).with_suffix(".jpg"))
        after = pixels(sample.path)
        np.testing.assert_array_equal(after[y0:y1, x0:x1], before[y0:y1, x0:x1])
        outside = np.ones((HEIGHT, WIDTH), bool)
        outside[y0:y1, x0:x1] = False
        assert (after[outside] == 255).all()


def test_the_banner_is_never_subject(tmp_path: Path) -> None:
    source = BUILDERS["aircraft"](tmp_path)
    report = fgfast.convert("aircraft", tmp_path / "out", root=source, settings=BOX)
    for mask in (report.out / ".masks").rglob("*.png"):
        bits = pixels(mask, None)
        assert bits.any()
        assert not bits[HEIGHT - 20 :].any()


@pytest.mark.parametrize("background", ["mean", "7,8,9", "blur", "image"])
def test_backgrounds(background: str, tmp_path: Path) -> None:
    source = BUILDERS["cub"](tmp_path)
    if background == "image":
        pillow.new("RGB", (5, 9), (1, 200, 3)).save(tmp_path / "behind.png")
        background = str(tmp_path / "behind.png")
    settings = Settings(segmenter="box", format="png", background=background)
    report = fgfast.convert("cub", tmp_path / "out", root=source, settings=settings)
    assert report.counts["done"] == 4
    sample = open_dataset("cub", report.twin).samples[0]
    corner = tuple(int(v) for v in pixels(sample.path)[0, 0])
    if background == "blur":  # the mean of dim noise, without the bright subject's colours
        assert all(20 < value < 70 for value in corner)
    else:
        expected = (1, 200, 3) if "behind" in background else Background.parse(background).colour
        assert corner == expected


def test_transparency_hides_nothing(tmp_path: Path) -> None:
    source = BUILDERS["folder"](tmp_path)
    settings = Settings(segmenter="box", format="png", background="transparent")
    report = fgfast.convert("folder", tmp_path / "out", root=source, settings=settings)
    for sample in open_dataset("folder", report.twin).samples:
        rgba = pixels(sample.path, None)
        assert rgba.shape[2] == 4
        assert set(np.unique(rgba[..., 3])) == {0, 255}
        assert not rgba[rgba[..., 3] == 0].any()


@pytest.mark.parametrize("crop", ["box", "square"])
def test_cropping_moves_boxes_and_parts_along(crop: str, tmp_path: Path) -> None:
    source = BUILDERS["cub"](tmp_path)
    settings = Settings(segmenter="box", format="png", crop=crop, pad=0.1)
    report = fgfast.convert("cub", tmp_path / "out", root=source, settings=settings)
    x0, y0, x1, y1 = SUBJECT
    for sample in open_dataset("cub", report.twin).samples:
        after = pixels(sample.path)
        before = pixels(source / Path(sample.key).with_suffix(".jpg"))
        left, top, right, bottom = (int(v) for v in sample.boxes[0])
        assert (right - left, bottom - top) == (x1 - x0, y1 - y0)
        np.testing.assert_array_equal(after[top:bottom, left:right], before[y0:y1, x0:x1])
        assert after.shape[1] < WIDTH
        assert crop == "box" or after.shape[0] == after.shape[1]
    # The first part lies at (10, 8), two pixels right of and below the box's corner.
    part = (report.twin / "parts/part_locs.txt").read_text().splitlines()[0].split()
    assert (float(part[2]) - left, float(part[3]) - top) == (2, 2)
    clicks = (report.twin / "parts/part_click_locs.txt").read_text().splitlines()
    assert clicks[0].split() == [*part, "3.5"]


def test_lists_name_what_is_there_when_the_format_or_the_selection_changes(tmp_path: Path) -> None:
    source = BUILDERS["cub"](tmp_path)
    report = fgfast.convert(
        "cub",
        tmp_path / "out",
        root=source,
        settings=Settings(segmenter="box", format="webp"),
        selection=Selection(splits=("train",)),
    )
    names = [line.split()[1] for line in (report.twin / "images.txt").read_text().splitlines()]
    assert names == ["001.Auk/Auk_0001_10.webp", "002.Jay/Jay_0001_30.webp"]
    assert all((report.twin / "images" / name).is_file() for name in names)
    assert (report.twin / "classes.txt").read_bytes() == (source / "classes.txt").read_bytes()


def test_names_may_be_kept_for_loaders_that_append_jpg(tmp_path: Path) -> None:
    source = BUILDERS["aircraft"](tmp_path)
    settings = Settings(segmenter="box", format="png", keep_names=True)
    report = fgfast.convert("aircraft", tmp_path / "out", root=source, settings=settings)
    file = report.twin / "data/images/0034309.jpg"
    assert kind(file)[1] == "PNG"
    assert (report.twin / "data/images_box.txt").read_bytes() == (source / "data/images_box.txt").read_bytes()


def test_coco_ledger_masks_and_run_json_agree(tmp_path: Path) -> None:
    source = BUILDERS["cub"](tmp_path)
    settings = Settings(segmenter="box", crop="box", pad=0.2, format="png")
    report = fgfast.convert("cub", tmp_path / "out", root=source, settings=settings)
    content = json.loads((report.out / "fgfast/instances.json").read_text())
    assert [c["id"] for c in content["categories"]] == [1, 2]
    assert len(content["images"]) == len(content["annotations"]) == 4
    for image, annotation in zip(content["images"], content["annotations"], strict=True):
        size, _ = kind(report.twin / image["file_name"])
        assert size == (image["width"], image["height"])
        bits = coco_mask.decode(annotation["segmentation"])
        assert bits.shape == size[::-1]
        assert annotation["area"] == bits.sum() == coco_mask.area(annotation["segmentation"])
        assert annotation["bbox"] == list(coco_mask.toBbox(annotation["segmentation"]))
        assert image["width"] != image["height"]
        np.testing.assert_array_equal(bits, pixels(report.twin / image["file_name"]).any(2))
    with Ledger(report.out / "fgfast/ledger.sqlite") as ledger:
        for outcome in ledger.outcomes():
            mask = report.out / ".masks" / Path(outcome.key).with_suffix(".png")
            assert (pixels(mask, None) > 0).sum() == outcome.area
    facts = json.loads((report.out / "fgfast/run.json").read_text())
    assert facts["fingerprint"]["segmenter"] == "box"
    assert facts["result"]["counts"]["done"] == 4
    assert facts["versions"]["fgfast"] == fgfast.__version__


def test_images_without_a_class_have_a_category_all_the_same(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        make_image(tmp_path / "flat" / name)
    report = fgfast.convert("folder", tmp_path / "out", root=tmp_path / "flat", settings=BOX)
    content = json.loads((report.out / "fgfast/instances.json").read_text())
    assert [c["name"] for c in content["categories"]] == ["unlabelled"]
    assert {a["category_id"] for a in content["annotations"]} == {c["id"] for c in content["categories"]}


def test_masks_in_one_parquet_file(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    source = BUILDERS["cub"](tmp_path)
    report = fgfast.convert("cub", tmp_path / "out", root=source, settings=Settings(segmenter="box", masks="rle"))
    rows = parquet.read_table(report.out / "fgfast/masks.parquet").to_pylist()
    assert [row["key"] for row in rows] == [s.key for s in open_dataset("cub", source).samples]
    for row in rows:
        bits = coco_mask.decode({"size": [row["height"], row["width"]], "counts": row["counts"]})
        x0, y0, x1, y1 = SUBJECT
        assert bits.shape == (HEIGHT, WIDTH)
        assert bits.sum() == bits[y0:y1, x0:x1].sum() == (x1 - x0) * (y1 - y0)
    assert not (report.out / ".masks").exists()


def test_bad_images_become_outcomes_and_the_run_goes_on(tmp_path: Path) -> None:
    source = BUILDERS["cub"](tmp_path)
    broken, missing = sorted((source / "images").rglob("*.jpg"))[:2]
    broken.write_bytes(broken.read_bytes()[:300])
    missing.unlink()
    report = fgfast.convert("cub", tmp_path / "out", root=source, settings=BOX)
    assert report.counts == {"done": 2, "flagged": 0, "skipped": 0, "failed": 2}
    assert set(report.failures) <= {"truncated", "broken", "missing"}
    assert report.failures["missing"] == 1
    assert [s.label for s in open_dataset("cub", report.twin).samples] == ["002.Jay", "002.Jay"]
    assert missing.name in report.html.read_text()
    # Mended, the same command goes on: only the two are done, and the lists are whole again.
    make_image(broken)
    make_image(missing)
    again = fgfast.convert("cub", tmp_path / "out", root=source, settings=BOX)
    assert again.counts == {"done": 4, "flagged": 0, "skipped": 0, "failed": 0}
    assert again.resumed == 2
    assert (again.twin / "images.txt").read_bytes() == (source / "images.txt").read_bytes()


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, on damaged metadata
def test_odd_files_in_a_folder_are_all_accounted_for(tmp_path: Path) -> None:
    odd = SHARED / "oddfiles"
    if not odd.is_dir():
        pytest.skip(f"{odd} is not here")
    report = fgfast.convert("folder", tmp_path / "out", root=odd, settings=Settings(detector="center"))
    assert sum(report.counts.values()) == report.total == len(open_dataset("folder", odd).samples) > 80
    assert report.counts["failed"] > 10
    assert "internal error" not in report.failures
    with Ledger(report.out / "fgfast/ledger.sqlite") as ledger:
        for outcome in ledger.outcomes():
            assert outcome.detail or outcome.status != "failed"
            assert (outcome.twin is not None) == (outcome.status != "failed")
            if outcome.twin:
                with pillow.open(report.twin / outcome.twin) as twin:
                    assert (twin.height, twin.width) == outcome.size


def test_resuming_with_other_settings_is_refused_with_the_difference(tmp_path: Path) -> None:
    source = BUILDERS["cub"](tmp_path)
    fgfast.convert("cub", tmp_path / "out", root=source, settings=BOX)
    with pytest.raises(SettingsDifferError, match=r"quality: 95 -> 80") as caught:
        fgfast.convert("cub", tmp_path / "out", root=source, settings=Settings(segmenter="box", quality=80))
    assert "format" not in str(caught.value).split("\n")[1]


def test_overwriting_deletes_what_the_old_run_made_and_nothing_else(tmp_path: Path) -> None:
    source = BUILDERS["cub"](tmp_path)
    out = tmp_path / "out"
    fgfast.convert("cub", out, root=source, settings=BOX)
    (out / "CUB_200_2011/images/mine.txt").write_text("a person's note")
    (out / "CUB_200_2011/.fgfast-1-1.part").write_bytes(b"half a file")
    other = BUILDERS["aircraft"](tmp_path)
    report = fgfast.convert("aircraft", out, root=other, settings=BOX, mode="overwrite")
    assert report.counts["done"] == 4
    left = {key for key in files_below(out) if "CUB" in key or key.endswith(".part")}
    assert left == {"CUB_200_2011/images/mine.txt"}
    assert [path.name for path in (out / "CUB_200_2011").rglob("*")] == ["images", "mine.txt"]
    assert len(list((out / ".masks").rglob("*.png"))) == 4


@pytest.mark.parametrize("after", [0, 1, 3, 6])
def test_killed_while_overwriting_the_ledger_does_not_lie(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = BUILDERS["cub"](tmp_path)
    out = tmp_path / "out"
    fgfast.convert("cub", out, root=source, settings=BOX)
    whole = files_below(out / "CUB_200_2011")
    unlink, calls = os.unlink, []

    def killed(path: str | Path, **more: Any) -> None:
        if str(path).endswith((".jpg", ".txt")):
            calls.append(path)
            if len(calls) > after:
                raise KeyboardInterrupt
        unlink(path, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            fgfast.convert("cub", out, root=source, settings=BOX, mode="overwrite")
    # Only the user's word deletes: the ledger may have come from anybody.
    with pytest.raises(OutputRefusedError, match="--overwrite to finish"):
        fgfast.convert("cub", out, root=source, settings=BOX)
    report = fgfast.convert("cub", out, root=source, settings=BOX, mode="overwrite")
    assert report.resumed == 0
    assert files_below(out / "CUB_200_2011") == whole


def test_finished_images_are_not_done_again_and_lost_ones_are(tmp_path: Path) -> None:
    source = BUILDERS["cub"](tmp_path)
    first = fgfast.convert("cub", tmp_path / "out", root=source, settings=BOX)
    images = sorted((first.twin / "images").rglob("*.jpg"))
    before = {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in images}
    images[0].unlink()
    again = fgfast.convert("cub", tmp_path / "out", root=source, settings=BOX)
    assert again.resumed == 3
    assert images[0].is_file()
    assert all((p.stat().st_ino, p.stat().st_mtime_ns) == before[p] for p in images[1:])


def test_a_image_that_fails_later_leaves_no_old_one_behind(tmp_path: Path) -> None:
    source = BUILDERS["cub"](tmp_path)
    first = fgfast.convert("cub", tmp_path / "out", root=source, settings=BOX)
    key = "images/001.Auk/Auk_0001_10.jpg"
    with Ledger(first.out / "fgfast/ledger.sqlite") as ledger:  # as if killed between the disk and the ledger
        ledger.record([Outcome(key=key, status="failed", stage="decode", reasons=("missing",))])
    (source / key).write_bytes(b"")
    again = fgfast.convert("cub", tmp_path / "out", root=source, settings=BOX)
    assert again.counts["failed"] == 1
    assert not (again.twin / key).exists()
    assert len(list((again.out / ".masks").rglob("*.png"))) == 3


@pytest.mark.parametrize("link", ["CUB_200_2011", "fgfast", "CUB_200_2011/images"])
def test_links_in_the_output_lead_nowhere(link: str, tmp_path: Path) -> None:
    source = BUILDERS["cub"](tmp_path / "data")
    out = tmp_path / "out"
    fgfast.convert("cub", out, root=source, settings=BOX)
    shutil.rmtree(out / link)
    (out / link).symlink_to(source / "images" if link.endswith("images") else source)
    before = files_below(source)
    for mode in ("auto", "overwrite"):
        with contextlib.suppress(OutputRefusedError):
            fgfast.convert("cub", out, root=source, settings=BOX, mode=mode)
    assert files_below(source) == before


def test_our_own_folder_is_not_taken_for_granted(tmp_path: Path) -> None:
    source = BUILDERS["cub"](tmp_path)
    text(tmp_path / "out/fgfast/report.html", "somebody's page")
    with pytest.raises(OutputRefusedError, match=r"fgfast/report\.html"):
        fgfast.convert("cub", tmp_path / "out", root=source, settings=BOX)
    make_image(tmp_path / "fgfast" / "a.png")
    with pytest.raises(OutputRefusedError, match="cannot be called"):
        fgfast.convert("folder", tmp_path / "out2", root=tmp_path / "fgfast", settings=BOX)


def test_resume_needs_a_run(tmp_path: Path) -> None:
    source = BUILDERS["cub"](tmp_path)
    with pytest.raises(UsageError, match="no run to resume"):
        fgfast.convert("cub", tmp_path / "out", root=source, settings=BOX, mode="resume")


@pytest.mark.parametrize("where", ["inside", "same", "around", "strange", "file"])
def test_dangerous_outputs_are_refused_before_any_work(where: str, tmp_path: Path) -> None:
    source = BUILDERS["cub"](tmp_path / "data")
    out = {"inside": source / "fg", "same": source, "around": tmp_path, "strange": tmp_path / "s"}.get(
        where, tmp_path / "f"
    )
    if where == "strange":
        text(out / "thesis.tex", "years of work")
    if where == "file":
        text(out, "a file")
    before = files_below(tmp_path)
    with pytest.raises(OutputRefusedError, match="choose"):
        fgfast.convert("cub", out, root=source, settings=BOX)
    assert files_below(tmp_path) == before


def test_a_symlink_does_not_smuggle_the_output_inside(tmp_path: Path) -> None:
    source = BUILDERS["cub"](tmp_path / "data")
    (tmp_path / "link").symlink_to(source)
    with pytest.raises(OutputRefusedError, match="inside"):
        fgfast.convert("cub", tmp_path / "link" / "fg", root=source, settings=BOX)


def test_selection(tmp_path: Path) -> None:
    source = BUILDERS["cub"](tmp_path)
    both = Selection(classes=("001.Auk, 002.Jay",))
    assert fgfast.convert("cub", tmp_path / "both", root=source, settings=BOX, selection=both).total == 4
    report = fgfast.convert(
        "cub", tmp_path / "out", root=source, settings=BOX, selection=Selection(classes=("002.Jay",), limit=1)
    )
    assert report.total == 1
    with pytest.raises(UsageError, match=r"Did you mean '002\.Jay'"):
        fgfast.convert("cub", tmp_path / "o", root=source, selection=Selection(classes=("02.Jay",)))
    with pytest.raises(UsageError, match="no split named 'val'"):
        fgfast.convert("cub", tmp_path / "o", root=source, selection=Selection(splits=("val",)))


def test_results_do_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    source = BUILDERS["dogs"](tmp_path)
    trees = []
    for threads in (1, 4):
        out = tmp_path / f"out{threads}"
        fgfast.convert("dogs", out, root=source, cpu_threads=threads)
        trees.append({k: v for k, v in files_below(out).items() if not k.startswith("fgfast/")})
    assert trees[0] == trees[1]
    assert len(trees[0]) > 8


def test_grabcut_on_real_birds(tmp_path: Path) -> None:
    source = SHARED / "CUB_200_2011"
    if not source.is_dir():
        pytest.skip(f"{source} is not here")
    report = fgfast.convert("cub", tmp_path / "out", root=source, selection=Selection(limit=6))
    assert report.counts["done"] + report.counts["flagged"] == 6
    with Ledger(report.out / "fgfast/ledger.sqlite") as ledger:
        for outcome in ledger.outcomes():
            assert outcome.box is not None
            assert outcome.area is not None
            width, height = outcome.box[2:] - outcome.box[:2]
            assert 0.1 < outcome.area / (width * height) < 1
