"""The kind `contours`: its products for one subject, and COCO's polygons."""

from __future__ import annotations

import json
import pickle
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from fgfast import ops
from fgfast.expand.kind import Product, Subject
from fgfast.expand.kinds import contours
from fgfast.io import coco
from fgfast.records import Bool, Outcome, Sample, Size, UInt8
from fgfast.writing import Target

pytest.importorskip("pyefd")


def subject(bits: Bool, pixels: UInt8 | None = None, key: str = "images/a.jpg") -> Subject:
    if pixels is None:
        pixels = np.random.default_rng(0).integers(0, 256, (*bits.shape, 3), dtype=np.uint8)
    return Subject(Sample(key, Path("nowhere")), pixels, bits, {}, (0, "contours", key))


def made(bits: Bool, key: str = "images/a.jpg", **options: Any) -> Product:
    step = pickle.loads(pickle.dumps(contours.Step(contours.Options(**options))))
    found = step(subject(bits, key=key))
    assert isinstance(found, Product)
    return found


def ring(at: tuple[int, int] = (30, 24)) -> Bool:
    canvas = np.zeros((50, 70), np.uint8)
    cv2.circle(canvas, at, 20, 1, -1)
    cv2.circle(canvas, at, 8, 0, -1)
    canvas[2, 60:64] = 1
    return canvas.astype(np.bool_)


def test_products_of_a_ring() -> None:
    bits = ring()
    product = made(bits)
    assert set(product.images) == {"edges"} and product.images["edges"].shape == (50, 70, 3)
    (row,) = product.rows["contours"]
    assert list(row) == list(contours.COLUMNS)
    assert (row["parts"], row["holes"], row["area"]) == (2, 1, int(bits.sum()))
    assert (row["width"], row["height"], row["efd_order"]) == (70, 50, 40)
    assert len(row["efd"]) == len(row["efd_normalised"]) == 160 and len(row["hu"]) == 7
    assert row["efd_iou"] > 0.99 and row["efd_roundness"] > 0.99 and abs(row["efd_centre_x"] - 30.5) < 0.1
    kinds = {"int32": int, "int64": int, "float64": float, "list<float64>": list}
    assert all(type(row[name]) is kinds[kind] for name, kind in contours.COLUMNS.items())
    assert json.dumps(row, allow_nan=False)


@pytest.mark.parametrize("method", contours.EDGES)
def test_options(method: str) -> None:
    product = made(ring(), order=7, edges=method, no_outline=True)
    assert len(product.rows["contours"][0]["efd"]) == 28
    assert not np.array_equal(product.images["edges"], made(ring(), edges=method).images["edges"])


@pytest.mark.parametrize("bits", [np.ones((20, 30), np.bool_), np.eye(20, 30, dtype=np.bool_), ring((2, 48))])
def test_all_covered_thin_and_at_the_border(bits: Bool) -> None:
    product = made(bits)
    (row,) = product.rows["contours"]
    assert json.dumps(row, allow_nan=False) and 0 < row["solidity"] <= 1 and 0 <= row["eccentricity"] <= 1
    assert not product.images["edges"][~bits].any()


def test_one_pixel() -> None:
    bits = np.zeros((9, 8), np.bool_)
    bits[8, 7] = True
    product = made(bits)
    (row,) = product.rows["contours"]
    assert json.dumps(row, allow_nan=False) and (row["area"], row["solidity"], row["eccentricity"]) == (1, 1, 0)
    assert product.images["edges"][8, 7].tolist() == [255] * 3


def test_an_empty_mask_is_skipped() -> None:
    assert "empty" in made(np.zeros((9, 8), np.bool_)).skipped


def drawn_svg(text: bytes) -> Bool:
    """The pixels of the only path, drawn on our own."""
    root = ElementTree.fromstring(text)
    (path,) = root.iter("{http://www.w3.org/2000/svg}path")
    assert path.get("fill-rule") == "evenodd"
    bits = np.zeros((int(root.get("height", 0)), int(root.get("width", 0))), np.bool_)
    for x, y, steps in re.findall(r"M(\d+) (\d+)((?:[hv]-?\d+)*)z", path.get("d", "")):
        at_x, at_y, first = int(x), int(y), int(y)
        for way, length in [*re.findall(r"([hv])(-?\d+)", steps), ("v", None)]:
            if way == "h":
                at_x += int(length)
                continue
            end = first if length is None else at_y + int(length)
            bits[min(at_y, end) : max(at_y, end), at_x:] ^= True
            at_y = end
        assert at_y == first
    return bits


@pytest.mark.parametrize("bits", [ring(), np.ones((7, 5), np.bool_), np.random.default_rng(1).random((40, 30)) < 0.5])
def test_the_svg_draws_the_mask(bits: Bool) -> None:
    assert np.array_equal(drawn_svg(made(bits).files["svg"]), bits)


@pytest.mark.parametrize(
    "key", ["a&b<script>\"'.jpg", "bell\x07 and \x1b[2J.jpg", "half \udc80 \ud800.jpg", "]]>.jpg", "ü鳥.jpg"]
)
def test_any_name_is_only_a_title(key: str) -> None:
    text = made(ring(), key=key).files["svg"]
    (title,) = ElementTree.fromstring(text).iter("{http://www.w3.org/2000/svg}title")
    assert title.text == "".join(c if c.isprintable() else "\ufffd" for c in key)


def outcome(number: int, bits: Bool) -> Outcome:
    size = Size(*bits.shape)
    return Outcome(
        f"images/{number}.jpg",
        "done",
        "write",
        id=number,
        twin=f"t/{number}.png",
        size=size,
        twin_size=size,
        rle=ops.rle_encode(bits),
    )


def test_coco_reads_the_masks_from_the_polygons(tmp_path: Path) -> None:
    masks = [ring(), np.random.default_rng(2).random((40, 30)) < 0.7, np.ones((4, 6), np.bool_)]
    target = Target.file(tmp_path / "instances.json")
    labels = {"images/0.jpg": "one", "images/1.jpg": "two", "images/2.jpg": ""}
    with coco.instances(target, labels, ["one", "two"], "drawn", "original", polygons=contours.polygons) as add:
        for number, bits in enumerate(masks):
            add(outcome(number, bits))
    read = COCO(str(tmp_path / "instances.json"))
    for number, bits in enumerate(masks):
        (annotation,) = read.loadAnns(read.getAnnIds([number]))
        assert isinstance(annotation["segmentation"], list)
        assert np.array_equal(read.annToMask(annotation).astype(np.bool_), bits)
        assert annotation["area"] == bits.sum() and annotation["iscrowd"] == 0
