"""`--segmenter annotations`: masks that exist already are the twin's masks, to the pixel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from layouts import BUILDERS, HEIGHT, SUBJECT, WIDTH, make_image
from PIL import Image
from pycocotools import mask as coco_mask

import fgfast
from fgfast.cli import main
from fgfast.config import Selection, Settings
from fgfast.datasets import open_dataset
from fgfast.errors import UsageError
from fgfast.io.ledger import Ledger
from fgfast.records import Bool, Outcome

ANNOTATED = Settings(segmenter="annotations", format="png")


def blob(seed: int) -> Bool:
    """A mask that no segmenter would give: a drawn ellipse within the subject's box, less a corner."""
    rng = np.random.default_rng(seed)
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    x0, y0, x1, y1 = SUBJECT
    x = (columns + 0.5 - (x0 + x1) / 2) / (x1 - x0)
    y = (rows + 0.5 - (y0 + y1) / 2) / (y1 - y0)
    bits: Bool = x * x + y * y < rng.uniform(0.1, 0.24)
    bits[:, int(rng.integers(x0 + 12, x1)) :] = False
    return bits


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def outcomes(out: Path) -> dict[str, Outcome]:
    with Ledger(out / "fgfast/ledger.sqlite") as ledger:
        return {outcome.key: outcome for outcome in ledger.outcomes()}


def masks(out: Path) -> dict[str, Bool]:
    """Key -> mask of every written image, from the ledger."""
    return {
        key: coco_mask.decode({"size": list(o.size), "counts": o.rle}).astype(bool)
        for key, o in outcomes(out).items()
        if o.rle is not None and o.size is not None
    }


def run(name: str, root: Path, out: Path, settings: Settings = ANNOTATED, **more: Any) -> fgfast.Report:
    return fgfast.convert(name, out, root=root, settings=settings, in_process=True, **more)


def with_masks(name: str, parent: Path) -> tuple[Path, dict[str, Bool]]:
    """A data set with its own masks where its layout has them, and those masks by key."""
    root = BUILDERS[name](parent)
    keys = [sample.key for sample in open_dataset(name, root).samples]
    bits = {key: blob(n) for n, key in enumerate(keys)}
    if name == "waterbirds":
        BUILDERS["cub"](parent)
    for n, (key, mask) in enumerate(bits.items()):
        stem = Path(key).with_suffix(".png")
        if name == "pets":
            save(root / "annotations/trimaps" / stem.name, np.where(mask, 1 + 2 * (n % 2), 2).astype(np.uint8))
        elif name in ("cub", "waterbirds"):
            below = (root if name == "cub" else parent / "CUB_200_2011") / "segmentations"
            levels = np.where(mask, 153, 102 * (np.arange(WIDTH) % 2)).astype(np.uint8)
            save(below / str(stem).removeprefix("images/"), levels)
    return root, bits


@pytest.mark.parametrize("name", ["cub", "waterbirds", "pets"])
def test_the_data_sets_own_masks_are_those_of_the_twin(name: str, tmp_path: Path) -> None:
    root, expected = with_masks(name, tmp_path / "in")
    report = run(name, root, tmp_path / "out")
    assert report.counts["failed"] == 0
    found = masks(report.out)
    assert found.keys() == expected.keys()
    for key, bits in expected.items():
        np.testing.assert_array_equal(found[key], bits)
    for sample in open_dataset(name, report.twin).samples:
        with Image.open(sample.path) as image:
            black = ~np.asarray(image.convert("RGB")).any(2)
        np.testing.assert_array_equal(black, ~expected[next(k for k in expected if Path(k).stem == sample.path.stem)])


def test_the_box_is_the_data_sets_or_the_masks(tmp_path: Path) -> None:
    root, expected = with_masks("cub", tmp_path / "in")
    lines = (root / "bounding_boxes.txt").read_text().splitlines()
    (root / "bounding_boxes.txt").write_text("\n".join(lines[1:]) + "\n")
    results = outcomes(run("cub", root, tmp_path / "out").out)
    first, *rest = expected
    rows, columns = np.nonzero(expected[first])
    around = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert results[first].box.tolist() == around and results[first].status == "done"
    assert "mask" in results[first].box_reason
    assert all(results[key].box.tolist() == list(SUBJECT) for key in rest)


