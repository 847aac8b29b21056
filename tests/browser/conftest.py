"""Chromium, and tabs on the page of `fgfast review` over a server that answers as the real one does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chromium import Chromium, Tab
from review_hands import READY, Open
from review_server import FakeReview, FakeServer


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def opened(chromium: Chromium) -> Iterator[Open]:
    servers, tabs = [], []

    def start(review: FakeReview | None = None, **more: int) -> tuple[FakeReview, Tab]:
        review = review or FakeReview()
        server = FakeServer(review)
        server.__enter__()
        servers.append(server)
        tab = chromium.tab(server.address, **more)
        tabs.append(tab)
        tab.wait(READY)
        return review, tab

    yield start
    for tab in tabs:
        assert tab.errors() == []
        tab.send("Page.close")
    for server in servers:
        server.__exit__()
