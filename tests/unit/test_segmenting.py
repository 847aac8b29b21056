"""Masks from clicks, in processes that may die."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fgfast import processes
from fgfast.errors import SegmenterLostError, SupersededError, UsageError
from fgfast.records import Bool, Image
from fgfast.review.newest import Newest
from fgfast.review.segmenter_process import SegmenterProcess
from fgfast.review.segmenting import Segmenting, segmenter_of


def drawn(height: int = 90, width: int = 120) -> tuple[Image, Bool]:
    """A red ellipse on noisy green, and its mask."""
    y, x = np.ogrid[:height, :width]
    inside = ((x - width / 2) / (width / 4)) ** 2 + ((y - height / 2) / (height / 4)) ** 2 <= 1
    noise = np.random.default_rng(0).integers(0, 25, (height, width, 3))
    pixels = np.where(inside[..., None], [190, 40, 40], [40, 120, 60]) + noise
    return Image(pixels.astype(np.uint8)), inside


@pytest.fixture(scope="module")
def model() -> Iterator[Segmenting]:
    with Segmenting.start({"segmenter": "grabcut"}) as started:
        yield started


def iou(a: Bool, b: Bool) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


@pytest.mark.parametrize(
    "asked",
    [
        {"points": [(60, 45, 1)]},
        {"points": [(60, 45, 1), (5, 5, 0)]},
        {"box": (30, 22, 90, 68)},
        {"box": (90, 68, 30, 22), "points": [(60, 45, 1)]},
    ],
)
def test_a_click_finds_what_is_there(model: Segmenting, asked: dict[str, Any]) -> None:
    image, inside = drawn()
    found = model.propose("a", lambda: image, **asked)
    assert iou(found.masks[0], inside) > 0.9 and found.scores == (None,) and found.previous == ""


def test_strokes_are_obeyed_exactly(model: Segmenting) -> None:
    image, inside = drawn()
    subject, background = np.zeros_like(inside), np.zeros_like(inside)
    subject[5, 10:20], background[44:47, 55:60] = True, True
    found = model.propose("a", lambda: image, points=[(60, 60, 1)], strokes=(subject, background)).masks[0]
    assert found[subject].all() and not found[background].any()


def test_the_same_click_gives_the_same_bits(model: Segmenting) -> None:
    image, _ = drawn()
    first, second = (model.propose("a", lambda: image, points=[(50, 40, 1)]).masks[0] for _ in range(2))
    assert np.array_equal(first, second)


def test_the_banner_is_never_subject(model: Segmenting) -> None:
    image, _ = drawn()
    found = model.propose("a", lambda: image, points=[(60, 45, 1), (60, 85, 1)], banner_rows=20).masks[0]
    assert not found[-20:].any() and found[45, 60]


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (2, 2)])
def test_tiny_images(model: Segmenting, size: tuple[int, int]) -> None:
    image = Image(np.zeros((*size, 3), np.uint8))
    found = model.propose(f"{size}", lambda: image, points=[(0.5, 0.5, 1)]).masks[0]
    assert found.shape == size and found[0, 0]


@pytest.mark.full
def test_20_megapixels(model: Segmenting) -> None:
    image, inside = drawn(4000, 5000)
    found = model.propose("large", lambda: image, points=[(2500, 2000, 1)]).masks[0]
    assert iou(found, inside) > 0.9


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"points": [(float("nan"), 3, 1)]},
        {"points": [(3, float("inf"), 1)]},
        {"points": [(121, 3, 1)]},
        {"points": [(3, -1, 1)]},
        {"points": [(3, 3, 2)]},
        {"points": [(3, 3)]},
        {"points": [(3, 3, "x")]},
        {"points": [(3, 3, 1)] * 10_000},
        {"points": [(3, 3, 0)]},
        {"box": (1, 2, float("nan"), 4)},
        {"box": (1, 2, 3)},
        {"box": (10, 10, 10, 40)},
        {"box": (-50, -50, -10, -10)},
        {"strokes": (np.ones((3, 3), np.bool_), None)},
        {"strokes": (np.zeros((90, 120), np.bool_), None)},
    ],
)
def test_hostile_prompts_are_refused(model: Segmenting, asked: dict[str, Any]) -> None:
    image, _ = drawn()
    with pytest.raises(UsageError):
        model.propose("a", lambda: image, **asked)


@pytest.mark.full
def test_a_death_costs_one_click() -> None:
    image, inside = drawn()
    with Segmenting.start({"segmenter": "grabcut"}) as model:
        model.propose("a", lambda: image, points=[(60, 45, 1)])
        model._clicks._process._process.kill()
        model._clicks._process._process.wait(10)
        with pytest.raises(SegmenterLostError, match="started again"):
            model.propose("a", lambda: image, points=[(60, 45, 1)])
        assert iou(model.propose("a", lambda: image, points=[(60, 45, 1)]).masks[0], inside) > 0.9


def test_a_process_that_is_killed_while_it_computes_or_hangs_is_replaced() -> None:
    process = SegmenterProcess("the model")
    try:
        threading.Timer(0.3, process._process._process.kill).start()
        with pytest.raises(SegmenterLostError, match="ended its process"):
            process.call("time:sleep", 30, seconds=20)
        begun = time.monotonic()
        with pytest.raises(SegmenterLostError, match=r"longer than 0\.3 seconds"):
            process.call("time:sleep", 30, seconds=0.3)
        assert time.monotonic() - begun < 5
        assert process.call("operator:add", 1, 2, seconds=20) == 3
    finally:
        process.close()
    with pytest.raises(SegmenterLostError, match="closed"):
        process.call("operator:add", 1, 2, seconds=20)


def test_a_waiting_click_gives_way_to_a_later_one() -> None:
    process, newest, results = SegmenterProcess("the model"), Newest(), {}

    def click(n: int, about: str) -> None:
        try:
            with newest.call(about) as check:
                results[n] = process.call("operator:add", n, 0, seconds=20, check=check)
        except SupersededError:
            results[n] = "superseded"

    try:
        assert process.call("operator:add", 0, 0, seconds=20) == 0
        busy = threading.Thread(target=lambda: process.call("time:sleep", 0.6, seconds=20))
        busy.start()
        time.sleep(0.2)
        threads = []
        for n, about in ((1, "a"), (2, "b"), (3, "a")):
            threads.append(threading.Thread(target=click, args=(n, about)))
            threads[-1].start()
            time.sleep(0.05)
        for thread in (busy, *threads):
            thread.join(10)
    finally:
        process.close()
    assert results == {1: "superseded", 2: 2, 3: 3}
    assert not newest._calls, "nothing is remembered of calls that have ended"


def test_what_a_process_sends_back_is_no_code() -> None:
    process = SegmenterProcess("the model")
    try:
        with pytest.raises(SegmenterLostError) as caught:
            process.call("pathlib:PurePath", "a", seconds=20)
        assert isinstance(caught.value.__cause__, processes.ChildError)
    finally:
        process.close()


@pytest.mark.parametrize(
    ("settings", "name", "reason"),
    [
        ({"segmenter": "grabcut"}, None, "run's"),
        ({}, None, "no clicks"),
        ({"segmenter": ["x"]}, None, "no clicks"),
        ({"segmenter": "annotations"}, None, "no clicks"),
        ({"segmenter": "sam_vit_b", "model_weights": "mine.pth"}, None, "mine.pth"),
        ({"segmenter": "sam_vit_b", "model_weights": "random:3"}, "sam_vit_b", "random"),
        ({"segmenter": "sam_vit_b", "model_weights": "cached"}, None, "fgfast models pull"),
    ],
)
def test_which_segmenter(
    settings: dict[str, Any], name: str | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fgfast.models.files.weights.find", lambda name: None)
    spec, why = segmenter_of(settings)
    assert (spec.name if spec else None) == name and reason in why
