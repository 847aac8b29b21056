"""A stranger's data set: whatever is in its annotation files, they are read, or refused with an error of fgfast."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from layouts import BUILDERS, dogs, folder, make_image, mat, pets, placements, text, voc
from PIL import Image

from fgfast import datasets, processes
from fgfast.datasets import archives
from fgfast.datasets.annotation_files import MOST_BYTES, lines_of, read_bytes, short
from fgfast.datasets.cell_values import decode, from_json
from fgfast.datasets.mask_files import coco_source, in_coco
from fgfast.datasets.masks import read_mask
from fgfast.datasets.mat_files import read_mat
from fgfast.datasets.unread_boxes import holds_four
from fgfast.datasets.voc_files import read_voc
from fgfast.errors import DatasetError, FgfastError, MaskUnusableError
from fgfast.image_formats import MAX_PIXELS, TooManyPixelsError, open_image
from fgfast.mask_source import MaskSource
from fgfast.records import Sample, Size

# What the safety net of `Dataset.open` says of an error that no reader foresaw.
NET = "are not understood ("

WHOLE = {
    "nothing": b"",
    "zeros": b"\0" * 100,
    "no text": bytes(range(256)),
    "half a UTF-16": b"\xff\xfea",
    "surrogates": b"\xed\xa0\x80\n",
    "many digits": b"9" * 5000,
    "one long line": b"1 " * 100_000,
    "deep JSON": b"[" * 100_000,
    "deep dicts": b'{"a":' * 100_000,
    "open quote": b'path,x0,y0,x1,y1\n"a,1,2,3,4\n' + b"b,1,2,3,4\n" * 50,
    "columns": b",".join(b"c%d" % n for n in range(20_000)) + b"\n",
    "long names": b"a" * 2_000_000 + b",b\n1,2\n",
    "digits in a cell": b"path,x\na.jpg," + b"1" * 200_000 + b"\n",
    "terminal": b"\x1b]0;x\x07 \x1b[2J\n",
    "entities": b'<!DOCTYPE a [<!ENTITY x "y">]><annotation>&x;</annotation>',
    "UTF-7": b'<?xml version="1.0" encoding="utf-7"?><annotation/>',
    "deep XML": b"<a>" * 50_000 + b"</a>" * 50_000,
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
}
FIELDS = ("9" * 5000, "-1e400", "../../etc/passwd", "", "\x00")


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of small files are written, and nothing asks whether they are on disk."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def annotation_files(root: Path) -> list[Path]:
    images = (".jpg", ".mat", ".gitkeep")
    found = sorted(p for p in root.rglob("*") if p.is_file() and p.suffix not in images)
    found = [p for p in found if p.suffix != ".png" or "trimaps" in p.parts]
    per_image = {(p.parent, p.suffix): p for p in reversed(found) if p.suffix in ("", ".png", ".xml")}
    return [p for p in found if per_image.get((p.parent, p.suffix), p) == p]


def opened(name: str, root: Path, out: Path) -> None:
    """Open a data set, and write its annotations for a crop; raise what is no error of fgfast."""
    with contextlib.suppress(FgfastError):
        try:
            dataset = datasets.open_dataset(name, root=root)
            shutil.rmtree(out, ignore_errors=True)
            dataset.write_annotations(out, placements(dataset, (4, 5), Size(16, 20)))
        except FgfastError as error:
            assert NET not in str(error), error  # noqa: PT017
            assert len(str(error)) < 2000  # noqa: PT017
            raise


@pytest.mark.parametrize("name", sorted(BUILDERS.keys() - {"cars", "flowers"}))
def test_any_content_of_an_annotation_file_gives_an_error_of_fgfast(name: str, tmp_path: Path) -> None:
    root = dogs(tmp_path, lists=False) if name == "dogs" else BUILDERS[name](tmp_path)
    for path in annotation_files(root):
        before = path.read_bytes()
        for content in WHOLE.values():
            path.write_bytes(content)
            opened(name, root, tmp_path / "out")
        for content in damaged(before):
            path.write_bytes(content)
            opened(name, root, tmp_path / "out")
        path.write_bytes(before)


def damaged(content: bytes) -> Iterator[bytes]:
    """Yield a text file with other values in each place of its last line, and in its numbers."""
    with contextlib.suppress(UnicodeDecodeError):
        lines = content.decode().splitlines()
        if not lines:
            return
        separator = "," if "," in lines[-1] else " "
        fields = lines[-1].split(separator)
        for n in range(len(fields)):
            for value in FIELDS:
                last = separator.join([*fields[:n], value, *fields[n + 1 :]])
                yield "\n".join([*lines[:-1], last, ""]).encode()


JSON_ROWS = (
    '{"file_name": "a.png", "objects": {"bbox": [[1, 2, 3, 4]], "area": [NaN]}}',
    '{"file_name": "a.png", "bbox": [1e400, 2, 3, 4]}',
    '{"file_name": "a.png", "bbox": [%s, 2, 3, 4]}' % ("9" * 4000),
    '{"file_name": "a.png", "bbox": "[0x%s, 2, 3, 4]"}' % ("f" * 9000),
    '{"file_name": "a.png", "objects": ' + "[" * 800 + "1" + "]" * 800 + "}",
    '{"file_name": "a.png", "objects": [%s]}' % ('{"a":' * 300 + "1" + "}" * 300),
    '{"file_name": "\\ud800.png"}',
    '{"file_name": ["a.png", 3]}',
    '{"file_name": {"a": "b"}, "file_name": "a.png"}',
    '{"file_name": "a.png", "segmentation": [[1e308, 1e308, -1e308, 1, 2, 3]], "bbox": [1, 2, 3, 4]}',
    '{"file_name": "a.png", "keypoints": [[[[1]]]], "bbox": [1, 2, 3, 4]}',
    '{"file_name": "a.png", "bbox": "((((((((%s"}' % ("(" * 5000),
    '{"file_name": "a.png", "bbox": "[%s"}' % ("-" * 50_000),
    '{"file_name": "a.png", "%s": 1}' % ("bbox" * 1000),
    '{"file_name": "a.png", "width": 1e308, "height": 1e308, "bbox": [1, 2, 3, 4]}',
    '{"file_name": "a.png", "bbox": [1, 2, 3, 4], "size": "' + "9" * 4999 + "x" + "9" * 4999 + '"}',
    "[]",
    "9" * 5000,
)


@pytest.mark.parametrize("row", JSON_ROWS, ids=range(len(JSON_ROWS)))
def test_rows_of_json(row: str, tmp_path: Path) -> None:
    make_image(tmp_path / "set/a.png")
    text(tmp_path / "set/metadata.jsonl", row)
    opened("folder", tmp_path / "set", tmp_path / "out")


MATS: dict[str, Callable[[], dict[str, Any]]] = {
    "labels of a class each": lambda: {"labels": np.array([[1e15, 1]])},
    "not numbers": lambda: {"labels": np.array([[np.nan, -1]])},
    "text": lambda: {"labels": "abc"},
    "cells": lambda: {"labels": np.array([[1, "a", np.zeros((2, 2))]], object)},
}


@pytest.mark.parametrize("case", MATS)
def test_variables_of_other_kinds(case: str, tmp_path: Path) -> None:
    root = BUILDERS["flowers"](tmp_path)
    mat(root / "imagelabels.mat", **MATS[case]())
    with pytest.raises(DatasetError, match=r"imagelabels\.mat: expected whole numbers from 0 to 100,000 in labels"):
        datasets.open_dataset("flowers", root=root)


def bomb() -> bytes:
    """A MAT-file of a few hundred bytes that states a cell array of 4e9 cells, 32 GB of pointers."""
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"file_list": np.array([["a", "b", "c"]], object)})
    whole = bytearray(buffer.getvalue())
    at = whole.index(np.array([1, 3], "<i4").tobytes(), 128)
    whole[at : at + 8] = np.array([40_000, 100_000], "<i4").tobytes()
    return bytes(whole)


def test_mat_files_are_read_under_a_cap(tmp_path: Path) -> None:
    path = tmp_path / "x.mat"
    path.write_bytes(bomb())
    with pytest.raises(
        DatasetError, match=r"x\.mat: (reading it takes more than 1 GB|not a MATLAB file, or a damaged)"
    ):
        read_mat(path)
    path.write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512))
    with pytest.raises(DatasetError, match=r"version 7.3 .HDF5., which is not read; save it with MATLAB's -v7"):
        read_mat(path)
    path.write_bytes(b"nonsense" * 100)
    with pytest.raises(DatasetError, match="not a MATLAB file, or a damaged one"):
        read_mat(path)


@pytest.mark.parametrize("name", ["cars", "dogs", "flowers"])
def test_mat_files_of_a_data_set_are_read_in_one_process(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    start = processes.Child.__init__
    monkeypatch.setattr(processes.Child, "__init__", lambda *args: (started.append(args), start(*args))[1])
    dataset = datasets.open_dataset(name, root=BUILDERS[name](tmp_path))
    assert len(started) == 1
    dataset.write_annotations(tmp_path / "out", placements(dataset))
    assert len(started) <= 2


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("declared", ["", '<?xml version="1.0"?>\n', '<?xml version="1.0" encoding="{}"?>'])
def test_xml_in_utf8_and_utf16(encoding: str, declared: str, tmp_path: Path) -> None:
    path = voc(tmp_path / "a", "a.jpg", (1, 2, 30, 20))
    declaration = declared.format(encoding.removesuffix("-sig").upper())
    path.write_bytes((declaration + path.read_text()).encode(encoding))
    assert read_voc(path) == [(0.0, 1.0, 30.0, 20.0)]


def test_xml_that_multiplies_is_refused(tmp_path: Path) -> None:
    attributes = "".join(f'a{n} CDATA "x" ' for n in range(3000))
    (tmp_path / "a").write_text(f"<!DOCTYPE a [<!ATTLIST b {attributes}>]><a>{'<b/>' * 3000}</a>")
    with pytest.raises(DatasetError, match=r"it has a <!DOCTYPE ...>, which no VOC file needs"):
        read_voc(tmp_path / "a")
    (tmp_path / "a").write_bytes('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'.encode("utf-16"))
    with pytest.raises(DatasetError, match="DOCTYPE"):
        read_voc(tmp_path / "a")
    (tmp_path / "a").write_bytes(b"<a>" * 100 + b"</a>" * 100)
    with pytest.raises(DatasetError, match="nested more than 20 deep"):
        read_voc(tmp_path / "a")


def test_files_have_a_size_that_is_read(tmp_path: Path) -> None:
    """A file with holes claims any size and takes no room."""
    for kind in MOST_BYTES:
        with (tmp_path / kind).open("wb") as file:
            file.truncate(MOST_BYTES[kind] + 1)
        with pytest.raises(DatasetError, match=r"has more than .* bytes, the most that are read of a file like it"):
            read_bytes(tmp_path / kind, kind)
    root = BUILDERS["cub"](tmp_path)
    with (root / "README").open("wb") as file:
        file.truncate(1 << 40)
    dataset = datasets.open_dataset("cub", root=root)
    with pytest.raises(DatasetError, match="README: it has more than"):
        dataset.write_annotations(tmp_path / "out", placements(dataset))


@pytest.mark.skipif(os.name != "posix", reason="needs named pipes")
@pytest.mark.parametrize("name", sorted(BUILDERS.keys() - {"cars", "flowers"}))
def test_a_pipe_in_place_of_an_annotation_file(name: str, tmp_path: Path) -> None:
    root = dogs(tmp_path, lists=False) if name == "dogs" else BUILDERS[name](tmp_path)
    for path in annotation_files(root):
        path.rename(path.with_name("kept"))
        os.mkfifo(path)
        opened(name, root, tmp_path / "out")
        path.unlink()
        path.with_name("kept").rename(path)


def png(width: int, height: int, more: bytes = b"") -> bytes:
    """A PNG that declares a size, with a content for a few rows."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    data = zlib.compress(bytes(1 << 20))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_trimaps_are_pngs_of_a_size_that_is_decoded(tmp_path: Path) -> None:
    root = pets(tmp_path)
    path = next((root / "annotations/trimaps").glob("*.png"))
    path.write_bytes(WHOLE["eps"])
    with pytest.raises(DatasetError, match="not a PNG, or a damaged one: it is no image of the format PNG"):
        datasets.open_dataset("pets", root=root)
    Image.new("L", (48, 36)).save(path, "BMP")
    with pytest.raises(DatasetError, match="no image of the format PNG"):
        datasets.open_dataset("pets", root=root)
    for size in ((60_000, 60_000), (MAX_PIXELS + 1, 1)):
        path.write_bytes(png(*size))
        with pytest.raises(DatasetError, match="at most 178,956,970 are decoded"):
            datasets.open_dataset("pets", root=root)


