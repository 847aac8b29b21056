"""The page of a result: whole, self-contained, safe; its plots are where their values are."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from fgfast.bench import compare, page, plots
from fgfast.bench.result import Row, envelope
from fgfast.bench.svg import LEFT, RIGHT, Scale

HOSTILE = "<script>alert(1)</script>&\"'"
VOID = {"meta", "link", "br", "img"}

TIMELINE = {
    "title": "The whole run",
    "within": (0.0, 4.0),
    "lanes": [
        {"name": "cpu device", "spans": [("detect", 0.0, 1.0, 2), ("encode", 1.0, 3.0, 2)]},
        {"name": HOSTILE, "spans": [("decode", 0.0, 0.001, 1), (HOSTILE, 3.0, 4.0, 1)]},
    ],
}
COST = {"stage": "detect", "ms": 1.5, "seconds": 3.0, "items": 4, "pieces": 2, "mean_waiting": 1.5, "most_waiting": 3}
ROOFLINE = {
    "precision": "bf16",
    "roofs": [{"device": "cpu", "flops": 2e12, "bandwidth": 1e10}],
    "models": [
        {"name": "detic", "intensity": 2000.0, "flops": 5e11},
        {"name": "sam", "intensity": 2100.0, "flops": 5e11},
    ],
    "products": [{"name": "qkv", "intensity": 300.0, "flops": 2e12}],
}
PLOTS = {
    "bars": [
        {"title": "Rates", "note": "", "unit": "times", "of": "op", "values": [("a", 20.0), ("b", 0.5)], "log": True}
    ],
    "timelines": [TIMELINE],
    "queues": {"seconds": 4.0, "waiting": {"detect": [(0.0, 3), (2.0, 0)]}},
    "stages": [COST],
    "roofline": ROOFLINE,
}


class Reader(HTMLParser):
    """Collects elements; raises where they are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def of(self, tag: str, kind: str = "") -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.seen if name == tag and kind in [*(attrs.get("class") or "").split(), ""]]


def result(**more: Any) -> dict[str, Any]:
    rows = [Row.of(HOSTILE, [1.0, 2.0], "ms", "lower", "nms"), Row("slow", 30, "ms", "lower", "nms"), Row("n", 3)]
    given: dict[str, Any] = {"title": f"Ops {HOSTILE}", "rounds": 2, "notes": [HOSTILE], "plots": PLOTS} | more
    return envelope("ops", rows, headline=["nms: slow"], **given)


def test_the_page_is_whole_and_nothing_in_it_is_taken_for_markup() -> None:
    before = result() | {"commit": HOSTILE}
    text = page.page(result(verdict=["First.", HOSTILE]), compare.compare(before, result()))
    found = Reader(text)
    assert not found.of("script")
    assert text.count("alert(1)") > 5
    assert len(found.of("svg")) == 4
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in found.of("svg"))
    assert "{{" not in text
    # Under each plot the same figures as a table.
    assert len(re.findall(r"</svg></div>(?:<h3>|<div class=\"scroll\"><table>)", text)) == 4


def test_the_page_loads_nothing() -> None:
    text = page.page(result())
    assert "default-src 'none'" in text
    assert "http" not in text.replace('http-equiv="Content-Security-Policy"', "")
    assert not re.search(r"url\(|@import|src=", text.replace("-src", ""))


def test_a_result_without_plots_is_a_page_too() -> None:
    found = Reader(page.page(result(plots={})))
    assert not found.of("svg")
    assert len(found.of("table")) == 3


def test_bars_of_one_unit_are_in_proportion() -> None:
    text = page.page(result(plots={}))
    assert re.findall(r'<i style="width:([\d.]+)%">', text) == ["5.0", "100.0"]


def test_what_got_worse_stands_first() -> None:
    old = result()
    for row in old["rows"]:
        row["value"] /= 2 if row["name"] == "slow" else 1
    text = page.page(result(), compare.compare(old, result()))
    assert "1 row got worse than noise." in text
    changes = text.partition("Compared with")[2]
    assert changes.index("nms: slow") < changes.index("<details>")


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (0.0, 0.031, [0, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03]),
        (7.3, 22.6, [8, 10, 12, 14, 16, 18, 20, 22]),
        (5, 5, [5]),
    ],
)
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert Scale(low, high, 0, 1).ticks() == pytest.approx(ticks)


def test_logarithmic_ticks() -> None:
    assert Scale(1, 1e5, 0, 1, log=True).ticks() == pytest.approx([1, 10, 100, 1e3, 1e4, 1e5])
    assert Scale(20, 500, 0, 1, log=True).ticks() == pytest.approx([20, 50, 100, 200, 500])


def test_scales() -> None:
    assert Scale(0, 4, 100, 200)(1) == 125
    assert Scale(1, 100, 0, 10, log=True)(10) == 5
    assert Scale(3, 3, 100, 200)(3) == 100


def test_a_timeline_has_a_bar_where_the_work_was() -> None:
    found = Reader(plots.timeline(TIMELINE))
    detect, encode, decode, _ = found.of("rect")
    wide = RIGHT - LEFT
    assert float(encode["x"] or 0) == pytest.approx(LEFT + wide / 4, abs=0.02)
    assert float(encode["width"] or 0) == pytest.approx(wide / 2, abs=0.02)
    assert float(decode["width"] or 0) > 0.5  # short, and still to be seen
    assert detect["class"] != encode["class"]
    assert detect["y"] == encode["y"] != decode["y"]


def test_a_queue_reaches_its_deepest_and_ends_with_the_run() -> None:
    drawn = plots.queues(PLOTS["queues"])
    assert ">3<" in drawn
    assert f"H{RIGHT}" in drawn


def test_points_of_a_roofline_lie_below_the_roof_and_labels_apart() -> None:
    found = Reader(plots.roofline(ROOFLINE))
    product, *models = [float(dot["cy"] or 0) for dot in found.of("circle")]
    assert all(y > product for y in models)
    labels = [float(label["y"] or 0) for label in found.of("text", "tag")]
    assert abs(labels[0] - labels[1]) >= 17


def test_bars_on_a_logarithmic_axis_begin_at_one() -> None:
    fast, slow = Reader(plots.bars(PLOTS["bars"][0])).of("rect")
    assert float(slow["x"] or 0) + float(slow["width"] or 0) == pytest.approx(float(fast["x"] or 0), abs=0.02)
