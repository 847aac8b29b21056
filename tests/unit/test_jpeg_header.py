"""Plain JPEGs, which every decoder gets, are distinguished from odd ones."""

from __future__ import annotations

import io

import numpy as np
import odd_images
import pytest
from layouts import SHARED
from PIL import Image as pillow
from PIL import ImageOps

from fgfast.io.decode import decode
from fgfast.io.jpeg_header import may_be_turned, read_plain

PLAIN, ODD, DAMAGED = odd_images.plain(), odd_images.odd(), odd_images.damaged()
pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow's

# Odd files with an intact structure: the size makes one odd, the orientation in XMP the other.
NOT_BY_STRUCTURE = {"bomb", "turned by XMP", "turned by XMP behind a large profile"}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_jpegs_are_read(name: str) -> None:
    data = PLAIN[name]
    header = read_plain(data)
    assert header is not None
    assert (header.width, header.height) == pillow.open(io.BytesIO(data)).size
    assert data[header.end - 2 : header.end] == b"\xff\xd9"
    assert len(data) - header.end == (17 if name == "bytes behind the end" else 0)
    assert header.orientation == 1


@pytest.mark.parametrize("name", [name for name in ODD if name not in NOT_BY_STRUCTURE])
def test_all_else_is_odd(name: str) -> None:
    assert read_plain(ODD[name]) is None


@pytest.mark.parametrize("name", DAMAGED)
def test_some_damage_cannot_be_seen(name: str) -> None:
    assert read_plain(DAMAGED[name]) is not None


@pytest.mark.parametrize("name", ["4:2:0", "progressive", "restarts", "grey", "EXIF orientation 6"])
def test_no_beginning_of_a_plain_jpeg_is_plain(name: str) -> None:
    data = PLAIN[name]
    assert not [length for length in range(len(data)) if read_plain(data[:length], exif=True)]


@pytest.mark.parametrize("orientation", range(10))
def test_orientations_are_exifs(orientation: int) -> None:
    header = read_plain(PLAIN[f"EXIF orientation {orientation}"], exif=True)
    assert header is not None and header.orientation == (orientation if 1 < orientation < 9 else 1)


def test_orientations_of_damaged_exif_and_of_xmp() -> None:
    damaged = read_plain(PLAIN["broken EXIF"], exif=True)
    assert damaged is not None and damaged.orientation == 1
    xmp = ODD["turned by XMP"]
    left_to_pillow = read_plain(xmp, exif=True)
    assert left_to_pillow is not None and left_to_pillow.orientation is None
    exif_first = read_plain(xmp[:2] + odd_images.with_exif(3)[2:-2] + xmp[-2:], exif=True)
    assert exif_first is not None and exif_first.orientation == 3


def test_exif_in_two_segments_is_read_as_pillow_reads_it() -> None:
    data = PLAIN["EXIF orientation 6"]
    start = data.index(b"\xff\xe1")
    end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    body = data[start + 4 : end]
    halves = (odd_images.segment(0xE1, part) for part in (body[:20], b"Exif\0\0" + body[20:]))
    split = data[:start] + b"".join(halves) + data[end:]
    assert pillow.open(io.BytesIO(split)).getexif()[0x0112] == 6
    header = read_plain(split, exif=True)
    assert header is not None and header.orientation == 6


EXTENDED = odd_images.segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(65_000))
XMP = odd_images.segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x><tiff:Orientation>6</tiff:Orientation></x>")
EXIF = odd_images.with_exif(6)[2:]
EXIF = EXIF[EXIF.index(b"\xff\xe1") :][: 2 + int.from_bytes(EXIF[EXIF.index(b"\xff\xe1") + 2 :][:2], "big")]


@pytest.mark.parametrize("before", [0, 1, 2, 9])
@pytest.mark.parametrize("what", ["profile", "extended XMP", "comments", "Photoshop"])
@pytest.mark.parametrize("how", [EXIF, XMP], ids=["EXIF", "XMP"])
def test_an_orientation_is_found_wherever_it_is_before_the_first_scan(how: bytes, what: str, before: int) -> None:
    filling = {
        "profile": odd_images.profile(65_000)[0],
        "extended XMP": EXTENDED,
        "comments": odd_images.segment(0xFE, b"Exif" * 16_000),
        "Photoshop": odd_images.segment(0xED, b"Photoshop 3.0\0" + bytes(65_000)),
    }[what]
    whole = odd_images.encoded(odd_images.make_image(), quality=90)
    data = odd_images.behind_soi(whole, *[filling] * before, how)
    assert may_be_turned(data)
    stored, turned = (decode(data, "x", turn).pixels for turn in (False, True))
    np.testing.assert_array_equal(turned, np.rot90(stored, -1))
    # Between the frame and the scan, where few programs write it, and Pillow reads it.
    at = whole.index(b"\xff\xda")
    late = whole[:at] + filling * before + how + whole[at:]
    np.testing.assert_array_equal(decode(late, "x", True).pixels, turned)
    opened = ImageOps.exif_transpose(pillow.open(io.BytesIO(late)))
    np.testing.assert_array_equal(np.asarray(opened), turned)


@pytest.mark.parametrize("name", ["4:2:0", "progressive", "comment", "colour profile", "grey from Adobe", "restarts"])
def test_jpegs_without_metadata_are_not_left_to_pillow(name: str) -> None:
    assert not may_be_turned(PLAIN[name])
    after = PLAIN[name][:-2] + EXIF + PLAIN[name][-2:]  # neither Pillow nor a viewer looks there
    assert not may_be_turned(after)
    assert decode(after, "x", True).size == decode(PLAIN[name], "x", True).size


def test_a_damaged_header_may_hold_anything() -> None:
    whole = odd_images.encoded(odd_images.make_image())
    for data in (whole[:2] + b"junk" + whole[2:], whole[:20], whole[:2], whole[:2] + b"\xff\xff" + EXIF + whole[2:]):
        assert may_be_turned(data)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not here")
def test_photographs_are_plain() -> None:
    files = [*SHARED.glob("CUB_200_2011/images/*/*.jpg"), *SHARED.glob("masks/**/*.jpg")]
    assert len(files) > 50
    assert not [file.name for file in files if read_plain(file.read_bytes(), exif=True) is None]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_is_pillows(orientation: int) -> None:
    from fgfast.io.batched import turned

    image = odd_images.make_image((7, 5))
    image.getexif()[0x0112] = orientation
    ours = turned(np.asarray(image), orientation)
    np.testing.assert_array_equal(ours, np.asarray(ImageOps.exif_transpose(image)))
    assert ours.flags.c_contiguous
