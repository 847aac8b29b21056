"""The page of `fgfast review` at full size: many entries, large images, every width, and a checker of accessibility."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from statistics import median

import pytest
from chromium import CHROMIUM, Chromium, Tab
from review_hands import READY
from review_server import FakeReview, FakeServer

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome here: apt-get install chromium"
    ),
]
# Frames, most nodes, and how long a card stayed blank while and after the wheel turned, at 14,000 px/s.
SCROLL = """
(async () => {
  const box = document.getElementById('scroller'), frames = [];
  let last = performance.now(), most = 0;
  const begun = last;
  while (performance.now() - begun < 3000) {
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    frames.push(now - last);
    box.scrollTop += 14 * (now - last);
    last = now;
    most = Math.max(most, document.querySelectorAll('*').length);
  }
  const shown = () => [...document.querySelectorAll('.card')].filter((card) => {
    const r = card.getBoundingClientRect(), b = box.getBoundingClientRect();
    return r.bottom > b.top && r.top < b.bottom;
  });
  const blank = () => shown().filter((card) => 'wait' in card.querySelector('img').dataset).length;
  const ended = performance.now();
  while (!shown().length || blank()) await new Promise(requestAnimationFrame);
  return { quick: frames.filter((f) => f < 20).length / frames.length, most, blank: performance.now() - ended,
    cards: shown().length, top: box.scrollTop };
})()
"""
# The same where nothing is drawn, to judge the machine by.
IDLE = """
(async () => {
  const frames = [];
  let last = performance.now();
  const begun = last;
  while (last - begun < 1000) {
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    frames.push(now - last);
    last = now;
  }
  return frames.filter((f) => f < 20).length / frames.length;
})()
"""


def ready(chromium: Chromium, server: FakeServer, wide: int = 1280, high: int = 800) -> Tab:
    tab = chromium.tab(server.address, wide, high)
    tab.wait(READY)
    return tab


def test_scrolling_through_twelve_thousand(chromium: Chromium) -> None:
    """Medians of three runs: of quick frames, as a share of those of a page that draws nothing, which is 1 at rest."""
    found = []
    with FakeServer(FakeReview(12_000)) as server:
        for _ in range(3):
            tab = ready(chromium, server)
            found.append({"idle": tab.run(IDLE), **tab.run(SCROLL)})
            assert tab.errors() == []
            tab.send("Page.close")
    print(found)
    assert all(one["top"] > 20_000 and one["cards"] >= 10 and one["most"] < 2000 for one in found)
    assert median(one["quick"] / one["idle"] for one in found) >= 0.95, found
    assert median(one["blank"] for one in found) < 200, found


def test_a_million_entries_reach_their_end(chromium: Chromium) -> None:
    with FakeServer(FakeReview(1_000_000)) as server:
        tab = ready(chromium, server)
        tab.run("document.getElementById('scroller').focus()")
        tab.key("End")
        tab.wait("[...document.querySelectorAll('.card.here .name')].some((n) => n.textContent.includes('1000000'))")
        inside = (
            "(() => { const r = document.querySelector('.card.here').getBoundingClientRect();"
            " const b = document.getElementById('scroller').getBoundingClientRect();"
            " return r.top >= b.top - 1 && r.bottom <= b.bottom + 1; })()"
        )
        assert tab.run(inside)
        tab.key("PageUp")
        tab.wait(inside)
        assert tab.run("document.querySelectorAll('*').length") < 2000
        assert tab.errors() == []


def test_twenty_megapixels_are_mended(chromium: Chromium) -> None:
    review = FakeReview(3, (4000, 5000))
    with FakeServer(review) as server:
        tab = ready(chromium, server)
        tab.key("Enter")
        tab.wait("document.querySelector('#acts .accept')", 30)
        tab.key("d")
        tab.drag((300, 200), (330, 240), (360, 200))
        tab.wait("document.querySelector('#acts .save')")
        tab.key("Enter")
        end = time.monotonic() + 20
        while not review.decisions:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert tab.errors() == []


@pytest.mark.parametrize("wide", [360, 768, 1280, 3840])
def test_nothing_is_wider_than_the_window(chromium: Chromium, wide: int) -> None:
    with FakeServer(FakeReview()) as server:
        tab = ready(chromium, server, wide, 800)
        fits = (
            "document.documentElement.scrollWidth <= innerWidth && [...document.querySelectorAll('#bar button, #acts "
            "button')].every((b) => b.offsetParent === null || b.getBoundingClientRect().right <= innerWidth)"
        )
        assert tab.run(fits)
        tab.key("Enter")
        tab.wait("document.querySelector('#acts .accept')")
        assert tab.run(fits)


@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing_serious(chromium: Chromium, tmp_path: Path, dark: bool) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed, which axe-core comes from")
    asked = [npm, "install", "--silent", "--ignore-scripts", "--prefix", str(tmp_path), "axe-core@4"]
    axe = tmp_path / "node_modules" / "axe-core" / "axe.min.js"
    if subprocess.run(asked, capture_output=True, timeout=120).returncode or not axe.is_file():
        pytest.skip("npm's registry, which axe-core comes from, is not reachable")
    look = (
        "axe.run().then((r) => r.violations.filter((v) => ['serious', 'critical'].includes(v.impact))"
        ".map((v) => v.id + ': ' + v.nodes.map((n) => n.html.slice(0, 160) + ' ' + n.failureSummary).join(' | ')))"
    )
    with FakeServer(FakeReview()) as server:
        tab = ready(chromium, server)
        tab.theme(dark)
        tab.run(axe.read_text() + "; 1")
        assert tab.run(look) == []
        tab.key("?")
        assert tab.run(look) == []
        tab.key("Escape", "Enter")
        tab.wait("document.querySelector('#acts .accept')")
        tab.key("p")
        assert tab.run(look) == []