def test_only_flags_about_agreement_are_raised(tmp_path: Path) -> None:
    root, expected = with_masks("cub", tmp_path / "in")
    keys = list(expected)
    for key, kind in zip(keys, ("box", "pieces", "elsewhere", "tiny"), strict=True):
        bits = np.zeros((HEIGHT, WIDTH), bool)
        x0, y0, x1, y1 = SUBJECT
        if kind == "box":
            bits[y0:y1, x0:x1] = True  # "hugs the box" from a segmenter
        elif kind == "pieces":
            bits[y0:y1:3, x0:x1:3] = True  # "fragments" from a segmenter
        elif kind == "elsewhere":
            bits[:, x1:] = True
        else:
            bits[y0, x0] = True
        save(root / "segmentations" / Path(key.removeprefix("images/")).with_suffix(".png"), bits)
    results = outcomes(run("cub", root, tmp_path / "out").out)
    assert [results[key].reasons for key in keys] == [(), (), ("leaves the box",), ("empty",)]


def test_each_image_without_a_usable_mask_fails_alone(tmp_path: Path) -> None:
    root, expected = with_masks("cub", tmp_path / "in")
    paths = [root / "segmentations" / Path(key.removeprefix("images/")).with_suffix(".png") for key in expected]
    paths[0].unlink()
    save(paths[1], np.ones((HEIGHT + 1, WIDTH), bool))
    save(paths[2], np.zeros((HEIGHT, WIDTH), np.uint8))
    report = run("cub", root, tmp_path / "out")
    assert report.counts["failed"] == 3 and report.counts["done"] == 1
    assert report.failures == {"no mask": 1, "mask size": 1, "empty mask": 1}


@pytest.mark.parametrize("form", ["folder", "images alone", "coco", "earlier run"])
def test_masks_of_mask_dir(form: str, tmp_path: Path) -> None:
    root, expected = with_masks("cub", tmp_path / "in")
    given = tmp_path / "masks"
    if form in ("folder", "images alone"):
        for key, bits in expected.items():
            name = key if form == "folder" else key.removeprefix("images/")
            save(given / Path(name).with_suffix(".png"), bits)
    elif form == "coco":
        given = tmp_path / "instances.json"
        rles = [coco_mask.encode(np.asfortranarray(bits.astype(np.uint8))) for bits in expected.values()]
        content = {
            "images": [{"id": n, "file_name": key} for n, key in enumerate(expected)],
            "annotations": [
                {"id": n, "image_id": n, "segmentation": {**rle, "counts": rle["counts"].decode()}}
                for n, rle in enumerate(rles)
            ],
        }
        given.write_text(json.dumps(content))
    else:
        given = run("cub", root, given, Settings(segmenter="annotations", crop="square", pad=0.3)).out
    settings = Settings(segmenter="annotations", mask_dir=given)
    found = masks(run("cub", root, tmp_path / "out", settings).out)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[key], bits) for key, bits in expected.items())


def test_our_own_coco_file_and_masks_are_read_back(tmp_path: Path) -> None:
    root, expected = with_masks("cub", tmp_path / "in")
    first = run("cub", root, tmp_path / "first", Settings(segmenter="annotations")).out
    for n, given in enumerate((first / "fgfast/instances.json", first / ".masks")):
        out = run("cub", root, tmp_path / str(n), Settings(segmenter="annotations", mask_dir=given)).out
        found = masks(out)
        assert all(np.array_equal(found[key], bits) for key, bits in expected.items())


def test_doubts_of_an_earlier_run_are_kept(tmp_path: Path) -> None:
    for n in range(2):
        make_image(tmp_path / f"in/{n}.png", n)
    first = run("folder", tmp_path / "in", tmp_path / "a", Settings(segmenter="box", detector="center"))
    second = run("folder", tmp_path / "in", tmp_path / "b", Settings(segmenter="annotations", mask_dir=first.out))
    before, after = outcomes(first.out), outcomes(second.out)
    assert {key: o.reasons for key, o in before.items()} == {key: o.reasons for key, o in after.items()}


