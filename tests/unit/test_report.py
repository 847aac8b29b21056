from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from reports import summary_of, write_report

from fgfast.io.decision_rows import Decision
from fgfast.io.report import THUMB_BYTES, THUMB_COUNT, data_uri
from fgfast.io.summary import Spread
from fgfast.ops import rle_encode
from fgfast.records import Outcome, Sample, Size, Status

HOSTILE = "</script><script>alert(1)</script><img src=\"https://evil.example/x\" onerror='x'>&{{title}}.jpg"
FACTS = {
    "fingerprint": {
        "dataset": "<b>cub</b>",
        "detector": "annotations",
        "segmenter": "box",
        "background": "white",
    },
    "result": {"processed": 3, "seconds": 4.0, "ratio": float("nan")},
    "choices": ["one", "two"],
    "finished": "2025-01-02T03:04:05+00:00",
}
REASONS = (("fragments",), ("leaves the box",), ("no box",))


def outcome(key: str, status: Status, reasons: tuple[str, ...] = (), area: int = 300) -> Outcome:
    if status in ("failed", "skipped"):
        detail = f"{key} is not on disk"
        return Outcome(key, status, "decode", reasons or ("missing",), detail, seconds={"decode": 0.001})
    return Outcome(
        key=key,
        status=status,
        stage="write",
        reasons=reasons,
        twin=key,
        size=Size(30, 40),
        twin_size=Size(30, 40),
        box=np.array([4, 3, 24, 18], np.float32),
        box_reason="annotated",
        area=area,
        quality=0.5,
        seconds={"decode": 0.25, "mask": 0.5},
    )


def stream(outcomes: Sequence[Outcome]) -> Callable[[Sequence[Status]], Iterator[Outcome]]:
    return lambda statuses: (o for o in outcomes if o.status in statuses)


def samples_of(outcomes: Sequence[Outcome], root: Path) -> dict[str, Sample]:
    return {o.key: Sample(o.key, root / f"{n}.png", f"class {n % 3}", "test") for n, o in enumerate(outcomes)}


def report(tmp_path: Path, outcomes: Sequence[Outcome], **more: Any) -> str:
    path = tmp_path / "out" / "fgfast" / "report.html"
    options: dict[str, Any] = {
        "facts": FACTS,
        "total": len(outcomes),
        "samples": samples_of(outcomes, tmp_path / "in"),
        "twin": tmp_path / "out" / "twin",
        "turn_exif": False,
    }
    write_report(path, outcomes=stream(outcomes), **(options | more))
    return path.read_text(encoding="utf-8")


