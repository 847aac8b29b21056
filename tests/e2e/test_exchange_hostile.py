"""Files of other tools that are wrong, foreign or hostile: refused, or what does not match is listed."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from mending import KEY, disc, made, rows

from fgfast.errors import UsageError
from fgfast.io.exchange import fiftyone, label_studio
from fgfast.pipeline.exchange import Taking, bring_back


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


def _task(rle: Any = (0,), size: tuple[Any, Any] | None = None, **more: Any) -> bytes:
    height, width = size or disc().shape
    value = {"format": "rle", "rle": rle if isinstance(rle, str) else list(rle), "brushlabels": ["a"]}
    result = {"original_width": width, "original_height": height, "value": value}
    return json.dumps([{"data": {"fgfast_key": KEY}, "annotations": [{"result": [result]}], **more}]).encode()


def _sample(mask: Any, box: Any = (0, 0, 1, 1), **more: Any) -> bytes:
    height, width = disc().shape
    detections = [{"label": "a", "bounding_box": list(box), "mask": mask}]
    sample = {"filepath": KEY, "metadata": {"width": width, "height": height}, "foreground": {"detections": detections}}
    return json.dumps({"samples": [{**sample, **more}]}).encode()


def _npy(header: str, data: bytes = b"") -> str:
    text = header.encode()
    file = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data
    return base64.b64encode(zlib.compress(file)).decode()


def _header(kind: str = "|b1", shape: tuple[int, ...] = (2, 2)) -> str:
    return f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"


_BOMB = base64.b64encode(zlib.compress(bytes(1 << 24))).decode()
_SECOND = '<mask label="b" rle="0, 1" left="0" top="0" width="1" height="1"/>'
_SIDE = 1 << 24
REFUSED = {
    "another name": (_coco(image={"file_name": "images/x.jpg"}), "no image of this name"),
    "another size": (_coco(image={"height": 9}), "pixels in the file"),
    "gigapixels": (_coco(image={"height": _SIDE, "width": _SIDE}, counts=[1 << 48]), "pixels in the file"),
    "negative runs": (_coco(counts=[-5, 5]), "do not cover"),
    "numbers of another kind": (_coco(counts=[True, 1e9, "x"]), "do not cover"),
    "a damaged string": (_coco(counts="0"), "damaged"),
    "not ASCII": (_coco(counts="é"), "ascii"),
    "empty": (_coco(counts=[disc().size]), "empty"),
    "out of the image": (_cvat(box=(-1, 0, 2, 2)), "no box"),
    "beyond the image": (_cvat("0, 4", (disc().shape[1] - 1, 0, 2, 2)), "out of the image"),
    "a huge frame": (_cvat(f"0, {1 << 48}", (0, 0, _SIDE, _SIDE)), "out of the image"),
    "runs too long": (_cvat("0, 99999999999999"), "do not cover"),
    "two masks": (_cvat(more=_SECOND), "2 masks, of 'a', 'b'"),
    "a polygon, too": (_cvat(more='<polygon points="1"/>'), "but a polygon"),
    "CVAT, another name": (_cvat(name="x.jpg"), "no image of this name"),
    "Label Studio, no key": (_task(data={"image": "a"}), "no image of this name"),
    "Label Studio, another size": (_task(size=(9, 9)), "pixels in the file"),
    "Label Studio, gigapixels": (_task(size=(_SIDE, _SIDE)), "pixels in the file"),
    "Label Studio, no size": (_task(size=("a", None)), "height and width are missing"),
    "Label Studio, short": (_task(), "they are not those"),
    "Label Studio, cut off": (_task(label_studio.encoded(disc())[:40]), "end too early"),
    "Label Studio, header only": (_task(label_studio.encoded(disc())[:7]), "end too early"),
    "Label Studio, no bytes": (_task([300, -1]), "range"),
    "Label Studio, text": (_task("abc"), "damaged"),
    "Label Studio, a number": (_task(annotations=[{"result": [{"value": {"rle": 5}}]}]), "missing"),
    "Label Studio, two people": (_task(annotations=[{"result": []}] * 2), "2 annotations"),
    "Label Studio, no annotation": (_task(annotations=[]), "no mask in the file"),
    "Label Studio, another structure": (_task(annotations=[{"result": 3}]), "not understood"),
    "FiftyOne, no mask": (_sample(None), "without a mask"),
    "FiftyOne, not binary": (_sample({"$binary": 3}), "without a mask"),
    "FiftyOne, binary of nothing": (_sample({"$binary": {"base64": 3}}), "without a mask"),
    "FiftyOne, binary, damaged": (_sample({"$binary": {"base64": "AAAA"}}), "damaged"),
    "FiftyOne, not base64": (_sample("\u00e9"), "damaged"),
    "FiftyOne, a bomb": (_sample(_BOMB), "damaged"),
    "FiftyOne, a pickle": (_sample(_npy(_header("|O"))), "no matrix"),
    "FiftyOne, claims much": (_sample(_npy(_header(shape=(9999999, 9999999)))), "damaged"),
    "FiftyOne, negative": (_sample(_npy(_header(shape=(-1, 2)), b"1234")), "box"),
    "FiftyOne, a header that is code": (_sample(_npy("__import__('os')")), "damaged"),
    "FiftyOne, off the grid": (_sample(_npy(""), (0.013, 0, 0.5, 0.5)), "whole pixels"),
    "FiftyOne, out of the image": (_sample(fiftyone._text(disc()), (0.5, 0.5, 1, 1)), "out of the image"),
    "FiftyOne, resized": (_sample(fiftyone._text(disc()[:5])), "another size than its box"),
    "FiftyOne, infinite": (_sample(_npy(""), ("inf", 0, 1, 1)), "whole pixels"),
    "FiftyOne, no size": (_sample("", metadata=None), "height and width are missing"),
    "FiftyOne, another structure": (_sample("", foreground=3), "not understood"),
}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("exchange"))


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_match_is_listed(tmp_path: Path, name: str, out: Path) -> None:
    data, reason = REFUSED[name]
    file = tmp_path / "masks"
    file.write_bytes(data)
    result = bring_back(out, file, Taking(dry_run=True, lossy=True, replace=True))
    assert not result.changed and len(result.left) == 1 and reason in next(iter(result.left.values())), result


def test_nothing_changes_where_nothing_matches(tmp_path: Path, out: Path) -> None:
    before, file = rows(out), tmp_path / "masks"
    file.write_bytes(REFUSED["beyond the image"][0])
    assert bring_back(out, file).left and rows(out) == before


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{", b"[]", b"{}", b'{"images":[1],"annotations":[]}', b"<a/>", b"\xff", b"[" * 99999, b"{" * 99999),
        *(b'{"images":[{"id":[],"file_name":"a"}],"annotations":[]}', b"<!DOCTYPE a><annotations/>", b"3", b"[1]"),
        *(b'[{"data":1}]', b'{"samples":1}', b'{"samples":[1]}'),
    ],
)
def test_other_files_are_refused(tmp_path: Path, data: bytes, out: Path) -> None:
    file = tmp_path / "masks"
    file.write_bytes(data)
    with pytest.raises(UsageError):
        bring_back(out, file, Taking(dry_run=True))


def test_a_pack_is_refused_with_the_option_that_takes_it(tmp_path: Path, out: Path) -> None:
    file = tmp_path / "masks.parquet"
    file.write_bytes(b"PAR1\xfe\xff")
    with pytest.raises(UsageError, match="--masks-from"):
        bring_back(out, file, Taking(dry_run=True))