def test_masks_that_changed_are_noticed_and_their_place_does_not_matter(tmp_path: Path) -> None:
    root, expected = with_masks("cub", tmp_path / "in")
    (root / "segmentations").rename(tmp_path / "masks")
    settings = Settings(segmenter="annotations", mask_dir=tmp_path / "masks")
    for key, bits in expected.items():
        save((tmp_path / "masks" / key.removeprefix("images/")).with_suffix(".png"), bits)
    run("cub", root, tmp_path / "out", settings)
    (tmp_path / "masks").rename(tmp_path / "moved")
    moved = Settings(segmenter="annotations", mask_dir=str(tmp_path / "moved"))
    assert run("cub", root, tmp_path / "out", moved).resumed == 4
    save((tmp_path / "moved" / next(iter(expected)).removeprefix("images/")).with_suffix(".png"), blob(9))
    changed = run("cub", root, tmp_path / "out", moved)
    assert (changed.resumed, changed.changes.changed) == (3, (next(iter(expected)),))


def test_the_banner_is_never_subject(tmp_path: Path) -> None:
    root = BUILDERS["aircraft"](tmp_path / "in")
    for sample in open_dataset("aircraft", root).samples:
        save(tmp_path / f"masks/{sample.path.stem}.png", np.ones((HEIGHT, WIDTH), bool))
    settings = Settings(segmenter="annotations", mask_dir=tmp_path / "masks")
    for bits in masks(run("aircraft", root, tmp_path / "out", settings).out).values():
        assert bits[: HEIGHT - 20].all() and not bits[HEIGHT - 20 :].any()
    only_banner = np.zeros((HEIGHT, WIDTH), bool)
    only_banner[HEIGHT - 20 :] = True
    save(tmp_path / "masks/0034309.png", only_banner)
    assert run("aircraft", root, tmp_path / "again", settings).failures == {"empty mask": 1}


def test_the_command_states_which_masks_and_what_is_subject(tmp_path: Path) -> None:
    root, _ = with_masks("cub", tmp_path / "in")
    arguments = ["convert", "--dataset", "cub", "--root", str(root), "--out", str(tmp_path / "o"), "--dry-run"]
    done = CliRunner().invoke(main, [*arguments, "--segmenter", "annotations"])
    assert done.exit_code == 0, done.output
    assert "levels of 128 and more" in done.output and "box around its mask" in done.output
    (root / "segmentations/001.Auk/Auk_0001_10.png").unlink()
    done = CliRunner().invoke(main, [*arguments, "--segmenter", "annotations"])
    assert "1 of 4 images have none, and will fail" in done.output


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"segmenter": "annotations"}, r"segmentations\.tgz"),
        ({"segmenter": "annotations", "mask_dir": "nowhere"}, "there is no folder"),
        ({"segmenter": "annotations", "detector": "center"}, "omit --detector center"),
    ],
)
def test_what_cannot_be_is_said_beforehand(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    root = BUILDERS["cub"](tmp_path / "in")
    with pytest.raises(UsageError, match=message):
        run("cub", root, tmp_path / "out", Settings(**settings))
    assert not (tmp_path / "out").exists()


def test_settings_without_effect_and_single_images_are_refused() -> None:
    with pytest.raises(UsageError, match="no effect without segmenter annotations"):
        Settings(mask_dir="masks")
    with pytest.raises(UsageError, match="masks of a data set"):
        fgfast.cut_out(np.zeros((9, 9, 3), np.uint8), settings=Settings(segmenter="annotations"))


def test_a_selection_needs_only_its_own_masks(tmp_path: Path) -> None:
    root, expected = with_masks("cub", tmp_path / "in")
    for key in list(expected)[2:]:
        (root / "segmentations" / Path(key.removeprefix("images/")).with_suffix(".png")).unlink()
    report = run("cub", root, tmp_path / "out", selection=Selection(classes=("001.Auk",)))
    assert report.counts == {"done": 2, "flagged": 0, "skipped": 0, "failed": 0}
