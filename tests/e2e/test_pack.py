"""Packs: one file of masks makes the same twin without a model; whatever does not match is listed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from layouts import make_image
from mending import KEY, OTHER, THIRD, change, disc, made, outcomes, result, rows
from mirror import serving

import fgfast
from fgfast.cli import main
from fgfast.config import Settings
from fgfast.errors import DownloadError, UsageError
from fgfast.io import parquet_pages
from fgfast.io.ledger import Ledger
from fgfast.io.pack import Pack
from fgfast.pipeline import pack_source
from fgfast.pipeline.exchange import export
from fgfast.pipeline.mending import Mender
from fgfast.transfer import Remote

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def again(tmp_path: Path, pack: str | Path, name: str = "again", **more: Any) -> fgfast.Report:
    """Make the twin from a pack."""
    settings = Settings(masks_from=pack, devices="cpu", **more)
    root = next((tmp_path / "data/cub").iterdir())
    return fgfast.convert("cub", tmp_path / name, root=root, settings=settings, in_process=True)


def facts(out: Path) -> list[tuple[Any, ...]]:
    """What the ledger says about each image, but how long it took, and its stage."""
    with Ledger(out / "fgfast/ledger.sqlite", write=False) as ledger:
        return [
            (o.key, o.status, o.reasons, o.detail, o.numbers, o.doubt, o.rle, o.area, o.box_score, o.box_name, o.others)
            + (o.quality, o.stability, o.offset, o.twin_size, o.source and o.source.sha256, o.annotation)
            + (() if o.box is None else (o.box_reason, *o.box.tolist()))
            for o in ledger.outcomes()
        ]


def packed(out: Path, name: str = "a.parquet") -> Path:
    file = out.parent / name
    export(out, "pack", file)
    return file


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"crop": "box", "pad": 0.1, "format": "png"},
        {"crop": "square", "background": "transparent", "format": "png", "masks": "rle"},
    ],
)
def test_the_same_twin_byte_for_byte(tmp_path: Path, how: dict[str, Any]) -> None:
    out = made(tmp_path, segmenter="grabcut", flag_rate="50%", flag_least=0, **how)
    report = again(tmp_path, packed(out), flag_rate="1%", **how)
    assert result(report.out) == result(out)
    assert facts(report.out) == facts(out) and report.changes.unpacked == ()
    assert report.counts["flagged"] == 2
    choices = json.loads((report.out / "fgfast/run.json").read_text())["choices"]
    assert not any("as requested" in choice for choice in choices), "nobody requested a segmenter"


def test_what_a_person_decided_is_in_it(tmp_path: Path) -> None:
    out = made(tmp_path, crop="box", format="png")
    drawn, wrong = change(KEY, "mask", bits=disc(), how="brush"), change(OTHER, "reject", cause="wrong subject")
    with Mender.open(out) as mender:
        outcomes(mender.decide([drawn, wrong, change(THIRD)], "me"))
        mender.finish()
    report = again(tmp_path, packed(out), crop="box", format="png")
    assert result(report.out) == result(out) and rows(report.out) == rows(out)
    table = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert [row["decision_verdict"] for row in table] == ["mask", "reject", "accept", ""]
    assert [table[1][f"decision_{name}"] for name in ("who", "cause", "how")] == ["me", "wrong subject", "reject"]


def test_same_run_same_bytes_without_paths_and_pixels(tmp_path: Path) -> None:
    one, other = made(tmp_path), made(tmp_path, name="other")
    file = packed(one)
    assert file.read_bytes() == packed(other, "b.parquet").read_bytes() == packed(one, "c.parquet").read_bytes()
    assert str(tmp_path).encode() not in file.read_bytes()
    about = json.loads(pq.read_metadata(file).metadata[b"fgfast pack"])
    assert about["dataset"] == "cub" and about["fingerprint"]["segmenter"] == "box" and "pixel" in about["licence"]
    assert {"models", "versions", "fgfast"} <= about.keys()


def changed(tmp_path: Path) -> tuple[Path, Path]:
    """A pack; afterwards one image is another one, one is new, and one is damaged."""
    out = made(tmp_path, format="png")
    file = tmp_path / "a.parquet"
    export(out, "pack", file)
    table = pq.read_table(file)
    rows_left = table.filter([row["key"] != OTHER for row in table.to_pylist()])
    write(file, rows_left)
    root = next((tmp_path / "data/cub").iterdir())
    make_image(root / KEY, seed=99)
    (root / THIRD).write_bytes(b"no image")
    return out, file


def test_what_does_not_match_fails_with_a_reason_and_is_listed(tmp_path: Path) -> None:
    _, file = changed(tmp_path)
    report = again(tmp_path, file, format="png")
    assert report.changes.unpacked == (KEY, OTHER)
    assert report.failures == {"not the image of the pack": 1, "not in the pack": 1, "not an image": 1}
    assert json.loads((report.out / "fgfast/run.json").read_text())["result"]["not_from_the_pack"] == [KEY, OTHER]
    assert report.counts["done"] + report.counts["flagged"] == 1
    assert not (report.twin / KEY).with_suffix(".png").exists()


def test_what_does_not_match_goes_to_the_segmenter(tmp_path: Path) -> None:
    _, file = changed(tmp_path)
    report = again(tmp_path, file, format="png", otherwise="box", detector="annotations")
    assert report.changes.unpacked == (KEY, OTHER) and report.failures == {"not an image": 1}
    plain = made(tmp_path, format="png", name="plain")
    assert {name: data for name, data in result(report.out).items() if name.startswith((".masks", "CUB"))} == {
        name: data for name, data in result(plain).items() if name.startswith((".masks", "CUB"))
    }


def test_a_resume_needs_the_same_pack(tmp_path: Path) -> None:
    out = made(tmp_path)
    file = packed(out)
    report = again(tmp_path, file)
    lost = report.twin / KEY
    before = lost.read_bytes()
    lost.unlink()
    moved = file.rename(tmp_path / "moved.parquet")  # its place does not count
    assert again(tmp_path, moved).resumed == 3 and lost.read_bytes() == before
    write(file, pq.read_table(moved).slice(0, 3))
    with pytest.raises(UsageError, match="masks_from_sha256"):
        again(tmp_path, file)


def test_a_stopped_run_goes_on(tmp_path: Path) -> None:
    out = made(tmp_path)
    file, stop = packed(out), threading.Event()
    stop.set()
    root = next((tmp_path / "data/cub").iterdir())
    settings = Settings(masks_from=file, devices="cpu")
    report = fgfast.convert("cub", tmp_path / "again", root=root, settings=settings, in_process=True, stop=stop)
    assert report.stopped and sum(report.counts.values()) == 0 and report.changes.unpacked == ()
    assert result(again(tmp_path, file).out) == result(out)


def test_the_command(tmp_path: Path) -> None:
    out, file = made(tmp_path), tmp_path / "birds.parquet"
    run = CliRunner()
    assert run.invoke(main, ["masks", "export", str(out), "--to", "pack", "--out", str(file)]).exit_code == 0
    root = next((tmp_path / "data/cub").iterdir())
    given = ["convert", "cub", "--root", str(root), "--out", str(tmp_path / "new"), "--masks-from", str(file), "--json"]
    answer = run.invoke(main, [*given, "--in-process"])
    assert answer.exit_code == 0, answer.output
    assert result(tmp_path / "new") == result(out)
    like = ["convert", "--like", str(tmp_path / "new"), "--out", str(tmp_path / "like"), "--json", "--in-process"]
    assert run.invoke(main, like).exit_code == 0
    assert result(tmp_path / "like") == result(out)


@pytest.mark.parametrize(
    "more",
    [
        {"segmenter": "grabcut"},
        {"mask_dir": "masks"},
        {"otherwise": "annotations"},
        {"masks_from": None, "otherwise": "box"},
    ],
)
def test_settings_that_contradict_each_other(more: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Settings(**{"masks_from": "a.parquet", **more})


def test_a_pack_of_the_web_is_kept_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGFAST_CACHE", str(tmp_path / "cache"))
    out = made(tmp_path)
    with serving(monkeypatch) as server:
        data = packed(out).read_bytes()
        server.files["packs/a.parquet"] = data
        digest = hashlib.sha256(data).hexdigest()
        url = f"http://127.0.0.1:{server.server_port}/packs/a.parquet"
        for refused in (url, "ftp://a/b.parquet", "hf://models/a/b/c.parquet", "hf://datasets/a/b/../c"):
            with pytest.raises(UsageError, match="masks-from"):
                again(tmp_path, refused)
        with pytest.raises(DownloadError, match="expected"):
            again(tmp_path, f"{url}#sha256={'0' * 64}")
        report = again(tmp_path, f"{url}#sha256={digest}")
        assert result(report.out) == result(out)
        server.files.clear()
        assert again(tmp_path, f"{url}#sha256={digest}").resumed == 4
        facts = json.loads((report.out / "fgfast/run.json").read_text())
        assert facts["source"]["masks_from"].startswith(url) and digest in "".join(facts["choices"])


def test_an_address_of_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []

    def fetch(remote: Remote, into: Path) -> Path:
        asked.append(remote.address())
        raise DownloadError("no network")

    monkeypatch.setattr(pack_source, "fetch", fetch)
    made(tmp_path)
    with pytest.raises(DownloadError):
        again(tmp_path, "hf://datasets/we/birds-fg/v1/cub.parquet")
    assert asked == ["https://huggingface.co/datasets/we/birds-fg/resolve/main/v1/cub.parquet"]


def write(file: Path, table: Any, **how: Any) -> None:
    """Write a table as a pack has it."""
    how = {"use_dictionary": False, "write_statistics": False, "compression": "zstd", **how}
    pq.write_table(table, file, **how)


def put(name: str, value: Any) -> Callable[[Any], Any]:
    """Replace a value of the first row."""

    def change_table(table: Any) -> Any:
        rows_now = table.to_pylist()
        rows_now[0][name] = value
        return pa.Table.from_pylist(rows_now, schema=table.schema)

    return change_table


HOSTILE: dict[str, Callable[[Any], Any]] = {
    "a path out": put("key", "../../etc/passwd"),
    "a huge image": put("height", 1 << 30),
    "no size": put("width", 0),
    "runs that cover more": put("mask", b"0" * 40),
    "no mask": put("mask", b""),
    "not run lengths": put("mask", b"\xff\x00"),
    "a status": put("status", "failed"),
    "a box of nothing": put("box", [5.0, 5.0, 5.0, 9.0]),
    "an infinite box": put("box", [0.0, 0.0, float("inf"), 9.0]),
    "no number": put("doubt", float("nan")),
    "numbers that are none": put("numbers", '{"a": NaN}'),
    "a number of many digits": put("numbers", '{"a": ' + "9" * 4000 + "}"),
    "boxes that are none": put("others", "[[1, 2, 3]]"),
    "no box at all": put("others", "7"),
    "deep numbers": put("numbers", "[" * 60_000),
    "a long text": put("box_name", "a" * 5000),
    "many reasons": put("reasons", ["a"] * 100),
    "a list of millions": put("reasons", ["a"] * 2_000_000),
    "twice": lambda table: pa.concat_tables([table, table]),
    "other columns": lambda table: table.drop_columns(["doubt"]),
    "other types": lambda table: table.set_column(1, "height", table["height"].cast("int64")),
    "not by fgfast": lambda table: table.replace_schema_metadata(None),
    "another version": lambda table: table.replace_schema_metadata({b"fgfast pack": b'{"version": 2}'}),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed(made(tmp_path_factory.mktemp("good")))


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_pack_is_refused(what: str, good: Path, tmp_path: Path) -> None:
    write(tmp_path / "bad.parquet", HOSTILE[what](pq.read_table(good)))
    before = pa.total_allocated_bytes()
    with pytest.raises(UsageError, match="cannot be used"):
        Pack.read(tmp_path / "bad.parquet")
    assert pa.total_allocated_bytes() - before < 1 << 26


def test_a_bomb_is_refused_before_it_is_read(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = tmp_path / "bad.parquet"
    write(bad, put("detail", "a" * (8 << 20))(pq.read_table(good)))
    assert bad.stat().st_size < 1 << 16
    monkeypatch.setattr(parquet_pages, "MOST_GROUP", 1 << 20)
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", None)
    with pytest.raises(UsageError, match="takes more than"):
        Pack.read(bad)


@pytest.mark.parametrize("how", [{"use_dictionary": True}, {"write_statistics": True}, {"data_page_version": "2.0"}])
def test_what_another_program_wrote_is_refused(how: dict[str, Any], good: Path, tmp_path: Path) -> None:
    write(tmp_path / "bad.parquet", pq.read_table(good), **how)
    with pytest.raises(UsageError, match=r"another program|no pack has"):
        Pack.read(tmp_path / "bad.parquet")


def test_no_damage_is_more_than_an_error(good: Path, tmp_path: Path) -> None:
    data, bad, random = good.read_bytes(), tmp_path / "bad.parquet", np.random.default_rng(0)
    cut = [data[:n] for n in (0, 3, 11, 12, len(data) // 2, len(data) - 1)]
    for _ in range(150):
        bytes_now = bytearray(data)
        footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
        start = footer if random.random() < 0.5 else 0  # of some damage there, pyarrow's metadata ends the process
        bytes_now[int(random.integers(start, len(data)))] = int(random.integers(256))
        cut.append(bytes(bytes_now))
    for content in cut:
        bad.write_bytes(content)
        with contextlib.suppress(UsageError):
            Pack.read(bad)
    for content in cut[:6]:
        bad.write_bytes(content)
        with pytest.raises(UsageError, match="cannot be used"):
            Pack.read(bad)


def test_decisions_beside_a_pack_are_decisions_of_its_twin(tmp_path: Path) -> None:
    out = made(tmp_path, segmenter="grabcut")
    with Mender.open(out) as mender:
        mender.decide([change(), change(OTHER, "reject"), change(THIRD, "mask", bits=disc(30, 20))], "ann")
        mender.finish()
    report = again(tmp_path, packed(out), decisions=out / "fgfast/decisions.sqlite")
    assert set(report.changes.decided) == {KEY, OTHER, THIRD} and result(report.out) == result(out)
    with Mender.open(report.out) as mender:
        assert [decision.who for decision in mender.decisions.all()] == ["ann"] * 3
        mender.undo([1, 2, 3], "bob")
        mender.finish()
    assert result(report.out) == result(made(tmp_path, name="plain", segmenter="grabcut"))
