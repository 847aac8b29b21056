"""Fingers, pens, marks, proposals, causes and notes on the page of `fgfast review`, in a real Chromium."""

from __future__ import annotations

import time

import numpy as np
import pytest
from chromium import CHROMIUM, Tab
from review_hands import READY, Open, enter, place_of, shown, until, verdicts

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome here: apt-get install chromium"
    ),
]
DRAFT = "document.querySelector('#acts .save')"
ZOOM = "document.getElementById('where').textContent"


def touch(tab: Tab, kind: str, *places: tuple[float, float]) -> None:
    points = [{"x": x, "y": y, "id": n} for n, (x, y) in enumerate(places)]
    tab.send("Input.dispatchTouchEvent", type=kind, touchPoints=points)


def pen(tab: Tab, places: list[tuple[float, float]], buttons: int) -> None:
    """Draw with a pen; the protocol knows no eraser end, so the events are made in the page."""
    tab.run(
        "(() => { const c = document.getElementById('canvas'), r = c.getBoundingClientRect(); const at = "
        + str([list(p) for p in places])
        + "; const send = (name, [x, y], buttons) => c.dispatchEvent(new PointerEvent(name, { bubbles: true,"
        " clientX: x, clientY: y, pointerId: 7, pointerType: 'pen', button: buttons === 32 ? 5 : 0, buttons }));"
        f" send('pointerdown', at[0], {buttons}); at.slice(1).forEach((p) => send('pointermove', p, {buttons}));"
        " send('pointerup', at.at(-1), 0); })()"
    )


def hold_note(tab: Tab, text: str) -> None:
    tab.key("n")
    tab.wait("document.activeElement.id === 'note'")
    tab.send("Input.insertText", text=text)
    tab.key("Escape")


def test_a_finger_draws_and_two_zoom(opened: Open) -> None:
    review, tab = opened()
    tab.send("Emulation.setTouchEmulationEnabled", enabled=True, maxTouchPoints=5)
    enter(tab)
    tab.key("d")
    start, end = place_of(tab, 0.05, 0.05), place_of(tab, 0.1, 0.05)
    # Two fingers: what the first one began is taken back.
    touch(tab, "touchStart", start)
    touch(tab, "touchMove", end)
    tab.wait(DRAFT)
    touch(tab, "touchStart", end, (end[0] + 60, end[1]))
    for by in (80, 120, 200):
        touch(tab, "touchMove", end, (end[0] + by, end[1]))
    touch(tab, "touchEnd")
    tab.wait(f"!{DRAFT}")
    before = review.mask(1)
    tab.key("0")
    touch(tab, "touchStart", start)
    touch(tab, "touchMove", end)
    touch(tab, "touchEnd")
    tab.wait(DRAFT)
    tab.key("Enter")
    until(lambda: len(review.decisions) == 1)
    after = review.mask(1)
    assert after[12, 20] and after[12, 30] and (after & before == before).all()
    # A pinch without a tool zooms, about the place between the fingers.
    shown(tab, 2)
    tab.key("Escape")
    x, y = place_of(tab, 0.5, 0.5)
    touch(tab, "touchStart", (x - 20, y), (x + 20, y))
    for by in (30, 50, 80):
        touch(tab, "touchMove", (x - by, y), (x + by, y))
    touch(tab, "touchEnd")
    tab.mouse("mouseMoved", x + 80, y)
    zoomed = tab.run(ZOOM).split(",")[0]
    tab.key("0")
    tab.mouse("mouseMoved", x + 81, y)
    whole = tab.run(ZOOM).split(",")[0]
    assert 160 < int(zoomed) < int(whole)


def test_a_pen_draws_and_its_other_end_erases(opened: Open) -> None:
    review, tab = opened()
    enter(tab)
    tab.key("d")
    before = review.mask(1)
    assert before[120, 160]
    pen(tab, [place_of(tab, 0.05, 0.05), place_of(tab, 0.1, 0.05)], 1)
    pen(tab, [place_of(tab, 0.5, 0.5), place_of(tab, 0.55, 0.5)], 32)
    tab.wait(DRAFT)
    tab.key("Enter")
    until(lambda: len(review.decisions) == 1)
    after = review.mask(1)
    assert after[12, 24] and not after[120, 164]
    shown(tab, 2)
    tab.key("e")
    tab.drag(place_of(tab, 0.5, 0.5), place_of(tab, 0.55, 0.5))
    tab.wait(DRAFT)
    tab.key("Enter")
    until(lambda: len(review.decisions) == 2)
    assert not review.mask(2)[120, 164] and review.mask(2).sum() < before.sum()


def test_marks_are_undone_a_stroke_a_step_and_survive_a_reload(opened: Open) -> None:
    review, tab = opened()
    enter(tab)
    tab.key("m")
    tab.drag(place_of(tab, 0.4, 0.5), place_of(tab, 0.6, 0.5))
    until(lambda: len(review.proposed) == 1)
    tab.key("x")
    tab.drag(place_of(tab, 0.1, 0.1), place_of(tab, 0.3, 0.1))
    until(lambda: len(review.proposed) == 2)
    both = review.proposed[1]
    assert both["subject"] == review.proposed[0]["subject"] and both["background"] != review.proposed[0]["background"]
    tab.wait("document.querySelectorAll('#side .thumbs kbd').length >= 3")
    tab.key("z", ctrl=True)
    time.sleep(0.5)  # a draft is stored after a quarter of a second
    tab.send("Page.reload")
    tab.wait(READY)
    enter(tab)
    tab.wait(DRAFT)
    tab.key("m")
    tab.drag(place_of(tab, 0.4, 0.6), place_of(tab, 0.6, 0.6))
    until(lambda: len(review.proposed) == 3)
    # The first stroke is there, the one that was undone is not.
    assert review.proposed[2]["background"] == review.proposed[0]["background"]
    assert review.proposed[2]["subject"] != review.proposed[0]["subject"]
    tab.wait("document.querySelectorAll('#side .thumbs kbd').length >= 3")
    tab.key("Enter")
    until(lambda: len(review.decisions) == 1)
    assert review.decisions[0]["how"] == "strokes"