@pytest.mark.parametrize("kind", ["EPS", "PDF", "WMF", "FPX", "PSD", "", "JPEG,EPS"])
def test_no_other_format_can_be_asked_for(kind: str) -> None:
    with pytest.raises(ValueError, match="formats must be some of"):
        open_image(io.BytesIO(b"%!PS"), [name for name in kind.split(",") if name])


def test_images_are_opened_below_the_limit_only() -> None:
    with pytest.raises(TooManyPixelsError, match="declares"):
        open_image(io.BytesIO(png(20_000, 10_000)), ("PNG",))
    assert open_image(io.BytesIO(png(200, 100)), ("PNG", "JPEG")).size == (200, 100)


@pytest.mark.parametrize("kind", ["grey", "levels", "trimap"])
@pytest.mark.parametrize("content", [WHOLE["eps"], png(60_000, 60_000), b"", b"GIF89a" + bytes(20)])
def test_masks_of_other_formats_and_sizes(kind: Any, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.png").write_bytes(content)
    sample = Sample("a.jpg", tmp_path / "a.jpg", mask=MaskSource(kind, tmp_path / "m.png", ""))
    with pytest.raises(MaskUnusableError):
        read_mask(sample, Size(36, 48))


SEGMENTATIONS: tuple[Any, ...] = (
    {"size": [36, 48], "counts": [2**63 - 1, 2**63 - 1, 2, 1728]},
    {"size": [36, 48], "counts": [10**30]},
    {"size": [36, 48], "counts": ["a" * 1000, "b"] * 1000},
    {"size": [36, 48], "counts": [True, 1727]},
    {"size": [36, 48], "counts": "\u20ac"},
    {"size": [36, 48], "counts": "~" * 1000},
    {"size": [1e400, 48], "counts": "0"},
    {"size": "ab", "counts": "0"},
    {"size": [36], "counts": []},
    {"counts": {}},
    [[1e308] * 6],
    [[float("nan")] * 6],
    [["a"] * 6],
    [[1, [2, 3]] * 4],
    [{}],
    "abc",
    7,
    None,
)


@pytest.mark.parametrize("value", SEGMENTATIONS, ids=range(len(SEGMENTATIONS)))
def test_segmentations(value: Any, tmp_path: Path) -> None:
    mask = coco_source(tmp_path / "x.json", [{"id": 1, "segmentation": value}])
    with pytest.raises(MaskUnusableError):
        read_mask(Sample("a.jpg", tmp_path / "a.jpg", mask=mask), Size(36, 48))


COCO = (
    "[" * 100_000,
    '{"images": 3}',
    '{"images": [{"id": 1, "file_name": 9}], "annotations": [{"id": 1, "image_id": 1}]}',
    '{"images": [{"id": %s, "file_name": "a"}], "annotations": []}' % ("9" * 4000),
    '{"images": [{"id": 1e400, "file_name": "a"}], "annotations": [{"id": 1, "image_id": NaN}]}',
    '{"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"id": 1, "image_id": 1, "segmentation": %s}]}'
    % ("[" * 900 + "]" * 900),
    '{"images": [{"id": 1, "file_name": "\\ud800"}], "annotations": [{"id": 1, "image_id": 1}]}',
    '{"images": [[]], "annotations": [[]]}',
    '{"images": [{"id": true, "file_name": "a.png", "height": []}], "annotations": [{"id": {}, "image_id": 1}]}',
)


@pytest.mark.parametrize("content", COCO, ids=range(len(COCO)))
def test_coco_files(content: str, tmp_path: Path) -> None:
    text(tmp_path / "x.json", content)
    sample = Sample("a.png", tmp_path / "a.png")
    try:
        found = in_coco(tmp_path / "x.json", [sample], {"a.png": None})
    except FgfastError as error:
        assert NET not in str(error)  # noqa: PT017
        assert len(str(error)) < 1000  # noqa: PT017
    else:
        with pytest.raises(MaskUnusableError):
            read_mask(Sample("a.png", tmp_path / "a.png", mask=found.masks["a.png"]), Size(36, 48))


def test_values_in_messages_are_short() -> None:
    assert len(short("x" * 10**6)) <= 80
    assert short(16**9000) == "a int that is too long to print"


def test_values_in_cells_are_bounded() -> None:
    with pytest.raises(ValueError, match="20,000,000 lists and dicts"):
        from_json(b"[" + b"[]," * 20_000_001)
    with pytest.raises(ValueError, match="longer than 1,048,576 letters"):
        decode("[" + "1_0," * 300_000 + "]")
    assert holds_four("1" * 300_000) is False  # took minutes: the square of its length


def packed(*sizes: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for n, size in enumerate(sizes):
            member = tarfile.TarInfo(f"{n}.jpg")
            member.size = size
            archive.addfile(member, io.BytesIO(bytes(size)))
    return buffer.getvalue()


def test_archives_are_looked_at_not_unpacked(tmp_path: Path) -> None:
    """A small archive that unpacks to gigabytes: only its beginning is."""
    content = packed(30_000_000, 10)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(content, 1))
    assert "a tar archive" in str(archives.refusal(tmp_path / "a.tar.gz"))
    extended = bytearray(packed(10))
    extended[156:157] = b"x"  # a header whose text is as long as it says
    extended[124:136] = b"77777777777\0"
    extended[148:156] = b"%06o\0 " % (sum(extended[:148]) + 8 * 32 + sum(extended[156:512]))
    (tmp_path / "b.tar").write_bytes(bytes(extended))
    assert "not a folder" in str(archives.refusal(tmp_path / "b.tar"))


def test_links_that_show_folders_again_and_again(tmp_path: Path) -> None:
    """Ten folders, each with links to all others: a tree of 10! folders."""
    root = folder(tmp_path)
    for n in range(8):
        (root / f"train/f{n}").mkdir()
    for n in range(8):
        for m in set(range(8)) - {n}:
            (root / f"train/f{n}/l{m}").symlink_to(f"../f{m}")
    with pytest.raises(DatasetError, match="links show the same folders again and again"):
        datasets.open_dataset("folder", root=root)


HEAVY = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
from pathlib import Path
from fgfast.datasets import open_dataset
from fgfast.errors import FgfastError
for name, root in zip(sys.argv[1::2], sys.argv[2::2]):
    try:
        open_dataset(name, root=root)
    except FgfastError as error:
        print(Path(root).name, type(error).__name__)
# Not ru_maxrss, which begins with what the process that started this one has.
(largest,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
assert int(largest.split()[1]) < 1 << 20, f"more than 1 GiB: {largest}"
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits address space")
def test_bombs_take_neither_memory_nor_time(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    make_image(tmp_path / "json/a.png")
    (tmp_path / "json/metadata.jsonl").write_bytes(b'{"file_name": "a.png", "x": [' + b"[]," * 21_000_000 + b"[]]}")
    make_image(tmp_path / "parquet/a.png")
    long = pa.DictionaryArray.from_arrays(pa.array(np.zeros(3_000_000, np.int8)), pa.array(["x" * 100_000]))
    pq.write_table(pa.table({"file_name": long}), tmp_path / "parquet/metadata.parquet", compression="zstd")
    assert (tmp_path / "parquet/metadata.parquet").stat().st_size < 1 << 20
    root = dogs(tmp_path / "dogs")
    (root / "train_list.mat").write_bytes(bomb())
    sets = {"json": "folder", "parquet": "folder", "dogs": "dogs"}
    command = [word for name, layout in sets.items() for word in (layout, str(tmp_path / name))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", HEAVY, *command], capture_output=True, text=True, timeout=120, env=environment
    )
    assert (done.returncode, done.stdout.split()) == (0, [w for name in sets for w in (name, "DatasetError")]), done


def test_many_boxes_of_one_image_take_a_time_in_proportion(tmp_path: Path) -> None:
    root = folder(tmp_path)
    (root / "boxes.csv").unlink()
    boxes = [[n % 40, 0, n % 40 + 1 + n, 9] for n in range(10_000)]
    lines = "".join(f'{{"file_name": "train/cat/a.jpg", "bbox_xyxy": {box}}}\n' for box in boxes)
    (root / "metadata.jsonl").write_text(lines)
    begun = time.process_time()
    (sample,) = (sample for sample in datasets.open_dataset("folder", root=root).samples if len(sample.boxes) > 9)
    assert len(sample.boxes) == len(boxes)
    assert time.process_time() - begun < 20  # each box compared with all before it: minutes

    backwards = json.dumps({"file_name": "train/cat/a.jpg", "bbox_xyxy": boxes, "boxes_xyxy": boxes[::-1]})
    (root / "metadata.jsonl").write_text(backwards)
    with pytest.raises(DatasetError, match="hold different boxes"):
        datasets.open_dataset("folder", root=root)
    assert time.process_time() - begun < 40


def test_lines_are_numbered_where_blank_ones_are_between() -> None:
    assert list(lines_of("\n\n a \r\n\r\n\t\nb c\n\n")) == [(3, "a"), (6, "b c")]
    assert list(lines_of("\n" * 5_000_000)) == []


def test_an_outline_that_is_too_long(tmp_path: Path) -> None:
    zigzag = [coordinate for n in range(500) for coordinate in (-9000.0 * (n % 2), 9000.0 * (n % 2 == 0))]
    source = coco_source(tmp_path / "coco.json", [{"id": 1, "segmentation": [zigzag]}], 1000, 1000)
    with pytest.raises(MaskUnusableError, match="outline of a polygon is longer than 4,000,000 pixels"):
        read_mask(Sample("a.jpg", tmp_path / "a.jpg", mask=source), Size(1000, 1000))


@pytest.mark.skipif(os.name != "posix", reason="needs symbolic links")
def test_a_link_to_itself_is_named(tmp_path: Path) -> None:
    root = folder(tmp_path)
    (root / "train/cat/x.jpg").symlink_to("x.jpg")
    with pytest.raises(DatasetError, match=r"train/cat/x\.jpg: cannot be read: Too many levels"):
        datasets.open_dataset("folder", root=root)
