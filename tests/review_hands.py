"""A person's hands on the page of `fgfast review`: opens entries, knows where pixels of an image are on screen."""

from __future__ import annotations

import time
from collections.abc import Callable

from chromium import Tab
from review_server import FakeReview

READY = "document.documentElement?.dataset.ready === 'yes' && document.querySelector('.card .name')?.textContent"

Open = Callable[..., tuple[FakeReview, Tab]]


def until(true: Callable[[], object], seconds: float = 8) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def enter(tab: Tab) -> None:
    """Open the marked entry, and wait until it is there."""
    tab.key("Enter")
    shown(tab, 1)


def shown(tab: Tab, place: int) -> None:
    tab.wait(f"[...document.querySelectorAll('#side .soft')].some((p) => p.textContent.startsWith('{place} of'))")


def place_of(tab: Tab, x: float, y: float) -> tuple[float, float]:
    """Where a share of the image, which is shown whole, is on the screen."""
    found = tab.run(
        "(() => { const r = document.getElementById('canvas').getBoundingClientRect();"
        " return [r.x, r.y, r.width, r.height]; })()"
    )
    left, top, wide, high = found
    by = min((wide - 24) / 320, (high - 24) / 240)
    return left + wide / 2 + (x - 0.5) * 320 * by, top + high / 2 + (y - 0.5) * 240 * by


def verdicts(review: FakeReview) -> list[tuple[int, str]]:
    return [(d["id"], d["verdict"]) for d in review.decisions]