def content(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="content">(.*?)</script>', page, re.DOTALL)
    assert found
    loaded: dict[str, Any] = json.loads(found[1])
    return loaded


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


MIXED = [
    outcome("a/0.jpg", "done", area=120),
    outcome("a/1.jpg", "flagged", ("fragments",)),
    outcome("b/2.jpg", "failed"),
    outcome("b/3.jpg", "skipped", ("no subject",)),
    outcome("b/4.jpg", "done", area=1200),
]


def test_counts_and_what_is_left_add_up_to_the_total(tmp_path: Path) -> None:
    shown = content(report(tmp_path, MIXED, total=9))
    assert shown["counts"] == {"done": 2, "flagged": 1, "skipped": 1, "failed": 1}
    assert (shown["total"], shown["left"]) == (9, 4)
    assert shown["rate"] == pytest.approx(3 / 4)
    assert shown["reasons"]["flagged"] == [["fragments", 1]]
    assert sum(sum(row[1:]) for row in shown["classes"]) == 5


def test_charts_show_the_ledger(tmp_path: Path) -> None:
    shown = content(report(tmp_path, MIXED))
    assert shown["stages"] == [["decode", pytest.approx(0.752), 0.25], ["mask", 1.5, 0.5]]
    assert shown["shares"]["flagged"][5] == 1  # 300 of 1200 pixels
    assert shown["shares"]["done"][2] == shown["shares"]["done"][-1] == 1
    assert shown["median_share"] == pytest.approx(0.25)


def test_failed_and_skipped_stand_in_the_table_with_their_reason(tmp_path: Path) -> None:
    rows = content(report(tmp_path, MIXED))["unwritten"]
    assert [(row["name"], row["reasons"]) for row in rows] == [
        ("b/2.jpg", ["missing"]),
        ("b/3.jpg", ["no subject"]),
    ]
    assert rows[0]["detail"] == "b/2.jpg is not on disk"


def test_numbers_of_flags_and_warnings_are_shown(tmp_path: Path) -> None:
    flagged = replace(outcome("a.jpg", "flagged", ("no box", "fragments")), numbers={"fragments": 0.25})
    shown = content(report(tmp_path, [flagged], facts={**FACTS, "warnings": ["boxes are guesses"]}))
    assert shown["gallery"][0]["numbers"] == {"fragments": 0.25}
    assert shown["warnings"] == ["boxes are guesses"]
    assert content(report(tmp_path, [flagged]))["warnings"] == []


def test_doubt_and_the_numbers_behind_it_have_histograms(tmp_path: Path) -> None:
    done = replace(outcome("a.jpg", "done"), doubt=0.02, numbers={"fill": 0.52, "weak": float("nan"), "parts": 1.0})
    flagged = replace(outcome("b.jpg", "flagged", ("fragments",)), doubt=1.0, numbers={"fill": 7.0, "weak": -1.0})
    shown = content(report(tmp_path, [done, flagged, outcome("c.jpg", "failed")]))
    assert shown["doubts"] == {"done": [*[0] * 11, 1, *[0] * 8], "flagged": [*[0] * 19, 1]}
    bins = dict(shown["numbers"])
    assert bins["fill"][10] == bins["fill"][19] == 1 and sum(bins["fill"]) == 2
    assert bins.keys() == {"fill"}, "what adds nothing to the doubt is not among the numbers behind it"
    bins |= dict(shown["rules"])
    assert bins["weak"] == [2, *[0] * 19]
    assert "parts" not in bins, "a number of parts is no share: one part would stand at 100 %"
    assert [row["doubt"] for row in shown["gallery"]] == [1.0, 0.02]


def test_the_most_doubtful_come_first_in_the_gallery(tmp_path: Path) -> None:
    doubts = (("a", "done", 0.1), ("b", "flagged", 0.2), ("c", "done", 0.4), ("d", "flagged", 0.9), ("e", "done", None))
    rows = [replace(outcome(f"{n}.jpg", s, ("fragments",) if s == "flagged" else ()), doubt=d) for n, s, d in doubts]
    shown = content(report(tmp_path, rows))
    assert "".join(row["name"][0] for row in shown["gallery"]) == "dbcae"


def test_decisions_are_counted_by_verdict_and_cause(tmp_path: Path) -> None:
    decided = {f"{n}.jpg": decision(f"{n}.jpg", "mask", "wrong subject") for n in range(2)}
    decided["9.jpg"] = decision("9.jpg", "accept", "")
    shown = content(report(tmp_path, MIXED, decided=decided))
    assert shown["decided"] == [["mask", "wrong subject", 2], ["accept", "", 1]]
    assert content(report(tmp_path, MIXED))["decided"] == []


def decision(key: str, verdict: str, cause: str) -> Decision:
    after = rle_encode(np.ones((2, 3), np.bool_)) if verdict == "mask" else None
    return Decision(
        key=key,
        verdict=verdict,
        how=verdict,
        who="me",
        when="2026-12-01T00:00:00+00:00",
        seen=0,
        cause=cause,
        note="",
        doubt=None,
        source=bytes(32),
        size=Size(2, 3),
        box=np.array([0, 0, 3, 2], np.float32) if verdict == "mask" else None,
        after=after,
    )


def test_skipped_ones_do_not_crowd_out_failed_ones(tmp_path: Path) -> None:
    many = [outcome(f"s{n}", "skipped") for n in range(1000)] + [outcome("late", "failed")]
    assert content(report(tmp_path, many))["unwritten"][0]["name"] == "late"


def test_a_box_is_in_percent_and_a_link_is_relative(tmp_path: Path) -> None:
    key = "a b/ä #1?.jpg"
    card = content(report(tmp_path, [outcome(key, "done")]))["gallery"][0]
    assert card["box"] == [10, 10, 50, 50]
    assert card["link"] == "../twin/a%20b/%C3%A4%20%231%3F.jpg"


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    bytes_name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    hostile = [
        outcome(HOSTILE, "done"),
        outcome(HOSTILE + "2", "failed"),
        outcome(bytes_name, "flagged", (HOSTILE,)),
    ]
    samples = {o.key: Sample(o.key, tmp_path / "x", HOSTILE, bytes_name) for o in hostile}
    page = report(tmp_path, [*hostile, outcome("\ud800", "done")], samples=samples)
    shown = content(page)
    assert [card["name"] for card in shown["gallery"]] == [r"caf\udce9.jpg", HOSTILE, r"\ud800"]
    assert shown["gallery"][0]["link"].endswith("/caf%E9.jpg")
    tags = [tag for tag, _ in Tags(page).tags]
    assert tags.count("script") == 2
    assert "img" not in tags
    assert "<title>&lt;b&gt;cub&lt;/b&gt; · fgfast report</title>" in page
    assert shown["facts"][1]["rows"][-1] == ["ratio", "nan"]


def test_the_page_loads_nothing_from_outside(tmp_path: Path) -> None:
    page = report(tmp_path, MIXED)
    assert "http://" not in page
    assert "https://" not in page
    assert "url(" not in page
    tags = Tags(page).tags
    for tag, attributes in tags:
        assert tag not in ("iframe", "object", "embed", "base")
        for name in ("src", "href", "srcset", "action"):
            assert (attributes.get(name) or "data:").startswith("data:")
    (policy,) = [a["content"] for _, a in tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-")


def test_thumbnails_are_made_and_missing_ones_are_not_missed(tmp_path: Path) -> None:
    outcomes = [outcome(f"{n}.png", "done") for n in range(4)]
    for folder in (tmp_path / "in", tmp_path / "out" / "twin"):
        folder.mkdir(parents=True)
    for n in (0, 1):
        Image.new("RGB", (640, 480), (200, 30, 30)).save(tmp_path / "in" / f"{n}.png")
        Image.new("RGBA", (640, 480), (200, 30, 30, 0)).save(tmp_path / "out" / "twin" / f"{n}.png")
    (tmp_path / "out" / "twin" / "1.png").write_bytes(b"\x89PNG broken")
    (tmp_path / "in" / "2.png").write_bytes(b"")
    cards = content(report(tmp_path, outcomes))["gallery"]
    assert [(bool(c["before"]), bool(c["after"])) for c in cards] == [(1, 1), (1, 0), (0, 0), (0, 0)]
    assert cards[0]["before"].startswith("data:image/webp;base64,")


def test_even_noise_stays_within_the_budget() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8))
    assert len(data_uri(noise, THUMB_COUNT)) * 2 * THUMB_COUNT < THUMB_BYTES * 1.4