def test_another_box_a_cause_and_a_note(opened: Open) -> None:
    review, tab = opened()
    enter(tab)
    tab.wait("document.querySelector('#side .thumbs button')?.textContent.includes('bird 0.41')")
    tab.key("1")
    until(lambda: bool(review.proposed))
    assert review.proposed[-1]["box"] == [0, 0, 160, 120]
    tab.wait("document.querySelectorAll('#side .thumbs kbd').length >= 4")
    tab.send("Input.dispatchKeyEvent", type="keyDown", key="@", code="Digit2", modifiers=8)
    tab.send("Input.dispatchKeyEvent", type="keyUp", key="@", code="Digit2", modifiers=8)
    tab.wait("document.querySelectorAll('#side .chips button[aria-pressed=true]').length === 1")
    hold_note(tab, "two birds")
    tab.key("Enter")
    until(lambda: len(review.decisions) == 1)
    made = review.decisions[0]
    assert (made["how"], made["cause"], made["note"]) == ("box", "wrong subject", "two birds")
    assert review.mask(1)[60, 80] and not review.mask(1)[180, 240]


def test_shrink_and_a_preview_under_the_pointer(opened: Open) -> None:
    review, tab = opened()
    enter(tab)
    before = review.mask(1)
    tab.key("s")
    tab.wait(DRAFT)
    tab.key("Enter")
    until(lambda: len(review.decisions) == 1)
    assert review.mask(1).sum() < before.sum()
    shown(tab, 2)
    tab.key("p")
    x, y = place_of(tab, 0.2, 0.3)
    pixel = (
        "(() => { const c = document.getElementById('canvas'), r = c.getBoundingClientRect();"
        f" return [...c.getContext('2d').getImageData({x} - r.x, {y} - r.y, 1, 1).data]; }})()"
    )
    tab.mouse("mouseMoved", x - 100, y)
    plain = tab.run(pixel)
    tab.mouse("mouseMoved", x, y)
    until(lambda: tab.run(pixel) != plain)
    assert review.proposed[-1]["points"][-1][2] == 1 and not tab.run(f"Boolean({DRAFT})")
    tab.mouse("mouseMoved", 5, 5)
    until(lambda: tab.run(pixel) == plain)
    assert verdicts(review) == [(1, "mask")]


def test_undo_stays_where_one_is_and_says_what_was_undone(opened: Open) -> None:
    review, tab = opened()
    enter(tab)
    tab.key("a")
    shown(tab, 2)
    tab.wait("!document.getElementById('undo').disabled")
    until(lambda: len(review.decisions) == 1)
    tab.key("u")
    tab.wait(
        "/^Undone: 1 decision on .*00001.* \\(Y goes there\\)$/.test(document.getElementById('toast').textContent)"
    )
    shown(tab, 2)
    assert verdicts(review) == [(1, "accept"), (1, "undo")]
    tab.key("y")
    shown(tab, 1)
    tab.key("j")
    shown(tab, 2)
    tab.key("Escape")  # in the gallery, too
    tab.wait("document.querySelector('.card.here')?.id === 'card-2'")
    tab.key("y")
    tab.wait("document.querySelector('.card.here')?.id === 'card-1'")


def test_what_was_undone_is_found_outside_the_filters(opened: Open) -> None:
    review, tab = opened()
    tab.key("y")
    tab.wait("document.getElementById('toast').textContent === 'Nothing was undone'")
    tab.key("a")
    until(lambda: len(review.decisions) == 1)
    tab.wait("!document.getElementById('undo').disabled")
    tab.run(
        "(() => { const s = document.getElementById('class'); s.value = 'class 3';"
        " s.dispatchEvent(new Event('change', { bubbles: true })); })()"
    )
    tab.wait("document.getElementById('count').textContent === '9 entries'")
    tab.run("document.getElementById('scroller').focus()")
    tab.key("u")
    until(lambda: verdicts(review)[-1] == (1, "undo"))
    tab.wait("document.getElementById('toast').textContent.endsWith('(Y goes there)')")
    tab.key("y")
    tab.wait("document.querySelector('#side h2')?.textContent.includes('00001')")
    tab.wait("document.querySelector('#side').textContent.includes('Outside these filters, doubt')")


def test_nothing_moves_where_less_motion_is_wanted(opened: Open) -> None:
    _, tab = opened()
    tab.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    moving = (
        "[...document.querySelectorAll('*')].filter((e) => { const s = getComputedStyle(e);"
        " return s.animationName !== 'none' || s.transitionDuration.split(', ').some((d) => d !== '0s'); }).length"
    )
    assert tab.run(moving) == 0
    enter(tab)
    assert tab.run(moving) == 0
    assert np.array(tab.run("[getComputedStyle(document.getElementById('scroller')).scrollBehavior]")) == ["auto"]
