"""Masks go to other tools and come back: identical bits, decisions only for what changed, conflicts listed."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from mending import KEY, OTHER, THIRD, change, disc, made, outcomes, rows

from fgfast.cli import main
from fgfast.io.decisions import Decisions
from fgfast.io.exchange import fiftyone, label_studio
from fgfast.ops import rle_encode
from fgfast.pipeline.exchange import FORMATS, Taking, bring_back, export
from fgfast.pipeline.mending import Mender
from fgfast.records import Bool, Size


def odd() -> Bool:
    """A mask with a hole, and single pixels in two corners."""
    bits = disc()
    bits[0, 0] = bits[-1, -1] = True
    return bits


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output, of crops, with two masks that a person made."""
    out = made(tmp_path_factory.mktemp("decided"), crop="square")
    with Mender.open(out) as mender:
        asked = [change(verdict="mask", bits=odd()), change(OTHER, verdict="mask", bits=disc(32))]
        outcomes(mender.decide(asked, "a"))
        mender.finish()
    return out


def copy(out: Path, to: Path) -> Path:
    """Copy an output and its data set to another folder; return the output."""
    shutil.copytree(out.parent / "data", to / "data")
    return Path(shutil.copytree(out, to / "out"))


@pytest.mark.parametrize("to", FORMATS)
def test_masks_come_back_with_identical_bits(tmp_path: Path, to: str, decided: Path) -> None:
    other, file = made(tmp_path, name="other"), tmp_path / "masks"
    assert export(decided, to, file) == len(rows(decided))
    before = rows(other)
    kept = bring_back(other, file, Taking("CVAT"))
    assert sorted(kept.kept) == [KEY, OTHER] and not kept.changed and rows(other) == before
    dry = bring_back(other, file, Taking("CVAT", replace=True, dry_run=True))
    assert sorted(dry.changed) == [KEY, OTHER] and rows(other) == before
    assert bring_back(other, file, Taking("CVAT", replace=True)) == dry
    for key, bits in ((KEY, odd()), (OTHER, disc(32))):
        assert rows(other)[key][4] == rle_encode(bits) == rows(decided)[key][4]
    with Decisions(other / "fgfast/decisions.sqlite", write=False) as decisions:
        assert [(one.key, one.who, one.how) for one in decisions.of(KEY)] == [(KEY, "CVAT", "import")]
    again = bring_back(other, file)
    assert not again.changed and not again.left and again.unchanged == len(before)
    twice = tmp_path / "twice"
    export(decided, to, twice)
    assert twice.read_bytes() == file.read_bytes()


