"""The envelope of results, and their comparison."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from fgfast.bench import compare, text
from fgfast.bench.result import Row, busy, envelope, name_of, rows_of, save, text_of
from fgfast.errors import UsageError


def made(*rows: Row, **more: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"title": "Ops", "rounds": 3} | more
    return envelope("ops", rows, **given)


def test_a_row_is_the_median_of_its_rounds() -> None:
    row = Row.of("native", [3.0, 1.0, 2.0], "ms", "lower", "nms")
    assert (row.key, row.value) == ("nms: native", 2.0)
    assert row.spread == pytest.approx(0.5)
    assert row.plain() == {
        "group": "nms",
        "name": "native",
        "value": 2.0,
        "unit": "ms",
        "better": "lower",
        "rounds": [3.0, 1.0, 2.0],
    }


@pytest.mark.parametrize("row", [Row("a", 5.0), Row.of("a", [5.0], "", ""), Row.of("a", [0.0, 0.0], "", "")])
def test_without_rounds_the_noise_is_unknown(row: Row) -> None:
    assert row.spread is None


def test_a_result_survives_json() -> None:
    rows = [Row.of("native", [1 / 3, 2 / 3], "ms", "lower", "nms"), Row("boxes", 3000, "", "", "nms")]
    result = made(*rows, notes=["one"], plots={"events": [1]}, comparison={"rows": [1, 2]})
    again = json.loads(text_of(result))
    assert "plots" not in again
    assert again["comparison"] == {"rows": [1, 2]}
    assert [row.key for row in rows_of(again)] == ["nms: native", "nms: boxes"]
    assert rows_of(again)[0].value == pytest.approx(0.5)
    assert again["versions"]["fgfast"]
    assert again["machine"]["cores"] > 0


def test_a_row_is_a_line_of_the_file() -> None:
    lines = text_of(made(Row("a", 1), Row("b", 2))).splitlines()
    assert sum('"name":' in line for line in lines) == 2


def test_groups_stay_together_and_names_are_unique() -> None:
    result = made(Row("a", 1, group="x"), Row("a", 1, group="y"), Row("b", 1, group="x"), headline=["x: b", "z"])
    assert [row.key for row in rows_of(result)] == ["x: a", "x: b", "y: a"]
    assert result["headline"] == ["x: b"]
    with pytest.raises(AssertionError, match="two rows of one name"):
        made(Row("a", 1), Row("a", 2))


@pytest.mark.parametrize(
    ("result", "name"),
    [
        ({"bench": "io"}, "io"),
        ({"bench": "sam", "model": "vit_l"}, "sam_vit_l"),
        ({"bench": "detic", "model": "s"}, "detic"),
    ],
)
def test_names(result: dict[str, Any], name: str) -> None:
    assert name_of(result) == name


@pytest.mark.parametrize("clone", [True, False])
def test_saving(clone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    if clone:
        (tmp_path / "pyproject.toml").touch()
    file = save(made(Row("a", 1)) | {"commit": "abc1234+"}, tmp_path)
    assert file == (tmp_path / "bench" / "results" if clone else tmp_path / "here") / "ops-abc1234.json"
    assert json.loads(file.read_text())["commit"] == "abc1234+"


def changed(old: Row, new: Row) -> compare.Change:
    (change,) = compare.compare(made(old), made(new)).changes
    return change


@pytest.mark.parametrize(
    ("better", "old", "new", "verdict"),
    [
        ("lower", 10.0, 13.0, "worse"),
        ("lower", 10.0, 7.0, "better"),
        ("higher", 10.0, 13.0, "better"),
        ("higher", 10.0, 7.0, "worse"),
        ("lower", 10.0, 10.9, ""),
        ("", 10.0, 99.0, ""),
        ("lower", 0.0, 1.0, "worse"),
        ("higher", 0.0, 0.0, ""),
    ],
)
def test_one_round_has_a_tenth_of_noise(better: Any, old: float, new: float, verdict: str) -> None:
    change = changed(Row("a", old, "ms", better), Row("a", new, "ms", better))
    assert change.verdict == verdict
    assert change.ratio == new / old if old else math.isnan(change.ratio)


@pytest.mark.parametrize(("spread", "verdict"), [(0.01, "worse"), (0.2, "")])
def test_the_noise_follows_from_rounds(spread: float, verdict: str) -> None:
    rounds = [1 - spread, 1.0, 1 + spread]
    old, new = (Row.of("a", [scale * r for r in rounds], "ms", "lower") for scale in (1.0, 1.15))
    assert changed(old, new).verdict == verdict


def test_rows_of_one_result_only_are_named() -> None:
    found = compare.compare(made(Row("a", 1), Row("b", 1)), made(Row("b", 1), Row("c", 1)))
    assert (found.only_old, found.only_new) == (("a",), ("c",))
    assert "Only in the old one: a" in text.comparison(found)


def test_other_machines_and_packages_are_named() -> None:
    old = made(Row("a", 1))
    new = old | {"machine": old["machine"] | {"processor": "Z80"}, "versions": old["versions"] | {"numpy": "9"}}
    sentences = " ".join(compare.differences(old, new))
    assert "Z80 now" in sentences
    assert "numpy" in sentences
    assert compare.differences(old, old) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no json", "no result of fgfast bench"),
        (b"[1]", "no result of fgfast bench"),
        (b"{}", "no result of fgfast bench"),
        (b'{"bench": "io", "rows": []}', "of the bench 'io'; give one of 'ops'"),
        (b'{"bench": "sam", "model": "vit_b"}', "of the bench 'sam_vit_b'"),
        (b'{"bench": "ops"}', "has no rows"),
        (None, "no result of fgfast bench"),
    ],
)
def test_what_cannot_be_compared_is_refused(content: bytes | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "old.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        compare.read(file, "ops")


RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results"


OF_COMMANDS = ("io", "ops", "sam_", "detic", "pipeline", "scaling", "decoders", "all", "simulate", "floors")


@pytest.mark.parametrize(
    "file", [f for f in sorted(RESULTS.glob("*.json")) if f.name.startswith(OF_COMMANDS)], ids=lambda file: file.stem
)
def test_results_of_the_repository_can_be_compared_with(file: Path) -> None:
    old = compare.read(file, name_of(json.loads(file.read_text())))
    found = compare.compare(old, old)
    assert len(found.changes) == len(old["rows"]) > 0
    assert not found.only_old and not found.only_new and not found.worse
    assert f"commit {old['commit']}" in text.comparison(found)


def test_the_table_shows_every_row_and_the_verdict() -> None:
    rows = [Row.of("native", [0.123, 0.125], "ms", "lower", "nms"), Row("boxes", 3000, "", "", "nms")]
    shown = text.table(made(*rows, verdict=["It is fast."], notes=["A note."]))
    for part in ("It is fast.", "nms\n", "0.124 ms", "0.123 to 0.125", "3,000", "A note.", "3 rounds"):
        assert part in shown, part


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (1234567, "1,234,567"),
        (99.95, "100"),
        (0.12345, "0.123"),
        (0.00012345, "0.00012"),
        (float("nan"), "-"),
    ],
)
def test_figures_have_three_digits(value: float, shown: str) -> None:
    assert text.figure(value) == shown


@pytest.mark.parametrize(("load", "message"), [(0.1, ""), (9.0, "load 9.0 on 2 cores")])
def test_a_busy_machine_gets_a_warning(load: float, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr("fgfast.bench.result.available_cores", lambda: 2)
    assert message in busy()
    assert bool(busy()) == bool(message)
