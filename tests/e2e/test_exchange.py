"""Masks go to other tools and come back: identical bits, decisions only for what changed, hostile files listed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mending import KEY, OTHER, change, disc, made, outcomes, rows

from fgfast.errors import UsageError
from fgfast.io.decisions import Decisions
from fgfast.ops import rle_encode
from fgfast.pipeline.exchange import FORMATS, bring_back, export
from fgfast.pipeline.mending import Mender


@pytest.mark.parametrize("to", FORMATS)
def test_masks_come_back_with_identical_bits(tmp_path: Path, to: str) -> None:
    out, other, file = made(tmp_path), made(tmp_path, name="other"), tmp_path / "masks"
    with Mender.open(out) as mender:
        outcomes(
            mender.decide([change(verdict="mask", bits=disc(32)), change(OTHER, verdict="mask", bits=disc())], "a")
        )
        mender.finish()
    assert export(out, to, file) == len(rows(out))
    before = rows(other)
    dry = bring_back(other, file, "CVAT", dry_run=True)
    assert sorted(dry.changed) == [KEY, OTHER] and rows(other) == before
    assert bring_back(other, file, "CVAT") == dry
    for key, bits in ((KEY, disc(32)), (OTHER, disc())):
        assert rows(other)[key][4] == rle_encode(bits) == rows(out)[key][4]
    with Decisions(other / "fgfast/decisions.sqlite", write=False) as decisions:
        assert [(one.key, one.who, one.how) for one in decisions.of(KEY)] == [(KEY, "CVAT", "import")]
    again = bring_back(other, file, "CVAT")
    assert not again.changed and not again.left and again.unchanged == len(before)


def test_coco_is_read_by_pycocotools(tmp_path: Path) -> None:
    from pycocotools import mask

    out, file = made(tmp_path), tmp_path / "masks.json"
    with Mender.open(out) as mender:
        outcomes(mender.decide([change(verdict="mask", bits=disc(32))], "a"))
    export(out, "coco", file)
    content = json.loads(file.read_text())
    number = next(image["id"] for image in content["images"] if image["file_name"] == KEY)
    found = next(one["segmentation"] for one in content["annotations"] if one["image_id"] == number)
    assert np.array_equal(mask.decode(found).astype(bool), disc(32))


def _coco(**more: Any) -> bytes:
    height, width = disc().shape
    image = {"id": 1, "file_name": KEY, "height": height, "width": width, **more.pop("image", {})}
    mask = {"size": [image["height"], image["width"]], "counts": [0, height * width], **more}
    annotation = {"image_id": 1, "segmentation": mask}
    return json.dumps({"images": [image], "annotations": [annotation]}).encode()


def _cvat(rle: str = "0, 4", box: tuple[int, int, int, int] = (0, 0, 2, 2), name: str = KEY, more: str = "") -> bytes:
    height, width = disc().shape
    left, top, wide, high = box
    mask = f'<mask label="a" rle="{rle}" left="{left}" top="{top}" width="{wide}" height="{high}"/>{more}'
    image = f'<image name="{name}" width="{width}" height="{height}">{mask}</image>'
    return f'<?xml version="1.0"?><annotations>{image}</annotations>'.encode()


REFUSED = {
    "another name": (_coco(image={"file_name": "images/x.jpg"}), "no image of this name"),
    "another size": (_coco(image={"height": 9}), "pixels in the file"),
    "gigapixels": (_coco(image={"height": 1 << 24, "width": 1 << 24}, counts=[1 << 48]), "pixels in the file"),
    "negative runs": (_coco(counts=[-5, 5]), "do not cover"),
    "numbers of another kind": (_coco(counts=[True, 1e9, "x"]), "do not cover"),
    "a damaged string": (_coco(counts="0"), "damaged"),
    "not ASCII": (_coco(counts="é"), "ascii"),
    "empty": (_coco(counts=[disc().size]), "empty"),
    "out of the image": (_cvat(box=(-1, 0, 2, 2)), "no box"),
    "beyond the image": (_cvat("0, 4", (disc().shape[1] - 1, 0, 2, 2)), "out of the image"),
    "runs too long": (_cvat("0, 99999999999999"), "do not cover"),
    "two masks": (_cvat(more='<mask rle="1"/>'), "2 shapes"),
    "a polygon, too": (_cvat(more='<polygon points="1"/>'), "2 shapes"),
    "CVAT, another name": (_cvat(name="x.jpg"), "no image of this name"),
}


def test_what_does_not_match_is_listed(tmp_path: Path) -> None:
    out, file = made(tmp_path), tmp_path / "masks"
    before = rows(out)
    for name, (data, reason) in REFUSED.items():
        file.write_bytes(data)
        result = bring_back(out, file, "x", dry_run=True)
        assert not result.changed and len(result.left) == 1 and reason in next(iter(result.left.values())), name
    file.write_bytes(REFUSED["beyond the image"][0])
    assert bring_back(out, file, "x").left and rows(out) == before


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{", b"[]", b"{}", b'{"images":[1],"annotations":[]}', b"<a/>", b"\xff", b"[" * 99999, b"{" * 99999),
        b'{"images":[{"id":[],"file_name":"a"}],"annotations":[]}',
        b"<!DOCTYPE a><annotations/>",
    ],
)
def test_other_files_are_refused(tmp_path: Path, data: bytes, shared_out: Path) -> None:
    file = tmp_path / "masks"
    file.write_bytes(data)
    with pytest.raises(UsageError):
        bring_back(shared_out, file, "x", dry_run=True)


@pytest.fixture(scope="module")
def shared_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("exchange"))
