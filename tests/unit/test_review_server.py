"""The requests of the page of `fgfast review`, over real sockets."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as pillow

pytest.importorskip("uvicorn", reason="the extra review is not installed")
pytest.importorskip("starlette", reason="the extra review is not installed")

from layouts import HEIGHT, SUBJECT, WIDTH
from small_review import Browser, add_class_with_an_odd_one, bits_of, opening, runs, served, small_run

from fgfast.errors import OutputFailedError, OutputLockedError
from fgfast.io.lock import OutputLock
from fgfast.pipeline.mending import Mender
from fgfast.records import Bool, Size
from fgfast.review.mask_runs import decode_runs, encode_runs
from fgfast.review.preparing import prepare_before
from fgfast.review.segmenting import Segmenting
from fgfast.review.session import Review

FOUR = [1, 2, 3, 4]


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, Path]:
    return small_run(tmp_path)


@pytest.fixture
def browser(place: tuple[Path, Path]) -> Iterator[Browser]:
    with Review(opening(*place)) as review, served(review) as (_, found):
        yield found


def subject() -> Bool:
    bits = np.zeros((HEIGHT, WIDTH), np.bool_)
    x0, y0, x1, y1 = SUBJECT
    bits[y0:y1, x0:x1] = True
    return bits


def decide(browser: Browser, number: int, verdict: str, seen: int = 0, **more: Any) -> Any:
    reply = browser.post("/api/decide", {"changes": [{"id": number, "seen": seen, "verdict": verdict, **more}]})
    assert reply.status == 200, reply.body
    return reply.json["results"][0]


def ids(reply: Any) -> list[int]:
    return [int(n) for n in np.frombuffer(base64.b64decode(reply.json["ids"]), "<u4")]


def test_what_is_listed(browser: Browser) -> None:
    state = browser.get("/api/state").json
    assert (state["total"], state["decided"], state["readonly"], state["who"]) == (4, 0, False, "the tester")
    assert state["classes"] == ["001.Auk", "002.Jay"] and len(state["histogram"]) == 20 and len(state["causes"]) == 4
    assert ids(browser.get("/api/queue")) == FOUR
    assert ids(browser.get("/api/queue?class=002.Jay&order=key")) == [3, 4]
    assert ids(browser.get("/api/queue?q=auk_0002")) == [2]
    assert ids(browser.get("/api/queue?flag=nothing")) == []
    assert browser.get("/api/queue?order=size").status == 400
    assert browser.get("/api/queue?class=003.Owl").status == 400
    assert browser.get("/api/queue?status=fine").status == 400


def test_items_and_their_masks(browser: Browser) -> None:
    (item,) = browser.get("/api/items?ids=2").json
    assert item["key"].endswith("Auk_0002_20.jpg") and item["size"] == [HEIGHT, WIDTH] and item["problem"] == ""
    assert [item["class"], item["revision"], item["decision"], item["later"]] == ["001.Auk", 0, None, False]
    mask = browser.get("/api/items/2/mask").json
    assert np.array_equal(bits_of(mask["runs"], mask["size"]), subject())
    assert browser.get("/api/items?ids=").json == [] and browser.get("/api/items?ids=77").json == []
    assert browser.get("/api/items?ids=" + ",".join(map(str, range(1, 300)))).status == 400
    assert browser.get("/api/items/77/mask").status == 400


@pytest.mark.parametrize("kind", ["source", "result", "outline"])
def test_images_are_encoded_again(browser: Browser, kind: str) -> None:
    stamp = browser.get("/api/items?ids=1").json[0]["stamp"]
    fresh = browser.get(f"/api/items/1/image?kind={kind}&side=64&v={stamp}")
    assert fresh.status == 200 and "immutable" in fresh.headers["cache-control"]
    assert "no-store" in browser.get(f"/api/items/1/image?kind={kind}&side=64&v=old").headers["cache-control"]
    with pillow.open(io.BytesIO(fresh.body)) as image:
        assert image.format == "JPEG" and image.size == (WIDTH, HEIGHT)
    for side in ("63", "8193", "x", "-64", "1e3"):
        assert browser.get(f"/api/items/1/image?kind={kind}&side={side}").status == 400
    assert browser.get("/api/items/1/image?kind=raw").status == 400


def test_decide_conflict_and_undo(browser: Browser) -> None:
    made = decide(browser, 1, "accept", cause="wrong subject", note="<script>alert(1)</script>")
    assert made["number"] == 1 and made["item"]["decision"]["note"] == "<script>alert(1)</script>"
    assert (
        ids(browser.get("/api/queue?decided=yes"))
        == [1]
        == ids(browser.get("/api/queue?cause=wrong subject".replace(" ", "%20")))
    )
    assert ids(browser.get("/api/queue?decided=no")) == [2, 3, 4]
    late = decide(browser, 1, "mask", runs=runs(subject()), how="brush")
    assert late["conflict"]["now"]["number"] == 1 and late["conflict"]["mine"] == runs(subject())
    assert bits_of(late["conflict"]["theirs"], late["conflict"]["size"]).any()
    smaller = subject()
    smaller[:10] = False
    made = decide(browser, 1, "mask", seen=1, runs=runs(smaller), how="brush")
    mask = browser.get("/api/items/1/mask").json
    assert np.array_equal(bits_of(mask["runs"], mask["size"]), smaller)
    assert browser.get("/api/changes?since=0").json == {"last": 2, "ids": [1]}
    undone = browser.post("/api/undo", {"numbers": [2]}).json["results"][0]
    assert undone["number"] == 3 and undone["item"]["decision"]["number"] == 1
    assert [d["verdict"] for d in browser.get("/api/items/1/history").json] == ["undo", "mask", "accept"]
    assert browser.get("/api/changes?since=3").json == {"last": 3, "ids": []}
    assert browser.post("/api/undo", {"numbers": [9]}).status == 400


def test_the_stamp_changes_with_the_mask(browser: Browser) -> None:
    before = browser.get("/api/items?ids=1").json[0]["stamp"]
    after = decide(browser, 1, "accept")["item"]["stamp"]
    assert before != after == browser.get("/api/items?ids=1").json[0]["stamp"]


def test_reject_and_later(browser: Browser) -> None:
    assert browser.post("/api/later", {"ids": [2, 3], "later": True}).json == {}
    assert ids(browser.get("/api/queue?decided=later")) == [2, 3] and browser.get("/api/state").json["later"] == 2
    assert decide(browser, 2, "reject")["item"]["status"] == "skipped"
    assert ids(browser.get("/api/queue?decided=later")) == [3]
    assert browser.get("/api/state").json["statuses"]["skipped"] == 1
    reply = browser.get("/api/items/2/image?kind=result&side=64")
    assert reply.status == 404 and "no written image" in reply.json["error"]
    assert browser.get("/api/items/2/image?kind=outline&side=64").status == 200


def test_many_at_once(browser: Browser) -> None:
    changes = [{"id": n, "seen": 0, "verdict": "accept"} for n in FOUR]
    results = browser.post("/api/decide", {"changes": changes}).json["results"]
    assert [r["id"] for r in results] == FOUR and [r["number"] for r in results] == FOUR
    assert browser.post("/api/undo", {"numbers": FOUR}).status == 200
    assert browser.get("/api/state").json["decided"] == 0
    assert browser.post("/api/decide", {"changes": [*changes, changes[0]]}).status == 400


GOOD = {"id": 1, "seen": 0, "verdict": "mask"}


@pytest.mark.parametrize(
    "change",
    [
        *({}, [], None, {"id": 1}, {"id": 1, "verdict": "fine"}, {"id": 77, "seen": 0, "verdict": "accept"}),
        *({"id": True, "verdict": "accept"}, {"id": -1, "verdict": "accept"}, {"id": 1.5, "verdict": "accept"}),
        *({"id": "../1", "verdict": "accept"}, {"id": 1, "verdict": "accept", "note": "x" * 10_001}),
        *({"id": 1, "verdict": "accept", "cause": "ugly"}, {"id": 1, "verdict": "accept", "runs": "AAAA"}),
        *(GOOD, GOOD | {"runs": 3}, GOOD | {"runs": ""}, GOOD | {"runs": "AAA"}, GOOD | {"runs": "é"}),
        *(GOOD | {"runs": "/" * 100_000}, GOOD | {"runs": base64.b64encode(b"\xff" * 40).decode()}),
        GOOD | {"runs": base64.b64encode(np.array([0, 0, HEIGHT * WIDTH], "<u4").tobytes()).decode()},
        GOOD | {"runs": base64.b64encode(np.array([HEIGHT * WIDTH - 1], "<u4").tobytes()).decode()},
        GOOD | {"runs": runs(subject()), "box": [0, 0, 1]},
        GOOD | {"runs": runs(subject()), "box": [5, 0, 1, 1]},
        GOOD | {"runs": runs(subject()), "box": [0, 0, 1e300, 1]},
    ],
)
def test_a_bad_decision_is_refused(shared: Browser, change: Any) -> None:
    reply = shared.post("/api/decide", {"changes": [change]})
    assert reply.status == 400 and reply.json["error"]
    assert shared.get("/api/state").json["decided"] == 0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Review(opening(*small_run(tmp_path_factory.mktemp("run")))) as review, served(review) as (_, found):
        yield found


def test_refine(shared: Browser) -> None:
    def refined(bits: Bool, op: str, by: int = 1) -> Bool:
        reply = shared.post("/api/items/1/refine", {"runs": runs(bits), "op": op, "by": by})
        assert reply.status == 200, reply.body
        return bits_of(reply.json["runs"], reply.json["size"])

    bits = subject()
    assert refined(bits, "grow").sum() > bits.sum() > refined(bits, "shrink").sum()
    holed = bits.copy()
    holed[10:12, 12:15] = False
    assert np.array_equal(refined(holed, "holes"), bits)
    parts = bits.copy()
    parts[0, 0] = True
    assert np.array_equal(refined(parts, "largest"), bits)
    for op in ("grow", "shrink", "holes", "largest"):
        assert not refined(np.zeros_like(bits), op).any()
        assert refined(np.ones_like(bits), op).all()
    for bad in ({"op": "blur"}, {"op": "grow", "by": 501}, {"op": "grow", "by": 0}, {"op": "grow", "by": "x"}):
        assert shared.post("/api/items/1/refine", {"runs": runs(bits), **bad}).status == 400


def test_without_a_model_clicks_say_so(shared: Browser) -> None:
    reply = shared.post("/api/items/1/propose", {"box": [0, 0, 5, 5]})
    assert reply.status == 503 and "brush" in reply.json["error"]


def test_a_click_gives_a_mask(place: tuple[Path, Path]) -> None:
    with Review(opening(*place, model=Segmenting.start)) as review, served(review) as (_, browser):
        reply = browser.post("/api/items/1/propose", {"box": [*SUBJECT], "points": [[20, 15, 1]]})
        assert reply.status == 200, reply.body
        bits = bits_of(reply.json["masks"][0]["runs"], reply.json["size"])
        assert (bits & subject()).sum() > 0.9 * subject().sum() and reply.json["ms"] > 0
        drawn = browser.post("/api/items/1/propose", {"box": [*SUBJECT], "background": runs(~subject())})
        assert drawn.status == 200 and not (bits_of(drawn.json["masks"][0]["runs"], [HEIGHT, WIDTH]) & ~subject()).any()
        model = browser.get("/api/state").json["model"]
        assert (model["name"], model["can"], model["ready"]) == ("GrabCut", ["box", "points", "strokes"], True)
        for bad in (
            *({}, {"box": [1, 2]}, {"box": [0, 0, 9, "x"]}, {"points": [[1, 2]]}, {"points": [[99, 2, 1]]}),
            *({"points": [[1, 2, 2]]}, {"points": [[1, 1, 1]] * 101}, {"subject": "AAAA"}, {"box": [3, 3, 3, 9]}),
        ):
            assert browser.post("/api/items/1/propose", bad).status == 400, bad
        assert browser.post("/api/items/77/propose", {"box": [0, 0, 5, 5]}).status == 400


def test_read_only_shows_and_changes_nothing(place: tuple[Path, Path]) -> None:
    with Review(opening(*place)) as writing, served(writing) as (_, one):
        with pytest.raises(OutputLockedError):
            Review(opening(*place))
        with Review(opening(*place, readonly=True)) as reading, served(reading) as (_, other):
            assert other.get("/api/state").json["readonly"] is True
            assert other.get("/api/items/1/image?kind=outline&side=64").status == 200
            for path, content in (
                ("decide", {"changes": [{"id": 1, "seen": 0, "verdict": "accept"}]}),
                ("undo", {"numbers": [1]}),
                ("finish", {}),
            ):
                reply = other.post(f"/api/{path}", content)
                assert reply.status == (400 if path == "undo" and "no decision" in reply.json["error"] else 423), path
            decide(one, 3, "accept")
            assert other.get("/api/changes?since=0").json == {"last": 1, "ids": [3]}
            assert other.get("/api/items?ids=3").json[0]["decision"]["number"] == 1
            assert other.get("/api/state").json["decided"] == 1


def test_another_server_s_lock_is_left_alone(place: tuple[Path, Path]) -> None:
    with OutputLock(place[0] / "fgfast/lock"), pytest.raises(OutputLockedError):
        Review(opening(*place))
    with Review(opening(*place)):
        pass


def test_a_full_disk_is_said_with_the_way_out_and_the_next_decision_works(place: tuple[Path, Path]) -> None:
    class Full(Mender):
        def decide(self, *asked: Any) -> Any:
            raise OutputFailedError("no space left: free some space, then decide again")

    menders: list[Mender] = []

    def mender() -> Mender:
        menders.append(Mender(*place) if menders else Full(*place))
        return menders[-1]

    full = opening(*place, mender=mender)
    with Review(full) as review, served(review) as (_, browser):
        reply = browser.post("/api/decide", {"changes": [{"id": 1, "seen": 0, "verdict": "accept"}]})
        assert reply.status == 507 and "free some space" in reply.json["error"]
        assert decide(browser, 1, "accept")["number"] == 1
    assert len(menders) == 2


def test_a_source_that_is_gone_or_changed_is_said_and_the_entry_still_shown(place: tuple[Path, Path]) -> None:
    out, root = place
    paths = sorted((root / "images").rglob("*.jpg"))
    paths[0].unlink()
    paths[1].write_bytes(paths[2].read_bytes())
    with Review(opening(*place)) as review, served(review) as (_, browser):
        items = browser.get("/api/items?ids=1,2,3").json
        assert "cannot be shown" in items[0]["problem"] and "changed" in items[1]["problem"] and not items[2]["problem"]
        assert browser.get("/api/items/1/image?kind=source&side=64").status == 404
        outline = browser.get("/api/items/1/image?kind=outline&side=64")
        with pillow.open(io.BytesIO(outline.body)) as image:
            assert outline.status == 200 and image.size == (WIDTH, HEIGHT)
        assert browser.get("/api/items/1/mask").status == 200 == browser.get("/api/items/1/image?kind=result").status
        next(out.rglob("Auk_0001_10.*")).unlink()
        assert browser.get("/api/items/1/image?kind=outline&side=70").status == 200


def test_lists_are_written_after_a_rest_on_the_button_and_at_the_end(place: tuple[Path, Path]) -> None:
    wrote, counts = threading.Event(), []

    class Counting(Mender):
        def finish(self) -> Any:
            counts.append(super().finish())
            wrote.set()
            return counts[-1]

    small = opening(*place, mender=lambda: Counting(*place))
    with Review(small, rest=0.05) as review, served(review) as (_, browser):
        decide(browser, 1, "accept")
        assert wrote.wait(5)
        wrote.clear()
        assert browser.post("/api/finish", {}).json["counts"]["done"] == 4 and wrote.is_set()
        assert browser.get("/api/state").json["stale"] is False
        review.writer._rest = 60.0  # type: ignore[union-attr]
        decide(browser, 2, "accept")
        assert browser.get("/api/state").json["stale"] is True
        wrote.clear()
    assert wrote.is_set() and len(counts) == 3


@pytest.mark.parametrize("seed", range(4))
def test_runs_are_those_of_another_program(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = Size(int(rng.integers(1, 9)), int(rng.integers(1, 9)))
    for bits in (rng.random(size) < 0.5, np.zeros(size, np.bool_), np.ones(size, np.bool_)):
        assert encode_runs(bits) == runs(bits)
        assert np.array_equal(decode_runs(runs(bits), size), bits)


def test_a_large_data_set_is_shown_while_it_is_opened_for_changes(place: tuple[Path, Path]) -> None:
    go = threading.Event()

    def slow() -> Mender:
        assert go.wait(20)
        return Mender(*place)

    with Review(opening(*place, mender=slow), patience=0.01) as review, served(review) as (_, browser):
        assert browser.get("/api/state").json["opening"] is True
        assert browser.get("/api/items/1/image?kind=outline&side=64").status == 200
        threading.Timer(0.1, go.set).start()
        assert decide(browser, 1, "accept")["number"] == 1
        assert browser.get("/api/state").json["opening"] is False


def test_what_cannot_be_opened_for_changes_says_so_for_each(place: tuple[Path, Path]) -> None:
    go = threading.Event()

    def fails() -> Mender:
        assert go.wait(20)
        raise OutputLockedError("another run has it")

    with Review(opening(*place, mender=fails), patience=0.01) as review, served(review) as (_, browser):
        go.set()
        for _ in range(2):
            reply = browser.post("/api/decide", {"changes": [{"id": 1, "seen": 0, "verdict": "accept"}]})
            assert reply.status == 423 and "another run has it" in reply.json["error"]


def test_flags_are_listed_in_the_background(place: tuple[Path, Path]) -> None:
    with Review(opening(*place)) as review, served(review) as (_, browser):
        for _ in range(500):
            if browser.get("/api/state").json["flags_known"] == 4:
                break
            threading.Event().wait(0.02)
        assert browser.get("/api/state").json["flags_known"] == 4


def test_what_is_unlike_its_class_is_flagged(place: tuple[Path, Path]) -> None:
    key = add_class_with_an_odd_one(place[0])
    with Review(opening(*place)) as review, served(review) as (_, browser):
        for _ in range(500):
            if browser.get("/api/state").json["flags_known"] == 13:
                break
            threading.Event().wait(0.02)
        state = browser.get("/api/state").json
        assert {flag["name"]: flag["count"] for flag in state["flags"]}["unlike its class"] == 1
        assert ids(browser.get("/api/queue?flag=unlike%20its%20class")) == [108]
        (item,) = browser.get("/api/items?ids=108").json
    (flag,) = [flag for flag in item["flags"] if flag["name"] == "unlike its class"]
    assert item["key"] == key and flag["number"] > 3.5 and "unusually little" in flag["sentence"]


def test_entries_are_there_while_their_files_are_replaced(place: tuple[Path, Path]) -> None:
    """Between the deletion of a row and its new one, an entry is as it was."""
    entry = "/api/items/1/"
    paths = (
        "/api/items?ids=1,2",
        "/api/state",
        f"{entry}mask",
        f"{entry}image?kind=outline&side=64",
        f"{entry}history",
    )
    bad: list[Any] = []
    ended = threading.Event()

    def ask(browser: Browser, path: str) -> None:
        while not ended.is_set():
            reply = browser.get(path)
            if reply.status != 200 or ("ids=" in path and len(reply.json) != 2):
                bad.append((path, reply.status, reply.body[:100]))

    with Review(opening(*place)) as review, served(review) as (_, browser):
        threads = [threading.Thread(target=ask, args=(browser, path)) for path in paths]
        for thread in threads:
            thread.start()
        try:
            for seen in range(12):
                bits = subject()
                bits[: 8 + seen] = False
                decide(browser, 1, "mask", seen=seen, runs=runs(bits), how="brush")
        finally:
            ended.set()
            for thread in threads:
                thread.join()
    assert not bad, bad[:3]


def test_a_reader_takes_in_what_another_server_is_still_carrying_out(place: tuple[Path, Path]) -> None:
    stored, go = threading.Event(), threading.Event()

    def slow() -> Mender:
        mender = Mender(*place)
        apply = mender._files.apply

        def late(*asked: Any) -> None:
            stored.set()
            assert go.wait(20)
            apply(*asked)

        mender._files.apply = late  # type: ignore[method-assign]
        return mender

    with (
        Review(opening(*place, mender=slow)) as writing,
        served(writing) as (_, one),
        Review(opening(*place, readonly=True)) as reading,
        served(reading) as (_, other),
    ):
        deciding = threading.Thread(target=decide, args=(one, 2, "reject"))
        deciding.start()
        assert stored.wait(20)
        assert other.get("/api/changes?since=0").json == {"last": 1, "ids": [2]}
        assert other.get("/api/state").json["statuses"]["skipped"] == 0
        go.set()
        deciding.join()
        assert other.get("/api/state").json["statuses"]["skipped"] == 1
        assert other.get("/api/changes?since=1").json == {"last": 1, "ids": [2]}


def test_lists_that_cannot_be_written_stay_marked_as_stale(place: tuple[Path, Path]) -> None:
    tried = threading.Event()

    class Full(Mender):
        def finish(self) -> Any:
            if tried.is_set():
                return super().finish()
            tried.set()
            raise OutputFailedError("no space left")

    with Review(opening(*place, mender=lambda: Full(*place)), rest=0.05) as review, served(review) as (_, browser):
        decide(browser, 1, "accept")
        assert tried.wait(5)
        assert browser.get("/api/state").json["stale"] is True
        assert browser.post("/api/finish", {}).status == 200
        assert browser.get("/api/state").json["stale"] is False


def test_images_prepared_before_the_page_opens(place: tuple[Path, Path]) -> None:
    class Model:
        name, reason, can, most = "a model", "it is here", frozenset({"embed"}), 3

        def make(self, items: list[Any], looked: Any) -> int:
            self.asked = [(key, load().pixels.shape) for key, load in items]
            assert looked(2)
            return len(items)

        def close(self) -> None:
            pass

    model, looked = Model(), []
    with Review(opening(*place, model=lambda settings: model)) as review:
        found = prepare_before(review, 500, lambda done, total: looked.append((done, total)) is None)
        assert found == "3 images prepared; no more than 3 are kept" and looked == [(2, 3)]
        assert [shape for _, shape in model.asked] == [(HEIGHT, WIDTH, 3)] * 3
        model.can, model.name = frozenset({"box"}), "GrabCut"
        assert prepare_before(review, 2, lambda done, total: True).startswith("nothing is there to prepare: GrabCut")
    with Review(opening(*place, readonly=True)) as review:
        assert "nothing was prepared" in prepare_before(review, 2, lambda done, total: True)