def test_large_random_and_extreme_masks_come_back() -> None:
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (1, 70001), (300, 257), (33, 8)):
        for bits in (np.ones(shape, bool), rng.random(shape) < 0.5, rng.random(shape) < 0.01):
            assert np.array_equal(label_studio.decoded(label_studio.encoded(bits), Size(*shape)), bits)
            assert np.array_equal(fiftyone._bits(fiftyone._text(bits), Size(*shape)), bits)
    for side in (1, 3, 7, 10, 49, 333, 4001, 6000):
        for start, end in {(0, side), (side - 1, side), (side // 3, side // 3 + 1), (side // 2, side)}:
            first, length = fiftyone._shares(start, end, side)
            assert (int(side * first), int(side * (first + length))) == (start, end)
            assert abs(first * side - start) < 1e-6 and abs((first + length) * side - end) < 1e-6


def edit(to: str, file: Path, key: str, bits: Bool) -> None:
    """Change a mask in an exported file as its tool would."""
    if to == "cvat":
        root = ET.parse(file).getroot()
        mask = next(image for image in root.iter("image") if image.get("name") == key).find("mask")
        assert mask is not None
        runs = np.diff(np.flatnonzero(np.diff(bits.ravel(), prepend=False)), prepend=0, append=bits.size)
        mask.set("rle", ", ".join(map(str, runs)))
        for name, value in (("left", 0), ("top", 0), ("width", bits.shape[1]), ("height", bits.shape[0])):
            mask.set(name, str(value))
        file.write_bytes(ET.tostring(root))
        return
    content = json.loads(file.read_text())
    if to == "coco":
        annotation(content, key)["segmentation"]["counts"] = rle_encode(bits).decode()
    elif to == "label-studio":
        task = next(task for task in content if task["data"]["fgfast_key"] == key)
        task["annotations"][0]["result"][0]["value"]["rle"] = list(label_studio.encoded(bits))
    else:
        sample = next(sample for sample in content["samples"] if sample["filepath"] == key)
        sample["foreground"]["detections"][0] |= {"mask": fiftyone._text(bits), "bounding_box": [0, 0, 1, 1]}
    file.write_text(json.dumps(content))


def annotation(content: dict, key: str) -> dict:  # type: ignore[type-arg]
    number = next(image["id"] for image in content["images"] if image["file_name"] == key)
    return next(one for one in content["annotations"] if one["image_id"] == number)


@pytest.mark.parametrize("to", FORMATS)
def test_a_mask_that_was_made_from_an_older_state_is_a_conflict(tmp_path: Path, to: str, decided: Path) -> None:
    out, file, exported = copy(decided, tmp_path), tmp_path / "masks", tmp_path / "exported"
    export(out, to, file)
    shutil.copy(file, exported)
    edit(to, file, KEY, disc(24))
    edit(to, file, THIRD, disc(24))
    with Mender.open(out) as mender:
        outcomes(mender.decide([change(seen=mender.decisions.last(KEY)), change(OTHER, "reject", 2)], "b"))
    found = bring_back(out, file, Taking(dry_run=True))
    assert found.changed == [THIRD] and list(found.left) == [KEY] and "decision 3 was made since" in found.left[KEY]
    stripped = tmp_path / "stripped"
    stripped.write_bytes(file.read_bytes().replace(b"fgfast_state", b"x"))
    unknown = bring_back(out, stripped, Taking(dry_run=True))
    assert unknown.changed == [THIRD] and list(unknown.left) == [KEY] and "--exported" in unknown.left[KEY]
    assert bring_back(out, stripped, Taking(dry_run=True, exported=exported)) == found
    assert bring_back(out, file) == found and rows(out)[KEY][4] == rle_encode(odd())
    replaced = bring_back(out, file, Taking(replace=True, dry_run=True))
    assert replaced.changed == [KEY] and not replaced.left


def test_what_was_rejected_stays_so_unless_the_tool_drew_it_anew(tmp_path: Path, decided: Path) -> None:
    out, file = copy(decided, tmp_path), tmp_path / "masks"
    export(out, "coco", file)
    with Mender.open(out) as mender:
        outcomes(mender.decide([change(OTHER, "reject", 2)], "b"))
    assert not bring_back(out, file).changed and rows(out)[OTHER][0] == "skipped"
    edit("coco", file, OTHER, disc(24))
    found = bring_back(out, file)
    assert list(found.left) == [OTHER] and rows(out)[OTHER][0] == "skipped"
    assert bring_back(out, file, Taking(replace=True)).changed == [OTHER] and rows(out)[OTHER][0] == "done"


def test_parts_that_a_tool_split_are_united(tmp_path: Path, decided: Path) -> None:
    out, file = copy(decided, tmp_path), tmp_path / "masks"
    export(decided, "coco", file)
    content = json.loads(file.read_text())
    one = annotation(content, KEY)
    more = {**one, "segmentation": {**one["segmentation"], "counts": rle_encode(disc(40)).decode()}}
    content["annotations"].append(more)
    file.write_text(json.dumps(content))
    found = bring_back(out, file)
    assert found.united == found.changed == [KEY]
    assert rows(out)[KEY][4] == rle_encode(odd() | disc(40))
    more["category_id"] = next(each["id"] for each in content["categories"] if each["id"] != one["category_id"])
    file.write_text(json.dumps(content))
    found = bring_back(out, file, Taking(dry_run=True))
    assert not found.changed and "it has 2 masks, of " in found.left[KEY]


def test_polygons_are_taken_when_asked_for(tmp_path: Path, decided: Path) -> None:
    file = tmp_path / "masks"
    export(decided, "coco", file)
    content = json.loads(file.read_text())
    one = annotation(content, OTHER)
    one["segmentation"] = [[25, 10, 39, 10, 39, 23, 25, 23]]
    file.write_text(json.dumps(content))
    found = bring_back(decided, file, Taking(dry_run=True))
    assert not found.changed and "a polygon; --lossy takes it" in found.left[OTHER]
    found = bring_back(decided, file, Taking(dry_run=True, lossy=True))
    assert found.changed == [OTHER] and 0.5 < found.lossy[OTHER] < 1
    shown = CliRunner().invoke(main, ["masks", "import", str(decided), str(file), "--lossy", "--dry-run"])
    assert shown.exit_code == 0 and f"{OTHER}: {found.lossy[OTHER]:.4f}" in shown.output
    for bad in ([[1, 2, 3]], [["a"] * 6], [[1e300] * 6], [[0, 0, 9, 0, float("nan"), 0]], [3], [[[]]], [[None] * 6]):
        one["segmentation"] = bad
        file.write_text(json.dumps(content))
        assert list(bring_back(decided, file, Taking(dry_run=True, lossy=True)).left) == [OTHER], bad


def test_coco_is_read_by_pycocotools(tmp_path: Path, decided: Path) -> None:
    from pycocotools import mask

    file = tmp_path / "masks.json"
    export(decided, "coco", file)
    found = annotation(json.loads(file.read_text()), KEY)["segmentation"]
    assert np.array_equal(mask.decode(found).astype(bool), odd())


def test_a_file_of_another_data_set_is_told_and_ends_with_another_exit_code(tmp_path: Path, decided: Path) -> None:
    file = tmp_path / "masks.json"
    export(decided, "coco", file)
    content = json.loads(file.read_text())
    for image in content["images"]:
        image["file_name"] = f"other/{image['file_name']}"
    file.write_text(json.dumps(content))
    result = CliRunner().invoke(main, ["masks", "import", str(decided), str(file), "--dry-run"])
    assert result.exit_code == 3 and "the file of another data set?" in result.stderr
