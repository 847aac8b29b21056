"""The files about a whole twin are streamed: the bytes are the same as at once, and memory stays flat."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reports import write_report

from fgfast import ops
from fgfast.errors import OutputFailedError
from fgfast.io import coco, summary
from fgfast.io.ledger import Ledger
from fgfast.io.report import write_page
from fgfast.io.summary import Summary
from fgfast.ops.geometry import mask_box
from fgfast.records import STATUSES, Outcome, Sample, Size, Status
from fgfast.writing import Target

CLASSES = [f"class {n}" for n in range(7)]
WRITTEN: tuple[Status, Status] = ("done", "flagged")
WIDTH, HEIGHT = 60, 45


def fill(file: AbstractContextManager[coco.Add], outcomes: Iterable[Outcome]) -> None:
    with file as add:
        for o in outcomes:
            add(o)


@cache
def mask(number: int) -> bytes:
    """A ragged blob, an empty mask, a full one."""
    if number in (0, 1):
        return ops.rle_encode(np.full((HEIGHT, WIDTH), bool(number)))
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    edge = np.random.default_rng(number).uniform(0.6, 1.2, (HEIGHT, WIDTH))
    return ops.rle_encode(((y - 22) / 18) ** 2 + ((x - 30) / (8 + number)) ** 2 < edge)


def outcome(n: int, crop: bool = False) -> Outcome:
    """One outcome of a run in which some are flagged, some failed, some oddly named, and with `crop` some cropped."""
    name = f'{n % 9}/{n:06}"é\u2028.jpg' if n % 50 == 3 else f"{n % 9}/{n:06}.jpg"
    seconds = {"decode": n / 1000, "write": 0.001}
    if n % 31 == 5:
        return Outcome(name, "failed", "decode", ("damaged",), "it is damaged", seconds=seconds, id=n + 1)
    whole = Outcome(
        key=name,
        status="flagged" if n % 7 == 2 else "done",
        stage="write",
        reasons=("fragments", "no box")[: 1 + n % 2] if n % 7 == 2 else (),
        twin=name,
        size=Size(HEIGHT, WIDTH),
        twin_size=Size(HEIGHT, WIDTH),
        box=np.array([1, 2, 30.5, 40], np.float32),
        box_reason="annotated box",
        area=n % 100,
        rle=mask(n % 12),
        quality=[None, 0.1 + n / 7e4, 1.0, 1e-7, float("nan")][n % 5],
        seconds=seconds,
        id=n + 1,
    )
    if crop and n % 3 == 0:
        return replace(whole, twin_size=Size(50, 30), offset=(20, -3))
    return whole


def run(count: int, crop: bool = False) -> Iterator[Outcome]:
    return (outcome(n, crop) for n in range(count))


def record(ledger: Ledger, outcomes: Iterator[Outcome]) -> None:
    each = list(outcomes)
    ledger.register((n, Sample(o.key, Path(o.key))) for n, o in enumerate(each))
    ledger.record(each)


def written(outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    return (o for o in outcomes if o.twin is not None)


def labels(count: int) -> dict[str, str]:
    """Labels of all samples; some have none, which adds the class "unlabelled"."""
    return {outcome(n).key: CLASSES[n % 7] if n % 10 else "" for n in range(count)}


def samples(count: int, root: Path) -> dict[str, Sample]:
    return {key: Sample(key, root / "absent", label) for key, label in labels(count).items()}


def instances_at_once(outcomes: list[Outcome], names: dict[str, str]) -> bytes:
    """The expected file, from pixels and by one json.dumps."""
    numbers = {name: n for n, name in enumerate(CLASSES, 1)}
    images, annotations = [], []
    for o in outcomes:
        assert o.twin_size is not None
        bits = coco.mask_in_twin(o)
        box = mask_box(bits)
        x0, y0, x1, y1 = (0.0,) * 4 if box is None else box.tolist()
        label = names[o.key] or "unlabelled"
        height, width = o.twin_size
        images.append({"id": o.id, "file_name": o.twin, "width": width, "height": height})
        annotation: dict[str, Any] = {
            "id": o.id,
            "image_id": o.id,
            "category_id": numbers.setdefault(label, len(numbers) + 1),
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": int(bits.sum()),
            "segmentation": {"size": [height, width], "counts": ops.rle_encode(bits).decode("ascii")},
            "iscrowd": 0,
        }
        annotation |= {} if o.quality is None else {"score": o.quality}
        annotations.append(annotation | ({"flags": o.reasons} if o.reasons else {}))
    whole = {
        "info": {"description": "Foreground masks of cub, made with fgfast"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": n, "name": name, "supercategory": ""} for name, n in numbers.items()],
    }
    return json.dumps(whole, separators=(",", ":")).encode("ascii")


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("count", [0, 1, 255, 264, 1000])
def test_instances_are_what_json_writes_of_the_whole(count: int, crop: bool, tmp_path: Path) -> None:
    names = labels(count)
    fill(coco.instances(Target.file(tmp_path / "a.json"), names, CLASSES, "cub"), written(run(count, crop)))
    assert (tmp_path / "a.json").read_bytes() == instances_at_once(list(written(run(count, crop))), names)
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("count", [0, 1, 31, 32, 100])
def test_parquet_is_what_arrow_writes_of_rows(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(coco, "_PARQUET_ROWS", 32)
    fill(coco.parquet(Target.file(tmp_path / "masks.parquet")), written(run(count)))
    table = pq.read_table(tmp_path / "masks.parquet")
    rows = [
        {
            "key": o.key,
            "twin": o.twin,
            "height": HEIGHT,
            "width": WIDTH,
            "counts": o.rle,
            "status": o.status,
            "reasons": list(o.reasons),
        }
        for o in written(run(count))
    ]
    assert table.to_pylist() == rows
    kinds = [pa.string(), pa.string(), pa.int32(), pa.int32(), pa.binary(), pa.string(), pa.list_(pa.string())]
    schema = pa.schema(list(zip(table.column_names, kinds, strict=True)))
    with pq.ParquetWriter(tmp_path / "rows.parquet", schema, compression="zstd") as writer:
        for start in range(0, len(rows) - len(rows) % 32 + 1, 32):
            writer.write_table(pa.Table.from_pylist(rows[start : start + 32], schema))
    assert (tmp_path / "masks.parquet").read_bytes() == (tmp_path / "rows.parquet").read_bytes()


def test_one_reading_of_the_ledger_serves_all(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    count = 600
    known = samples(count, tmp_path)
    more: dict[str, Any] = {
        "facts": {},
        "total": count,
        "samples": known,
        "twin": tmp_path / "twin",
        "turn_exif": False,
    }
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        record(ledger, run(count, crop=True))
        names = labels(count)
        fill(coco.instances(Target.file(tmp_path / "each.json"), names, CLASSES, "cub"), ledger.outcomes(WRITTEN))
        fill(coco.parquet(Target.file(tmp_path / "each.parquet")), ledger.outcomes(WRITTEN))
        write_report(tmp_path / "each.html", outcomes=ledger.outcomes, **more)
        seen = Summary(known)
        with (
            coco.instances(Target.file(tmp_path / "once.json"), names, CLASSES, "cub") as add_instance,
            coco.parquet(Target.file(tmp_path / "once.parquet")) as add_row,
        ):
            for o in ledger.outcomes():
                seen.add(o)
                if o.twin is not None:
                    add_instance(o)
                    add_row(o)
        write_page(Target.file(tmp_path / "once.html"), seen, **more)
        flags = [r for o in ledger.outcomes(("flagged",)) for r in o.reasons]
        assert seen.counts == {s: n for s, n in ledger.counts().items() if n}
        assert seen.reasons["flagged"] == {r: flags.count(r) for r in set(flags)}
    for kind in ("json", "parquet", "html"):
        assert (tmp_path / f"once.{kind}").read_bytes() == (tmp_path / f"each.{kind}").read_bytes()


def write_all(ledger: Ledger, folder: Path, names: dict[str, str], known: dict[str, Sample]) -> None:
    seen = Summary(known, gallery=12)
    with (
        coco.instances(Target.file(folder / "instances.json"), names, CLASSES, "cub") as add_instance,
        coco.parquet(Target.file(folder / "masks.parquet")) as add_row,
    ):
        for o in ledger.outcomes(STATUSES):
            seen.add(o)
            if o.twin is not None:
                add_instance(o)
                add_row(o)


def test_memory_stays_flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    # With these limits few rows fill every buffer.
    for module, limit, value in (
        (coco, "_AT_ONCE", 64),
        (coco, "_PARQUET_ROWS", 64),
        (coco, "_COPY_BYTES", 1 << 14),
        (summary, "SOME", 64),
        (summary, "FAILED_ROWS", 8),
    ):
        monkeypatch.setattr(module, limit, value)
    peaks = []
    for count in (600, 1200, 4800):
        names, known = labels(count), samples(count, tmp_path)
        with Ledger(tmp_path / f"{count}.sqlite") as ledger:
            record(ledger, run(count))
            gc.collect()  # not at any time, with what other tests left
            tracemalloc.start()
            write_all(ledger, tmp_path, names, known)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    # The first run also allocates modules, schemas and caches.
    assert peaks[2] < peaks[1] * 1.1
    assert (tmp_path / "instances.json").stat().st_size > 2 * peaks[2]


@pytest.mark.parametrize("name", ["instances.json", "masks.parquet"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_file_leaves_the_old_one(error: BaseException, name: str, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / name
    path.write_bytes(b"old")

    def broken() -> Iterator[Outcome]:
        yield from written(run(300))
        raise error

    def write() -> None:
        if path.suffix == ".json":
            fill(coco.instances(Target.file(path), labels(300), CLASSES, "cub"), broken())
        else:
            fill(coco.parquet(Target.file(path)), broken())

    with pytest.raises(OutputFailedError if isinstance(error, OSError) else KeyboardInterrupt) as raised:
        write()
    if isinstance(error, OSError):
        assert f"{name}: No space left" in str(raised.value)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == [name]
