"""The page of `fgfast review` in a real Chromium, over a server that answers as the real one does."""

from __future__ import annotations

import time

import numpy as np
import pytest
from chromium import CHROMIUM
from review_hands import READY, Open, enter, place_of, shown, until, verdicts
from review_server import FakeReview

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome here: apt-get install chromium"
)
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>.png"


def test_open_filter_decide_undo(opened: Open) -> None:
    review, tab = opened()
    assert tab.run("document.getElementById('left').textContent") == "60 flagged left, about 3 minutes · 0 decided"
    tab.wait("[...document.querySelectorAll('.card img')].filter((i) => i.complete && i.naturalWidth).length > 9")
    choose = "(() => { const s = document.getElementById('class'); s.value = 'class 3'; s.dispatchEvent(new Event("
    tab.run(choose + "'change', { bubbles: true })); })()")
    tab.wait("document.getElementById('count').textContent === '9 entries'")
    tab.wait("document.querySelector('.card .name').textContent")
    tab.run("document.getElementById('scroller').focus()")
    tab.key("a", "r")
    until(lambda: verdicts(review) == [(3, "accept"), (10, "reject")])
    tab.wait("document.querySelectorAll('.card .done[data-v=accept]').length === 1")
    tab.wait("!document.getElementById('undo').disabled")
    tab.key("u")
    until(lambda: verdicts(review)[-1] == (10, "undo"))
    tab.wait("document.querySelectorAll('.card .done[data-v=reject]').length === 0")


def test_when_all_flagged_ones_are_decided_the_page_says_how_to_go_on(opened: Open) -> None:
    review = FakeReview()
    review.flagged = 2
    _, tab = opened(review)
    told = "document.getElementById('left').textContent === "
    tab.wait(told + "'2 flagged left, about 1 minute · 0 decided'")
    enter(tab)
    tab.key("a")
    shown(tab, 2)
    tab.wait(told + "'1 flagged left, about 1 minute · 1 decided'")
    tab.key("a")
    shown(tab, 3)
    sentence = "All flagged ones are decided. The next most doubtful follow."
    tab.wait(told + f"'{sentence} · 2 decided'")
    tab.wait(f"document.getElementById('toast').textContent === '{sentence}'")
    tab.key("a")  # and so one goes on
    shown(tab, 4)
    tab.wait(told + f"'{sentence} · 3 decided'")
    tab.key("Escape")
    tab.run(
        "(() => { const s = document.getElementById('status'); s.value = 'flagged';"
        " s.dispatchEvent(new Event('change', { bubbles: true })); })()"
    )
    tab.wait(told + "'All flagged ones are decided. Set Status to all for the next most doubtful. · 3 decided'")


def test_doubt_is_a_plain_number_that_is_explained(opened: Open) -> None:
    review, tab = opened()
    wanted = f"{review.doubts[0]:.3f}"
    tab.wait(f"document.querySelector('.card .doubt').textContent === '{wanted}'")
    assert "no probability" in tab.run("document.getElementById('doubts').title")
    enter(tab)
    assert "%" not in tab.run("document.querySelector('#side section').textContent")
    tab.key("?")
    tab.wait("document.getElementById('help').textContent.includes('a doubt of 0.05 does not mean that one in twenty')")
    assert "Go to what was undone" in tab.run("document.getElementById('help').textContent")


def test_many_are_decided_and_undone_as_one(opened: Open) -> None:
    review, tab = opened()
    tab.key(" ", "j", " ", "j", " ")
    tab.wait("document.getElementById('picked-count').textContent === '3 selected'")
    tab.key("r")
    until(lambda: verdicts(review) == [(1, "reject"), (2, "reject"), (3, "reject")])
    tab.wait("!document.getElementById('undo').disabled")
    tab.key("u")
    until(lambda: verdicts(review)[3:] == [(1, "undo"), (2, "undo"), (3, "undo")])


