"""The page of `fgfast review` in a real Chromium, over the real server and a small run."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="the extra review is not installed")
pytest.importorskip("starlette", reason="the extra review is not installed")

from chromium import CHROMIUM, Chromium
from small_review import opening, served, small_run

from fgfast.review.session import Review

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome here: apt-get install chromium"
    ),
]


def test_accept_undo_mend_reject_and_write_lists(tmp_path: Path) -> None:
    out, root = small_run(tmp_path)
    with (
        Review(opening(out, root)) as review,
        served(review) as (server, browser),
        Chromium(tmp_path / "chromium") as chromium,
    ):
        tab = chromium.tab(server.new_address())
        tab.wait(
            "document.documentElement?.dataset.ready === 'yes' && document.querySelector('.card .name')?.textContent"
        )
        tab.wait("[...document.querySelectorAll('.card img')].filter((i) => i.complete && i.naturalWidth).length === 4")

        def decided(number: int, *verdicts: str) -> None:
            end = time.monotonic() + 10
            while True:
                reply = browser.get(f"/api/items/{number}/history")
                assert reply.status == 200, reply.body
                found = [d["verdict"] for d in reply.json]
                if found == [*verdicts]:
                    return
                assert time.monotonic() < end, (number, found, tab.run("document.body.innerText"))
                time.sleep(0.05)

        tab.key("a")
        decided(1, "accept")
        tab.wait("!document.getElementById('undo').disabled")
        tab.key("u")
        decided(1, "undo", "accept")
        tab.wait("document.getElementById('toast').textContent.startsWith('Undone')")
        tab.key("Enter")
        tab.wait("document.querySelector('#acts .accept')")
        tab.key("d")
        tab.drag((300, 200), (400, 200))
        tab.wait("document.querySelector('#acts .save')")
        tab.key("Enter")
        decided(2, "mask")
        tab.wait("document.querySelector('#side h2').textContent.includes('Jay_0001')")
        tab.key("r")
        decided(3, "reject")
        tab.wait("!document.getElementById('finish').hidden")
        tab.click("#finish")
        tab.wait("document.getElementById('finish').hidden", 30)
        assert browser.get("/api/state").json["stale"] is False
        assert tab.errors() == []
