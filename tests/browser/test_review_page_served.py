"""The page of `fgfast review` in a real Chromium, over the real server and a small run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="the extra review is not installed")
pytest.importorskip("starlette", reason="the extra review is not installed")

from chromium import CHROMIUM, Chromium, Tab
from review_hands import until
from small_review import Browser, bits_of, opening, served, small_run

from fgfast.review.segmenting import Segmenting
from fgfast.review.session import Review

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome here: apt-get install chromium"
    ),
]


READY = "document.documentElement?.dataset.ready === 'yes' && document.querySelector('.card .name')?.textContent"


def ready(chromium: Chromium, address: str) -> Tab:
    tab = chromium.tab(address)
    tab.wait(READY)
    return tab


def history(browser: Browser, number: int, *verdicts: str) -> Any:
    """Wait until these decisions, newest first, are made on an entry; return them."""
    end = time.monotonic() + 10
    while True:
        reply = browser.get(f"/api/items/{number}/history")
        assert reply.status == 200, reply.body
        if [d["verdict"] for d in reply.json] == [*verdicts]:
            return reply.json
        assert time.monotonic() < end, (number, reply.json)
        time.sleep(0.05)


def mask(browser: Browser, number: int) -> Any:
    found = browser.get(f"/api/items/{number}/mask").json
    return bits_of(found["runs"], found["size"])


def middle(tab: Tab, x: float, y: float, size: tuple[int, int]) -> tuple[float, float]:
    """Where a share of an image of this size (height, width), which is shown whole, is on the screen."""
    left, top, wide, high = tab.run(
        "(() => { const r = document.getElementById('canvas').getBoundingClientRect();"
        " return [r.x, r.y, r.width, r.height]; })()"
    )
    height, width = size
    by = min((wide - 24) / width, (high - 24) / height, 64)
    return left + wide / 2 + (x - 0.5) * width * by, top + high / 2 + (y - 0.5) * height * by


def test_two_tabs_see_both_decisions(tmp_path: Path) -> None:
    out, root = small_run(tmp_path)
    with (
        Review(opening(out, root)) as review,
        served(review) as (server, browser),
        Chromium(tmp_path / "chromium") as chromium,
    ):
        one = ready(chromium, server.new_address())
        two = ready(chromium, f"http://{browser.host}/")
        for tab in (one, two):
            tab.send("Page.bringToFront")
            tab.key("Enter")
            tab.wait("document.querySelector('#acts .accept')")
        one.key("r")
        history(browser, 1, "reject")
        two.key("d")
        two.drag((300, 200), (400, 200))
        two.wait("document.querySelector('#acts .save')")
        two.key("Enter")
        two.wait("document.getElementById('conflict').open")
        assert "Rejected" in two.run("document.getElementById('conflict').innerText")
        history(browser, 1, "reject")
        two.click("#conflict .row button:nth-child(2)")
        two.wait("!document.getElementById('conflict').open")
        history(browser, 1, "mask", "reject")
        # The other tab takes it in by itself.
        one.send("Page.bringToFront")
        one.key("k")
        one.wait("document.querySelector('#side').innerText.includes('Mended')", 15)
        assert one.errors() == two.errors() == []


def test_grabcut_from_box_points_and_marks_and_what_refines(tmp_path: Path) -> None:
    out, root = small_run(tmp_path)
    with (
        Review(opening(out, root, model=Segmenting.start)) as review,
        served(review) as (server, browser),
        Chromium(tmp_path / "chromium") as chromium,
    ):
        tab = ready(chromium, server.new_address())
        size = browser.get("/api/items?ids=1").json[0]["size"]

        def at(x: float, y: float) -> tuple[float, float]:
            return middle(tab, x, y, size)

        def saved(number: int, how: str) -> None:
            tab.wait("document.querySelector('#acts .save')", 30)
            tab.wait("!document.getElementById('toast').textContent.includes('rror')")
            tab.key("Enter")
            assert history(browser, number, "mask")[0]["how"] == how
            assert mask(browser, number).any() and not mask(browser, number).all()

        tab.wait("document.querySelectorAll('.card .name').length === 4")
        tab.key("Enter")
        tab.wait("document.querySelector('#acts .accept')")
        tab.wait("!document.querySelector('#tools [data-name=points]').disabled", 20)
        asked = "performance.getEntriesByType('resource').filter((e) => e.name.endsWith('/propose')).length"
        tab.key("b")
        tab.drag(at(0.1, 0.1), at(0.5, 0.5), at(0.9, 0.9))
        tab.wait(f"{asked} > 0", 20)
        saved(1, "box")
        number = 2
        tab.wait("document.querySelector('#side h2').textContent.includes('Auk_0002')")
        before = tab.run(asked)
        tab.key("p")
        tab.drag(at(0.5, 0.5))
        tab.wait(f"{asked} > {before}", 20)
        saved(number, "points")
        tab.wait("document.querySelector('#side h2').textContent.includes('Jay_0001')")
        before = tab.run(asked)
        tab.key("m")
        tab.drag(at(0.45, 0.5), at(0.55, 0.5))
        tab.wait(f"{asked} > {before}", 20)
        saved(3, "strokes")
        tab.wait("document.querySelector('#side h2').textContent.includes('Jay_0002')")
        tab.key("e", *["["] * 12)
        tab.drag(at(0.5, 0.5))
        tab.key("f")
        tab.wait("document.getElementById('said').textContent === 'Holes filled'")
        first = mask(browser, 4)
        tab.key("s")
        tab.wait("document.getElementById('said').textContent === 'Shrunk'")
        tab.key("t")
        tab.wait("document.getElementById('said').textContent === 'Largest part kept'")
        saved(4, "brush, refine")
        # A decision is listed before its mask is written.
        until(lambda: mask(browser, 4).sum() < first.sum())
        assert not (mask(browser, 4) & ~first).any()
        assert tab.errors() == []


def test_accept_undo_mend_reject_and_write_lists(tmp_path: Path) -> None:
    out, root = small_run(tmp_path)
    with (
        Review(opening(out, root)) as review,
        served(review) as (server, browser),
        Chromium(tmp_path / "chromium") as chromium,
    ):
        tab = ready(chromium, server.new_address())
        tab.wait("[...document.querySelectorAll('.card img')].filter((i) => i.complete && i.naturalWidth).length === 4")

        tab.key("a")
        history(browser, 1, "accept")
        tab.wait("!document.getElementById('undo').disabled")
        tab.key("u")
        history(browser, 1, "undo", "accept")
        tab.wait("document.getElementById('toast').textContent.startsWith('Undone')")
        tab.key("Enter")
        tab.wait("document.querySelector('#acts .accept')")
        tab.key("d")
        tab.drag((300, 200), (400, 200))
        tab.wait("document.querySelector('#acts .save')")
        tab.key("Enter")
        history(browser, 2, "mask")
        tab.wait("document.querySelector('#side h2').textContent.includes('Jay_0001')")
        tab.key("r")
        history(browser, 3, "reject")
        tab.wait("!document.getElementById('finish').hidden")
        tab.click("#finish")
        tab.wait("document.getElementById('finish').hidden", 30)
        assert browser.get("/api/state").json["stale"] is False
        assert tab.errors() == []