def test_mended_by_each_means(opened: Open) -> None:
    review, tab = opened()
    enter(tab)
    tab.key("b")
    tab.drag(place_of(tab, 0.02, 0.02), place_of(tab, 0.2, 0.2), place_of(tab, 0.5, 0.5))
    tab.wait("document.querySelector('#acts .save') && document.querySelectorAll('#side .thumbs kbd').length >= 3")
    tab.key("2", "Enter")
    until(lambda: len(review.decisions) == 1)
    assert review.decisions[0]["how"] == "box"
    height, width = review.size
    # The second mask: 0.6 of an ellipse in a box of 0.48 by 0.48 of the image.
    assert abs(review.mask(1).mean() - np.pi / 4 * (0.6 * 0.48) ** 2) < 0.004
    shown(tab, 2)
    tab.key("p")
    tab.drag(place_of(tab, 0.25, 0.25))
    tab.wait("document.querySelectorAll('#side li button').length === 1")
    tab.key("Enter")
    until(lambda: len(review.decisions) == 2)
    assert review.mask(2)[height // 4, width // 4] and not review.mask(2)[height // 2, width // 2]
    shown(tab, 3)
    before = review.mask(3)
    tab.key("d")
    tab.drag(place_of(tab, 0.05, 0.05), place_of(tab, 0.1, 0.05))
    tab.wait("document.querySelector('#acts .save')")
    tab.key("z", ctrl=True)
    tab.wait("!document.querySelector('#acts .save')")
    tab.key("y", ctrl=True)
    tab.wait("document.querySelector('#acts .save')")
    tab.key("o")
    tab.drag(*[place_of(tab, x, y) for x, y in ((0.8, 0.8), (0.95, 0.8), (0.95, 0.95), (0.8, 0.95))])
    tab.key("Enter")
    until(lambda: len(review.decisions) == 3)
    after = review.mask(3)
    assert review.decisions[2]["how"] == "brush, lasso"
    assert after[12, 20] and after[int(0.9 * 240), int(0.9 * 320)] and (after & before == before).all()
    shown(tab, 4)
    before = review.mask(4)
    tab.key("g")
    tab.wait("document.querySelector('#acts .save')")
    tab.key("Enter")
    until(lambda: len(review.decisions) == 4)
    assert review.mask(4).sum() > before.sum()


def test_one_pixel_with_the_keyboard_alone(opened: Open) -> None:
    review, tab = opened()
    before = review.mask(1)
    enter(tab)
    tab.key("d", *["["] * 12, "ArrowLeft")
    tab.key(*["ArrowUp"] * 11, shift=True)
    tab.key(" ", " ", "Enter")
    until(lambda: len(review.decisions) == 1)
    changed = np.argwhere(before != review.mask(1))
    assert changed.tolist() == [[10, 159]]


def test_a_draft_and_an_unsent_decision_survive_a_reload(opened: Open) -> None:
    review, tab = opened()
    enter(tab)
    tab.key("d")
    tab.drag(place_of(tab, 0.05, 0.05), place_of(tab, 0.1, 0.05))
    tab.wait("document.querySelector('#acts .save')")
    tab.key("j")
    shown(tab, 2)
    review.full = True
    tab.key("a")
    tab.wait("document.getElementById('banner').textContent.includes('the disk is full')")
    tab.send("Page.reload")
    time.sleep(0.3)
    review.full = False
    tab.wait(READY)
    until(lambda: verdicts(review) == [(2, "accept")])
    enter(tab)
    tab.wait("document.querySelector('#acts .save')")
    tab.key("Enter")
    until(lambda: len(review.decisions) == 2)
    assert review.mask(1)[12, 20]


def test_what_is_typed_while_an_image_loads_is_about_that_image(opened: Open) -> None:
    review = FakeReview(6)
    review.slow = {2: 1.0, 3: 0.5}
    review, tab = opened(review)
    enter(tab)
    tab.key("j")
    shown(tab, 1)  # still: nothing may say 2 beside the first image
    tab.key("r", "a")
    until(lambda: verdicts(review) == [(2, "reject"), (3, "accept")])
    shown(tab, 4)


def test_the_server_goes_and_comes_back(opened: Open) -> None:
    review, tab = opened()
    review.gone = True
    tab.key("a", "a")
    tab.wait("!document.getElementById('banner').hidden")
    review.gone = False
    until(lambda: verdicts(review) == [(1, "accept"), (2, "accept")])
    tab.wait("document.getElementById('banner').hidden")


@pytest.mark.parametrize("mine", [pytest.param(False, marks=pytest.mark.full), True])
def test_two_people_see_both_decisions(opened: Open, mine: bool) -> None:
    review, tab = opened()
    enter(tab)
    review.add(1, "reject", "reject", who="Anna", note="no bird")
    tab.key("a")
    tab.wait("document.getElementById('conflict').open")
    said = tab.run("document.getElementById('conflict').innerText")
    assert "Anna" in said and "no bird" in said and "Accepted" in said
    tab.click(f"#conflict .row button:nth-child({2 if mine else 1})")
    tab.wait("!document.getElementById('conflict').open")
    if mine:
        until(lambda: verdicts(review) == [(1, "reject"), (1, "accept")])
    else:
        assert verdicts(review) == [(1, "reject")]


def test_hostile_names_missing_sources_and_one_pixel(opened: Open) -> None:
    review = FakeReview(6)
    review.names[1], review.missing, review.sizes[2] = HOSTILE, {1}, (1, 1)
    review, tab = opened(review)
    tab.wait("document.querySelector('.card img').naturalWidth")
    enter(tab)
    assert "missing" in tab.run("document.querySelector('#side .problem').textContent")
    assert tab.run("document.querySelector('#side h2').textContent") == HOSTILE
    assert "owned" not in tab.run("document.title")
    tab.key("j")
    shown(tab, 2)
    tab.key("e", " ", " ")
    tab.key("d", " ", " ", "Enter")
    until(lambda: len(review.decisions) == 1)
    assert review.mask(2).tolist() == [[True]]


def test_a_key_shows_the_keys_which_can_be_changed(opened: Open) -> None:
    review, tab = opened()
    tab.key("?")
    tab.wait("document.getElementById('help').open")
    tab.click(".keys button")
    tab.key("y", "Escape")
    tab.wait("!document.getElementById('help').open")
    tab.key("a", "y")
    until(lambda: verdicts(review) == [(1, "accept")])


def test_read_only_decides_nothing(opened: Open) -> None:
    review = FakeReview(6)
    review.readonly = True
    review, tab = opened(review)
    tab.key("a")
    enter(tab)
    tab.key("a", "d", " ", " ", "Enter")
    assert tab.run("document.querySelector('#acts .accept') === null && !document.getElementById('readonly').hidden")
    assert "/api/decide" not in review.asked


@pytest.mark.full  # a time, which says nothing where other tests run beside it
def test_next_entry_comes_at_once(opened: Open) -> None:
    _, tab = opened()
    enter(tab)
    time.sleep(0.3)  # as long as a person looks, at least
    took = tab.run(
        "new Promise((done) => { const begun = performance.now(); const look = () => document.querySelector('#side "
        "h2').textContent.includes('00002') ? done(performance.now() - begun) : requestAnimationFrame(look);"
        " document.getElementById('canvas').dispatchEvent(new KeyboardEvent('keydown', { key: 'a', bubbles: true }));"
        " look(); })"
    )
    assert took < 100