def mixed_run(count: int) -> list[Outcome]:
    def one(n: int) -> Outcome:
        key = f"{n % 50}/{n:05}.jpg"
        if n % 97 == 0:
            return outcome(key, "failed")
        return outcome(key, "flagged", REASONS[0 if n % 7 else n % 3]) if n % 5 == 0 else outcome(key, "done")

    return [one(n) for n in range(count)]


def test_the_gallery_is_the_same_every_time_and_holds_flagged_ones_of_every_reason() -> None:
    run = mixed_run(5000)
    first, again = ([o.key for o in summary_of(iter(run), {}, 60).chosen()] for _ in range(2))
    assert first == again
    assert len(set(first)) == len(first) == 60
    chosen = summary_of(iter(run), {}, 60).chosen()
    assert [o.status for o in chosen] == ["flagged"] * 40 + ["done"] * 20
    for reasons in REASONS:
        assert sum(o.reasons == reasons for o in chosen) >= 13
    done = [int(o.key[-9:-4]) for o in chosen if o.status == "done"]
    assert done == sorted(done)
    assert done[0] < 400
    assert done[-1] > 4000


@pytest.mark.parametrize(("flagged", "done", "shown"), [(0, 9, 9), (9, 0, 9), (50, 3, 30), (3, 50, 30), (0, 0, 0)])
def test_the_gallery_is_filled_with_what_there_is(flagged: int, done: int, shown: int) -> None:
    run = [outcome(f"f{n}", "flagged", REASONS[n % 3]) for n in range(flagged)]
    run += [outcome(f"d{n}", "done") for n in range(done)]
    assert len(summary_of(run, {}, 30).chosen()) == shown


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 1000, 12345])
def test_spread_is_even(count: int) -> None:
    spread: Spread[int] = Spread(5)
    for n in range(count):
        spread.add(n)
    assert len(spread.kept) <= 10
    assert len(spread.kept) >= min(count, 5)
    steps = {b - a for a, b in zip(spread.kept, spread.kept[1:], strict=False)}
    assert len(steps) <= 1
    assert len(spread.take(5)) == min(count, 5)


def test_twenty_thousand_rows_are_streamed_into_a_small_page(tmp_path: Path) -> None:
    read = [0]

    def rows(statuses: Sequence[Status]) -> Iterator[Outcome]:
        for o in mixed_run(20_000):
            read[0] += 1
            yield o

    samples = {f"{n % 50}/{n:05}.jpg": Sample(f"{n}", tmp_path / f"{n}", f"class {n}") for n in range(20_000)}
    start = time.perf_counter()
    path = tmp_path / "report.html"
    write_report(path, facts={}, total=20_000, outcomes=rows, samples=samples, twin=tmp_path / "twin", turn_exif=False)
    assert time.perf_counter() - start < 20
    assert read[0] == 20_000
    assert path.stat().st_size < 500_000
    shown = content(path.read_text(encoding="utf-8"))
    assert len(shown["gallery"]) == 240
    assert (len(shown["classes"]), shown["class_count"]) == (1000, 20_000)
    assert all(row[1] == 0 for row in shown["classes"])  # flagged and failed ones first


def test_an_empty_run_has_a_page(tmp_path: Path) -> None:
    shown = content(report(tmp_path, [], total=0, facts={}))
    assert shown["gallery"] == []
    assert shown["median_share"] is None
