"""What people decide is carried out as the run would have done it, and can be undone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layouts import HEIGHT, WIDTH
from mending import KEY, OTHER, THIRD, change, disc, made, outcomes, result, rows
from PIL import Image as pillow

from fgfast import convert
from fgfast.config import Settings
from fgfast.errors import OutputLockedError, OutputRefusedError, UsageError
from fgfast.io.decisions import Decision, Decisions
from fgfast.ops import rle_decode, rle_encode
from fgfast.pipeline.mending import Conflict, Mender, Refused
from fgfast.pipeline.verify import verify
from fgfast.records import Outcome, Size

WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "square crop": {"crop": "square", "pad": 0.1},
    "box crop in PNG": {"crop": "box", "format": "png"},
    "transparent": {"background": "transparent", "format": "webp", "masks": "rle"},
    "blurred, without masks": {"background": "blur", "masks": "none", "quality": 80},
}


@pytest.mark.parametrize("settings", WAYS.values(), ids=WAYS.keys())
def test_a_drawn_mask_gives_the_bytes_of_a_run_with_that_mask(settings: dict[str, Any], tmp_path: Path) -> None:
    out = made(tmp_path, **settings)
    bits = disc()
    masks = tmp_path / "masks"
    with Mender.open(out) as mender:
        (drawn,) = outcomes(mender.decide([change(verdict="mask", how="brush", bits=bits)], "ann"))
        assert (drawn.status, drawn.reasons, drawn.rle, drawn.area) == ("done", (), rle_encode(bits), bits.sum())
        assert mender.stale
        mender.finish()
        assert not mender.stale
        every = list(mender.output.ledger.outcomes())
    for outcome in every:
        assert outcome.rle is not None
        place = (masks / outcome.key).with_suffix(".png")
        place.parent.mkdir(parents=True, exist_ok=True)
        pillow.fromarray(rle_decode(outcome.rle, HEIGHT, WIDTH)).save(place)
    wanted = made(tmp_path, name="wanted", **{**settings, "segmenter": "annotations", "mask_dir": masks})
    assert result(out).keys() == result(wanted).keys()
    differ = [name for name, data in result(wanted).items() if result(out)[name] != data]
    assert not differ
    assert verify(out).intact


def test_decisions_and_their_undo_restore_every_byte(tmp_path: Path) -> None:
    out = made(tmp_path, crop="square")
    before, begun = result(out), rows(out)
    with Mender.open(out) as mender:
        mender.decide([change(), change(OTHER, "reject"), change(THIRD, "mask", bits=disc(30, 20))], "ann")
        mender.finish()
        assert result(out) != before
        assert [isinstance(a, Outcome) for a in mender.undo([1, 2, 3], "bob")] == [True] * 3
        mender.finish()
        assert result(out) == before
        assert rows(out) == begun
        # The undo is undone: all is as decided.
        mender.undo([4, 5, 6], "ann")
        assert [rows(out)[key][0] for key in (KEY, OTHER, THIRD)] == ["done", "skipped", "done"]
        assert rows(out)[THIRD][4] == rle_encode(disc(30, 20))
        mender.undo([7, 8, 9], "ann")
        mender.finish()
    assert result(out) == before
    assert rows(out) == begun
    with Decisions(out / "fgfast/decisions.sqlite") as decisions:
        assert [d.verdict for d in decisions.all()] == ["accept", "reject", "mask", *["undo"] * 9]
        assert all(d.done for d in decisions.all())
        assert decisions.in_force() == {}


def test_a_rejected_image_leaves_twin_lists_and_counts(tmp_path: Path) -> None:
    out = made(tmp_path, masks="png")
    with Mender.open(out) as mender:
        twin = mender.output.twin
        assert (twin / KEY).is_file()
        (outcome,) = outcomes(mender.decide([change(verdict="reject", cause="wrong subject", note="a nest")], "ann"))
        assert (outcome.status, outcome.reasons, outcome.detail) == ("skipped", ("rejected",), "rejected by a person")
        assert mender.left(KEY).sentence == "class 001.Auk has 1 image left, split train has 1 image left"
        assert not (twin / KEY).exists()
        report = mender.finish()
        assert report.counts["skipped"] == 1
        assert report.total == 4
        for name in ("images.txt", "bounding_boxes.txt", "parts/part_locs.txt"):
            assert len((twin / name).read_text().splitlines()) < len(
                (tmp_path / "data/cub/CUB_200_2011" / name).read_text().splitlines()
            )
        assert KEY not in (out / "fgfast/instances.json").read_text()
        (again,) = outcomes(mender.decide([change(seen=1)], "ann"))
        assert again.status == "done"
        assert (twin / KEY).is_file()
    assert not list(out.rglob("*.part"))


def test_what_was_decided_is_on_record(tmp_path: Path) -> None:
    out = made(tmp_path)
    with Mender.open(out) as mender:
        box = np.array([3, 4, 40, 30], np.float32)
        given = change(verdict="mask", how="box", bits=disc(), box=box, cause="subject incomplete", note="tail")
        mender.decide([given], "ann")
        decision = mender.decisions.get(1)
        current = mender.output.ledger.outcome_of(KEY)
    assert decision is not None and decision.was is not None and current is not None and current.source is not None
    assert (decision.who, decision.how, decision.cause, decision.note) == ("ann", "box", "subject incomplete", "tail")
    assert (decision.source, decision.size) == (current.source.sha256, current.size)
    assert decision.before != decision.after == current.rle
    assert np.array_equal(decision.box, box) and np.array_equal(current.box, box)
    assert current.box_reason == "drawn by a person"
    assert decision.before == decision.was.rle
    assert decision.done


def test_two_tabs_nothing_is_lost(tmp_path: Path) -> None:
    out = made(tmp_path)
    with Mender.open(out) as mender:
        mender.decide([change()], "first tab")
        (conflict,) = mender.decide([change(verdict="mask", bits=disc())], "second tab")
        assert isinstance(conflict, Conflict)
        assert (conflict.now.number, conflict.now.who, conflict.seen) == (1, "first tab", 0)
        assert mender.decisions.last() == 1
        outcomes(mender.decide([change(verdict="mask", bits=disc(), seen=1)], "second tab"))
        # The first tab undoes what it did, which is no longer what holds.
        (conflict,) = mender.undo([1], "first tab")
        assert isinstance(conflict, Conflict) and conflict.now.number == 2
        # Others of a batch are carried out.
        answers = mender.decide([change(seen=1), change(OTHER, "reject")], "first tab")
        assert [type(a) for a in answers] == [Conflict, Outcome]
        mender.undo([2], "second tab")
        assert rows(out)[KEY][0] == "done"
        mender.undo([1], "first tab")
        (conflict,) = mender.undo([1], "first tab")
        assert isinstance(conflict, Conflict)


def test_what_cannot_be_is_refused_and_not_stored(tmp_path: Path) -> None:
    out = made(tmp_path)
    far = np.array([100, 100, 200, 200], np.float32)
    with Mender.open(out) as mender:
        for wrong, why in (
            (change("images/none.jpg"), "no such image"),
            (change(verdict="mask", bits=np.zeros((HEIGHT, WIDTH), np.bool_)), "empty"),
            (change(verdict="mask", bits=np.ones((5, 5), np.bool_)), "5 x 5 pixels"),
            (change(verdict="mask", bits=disc(), box=far), "no pixel"),
            (change(seen=7), "no decision 7"),
            (change(note="x" * 20_000), "too long"),
        ):
            (answer,) = mender.decide([wrong], "ann")
            assert isinstance(answer, Refused) and why in answer.reason
        for raises in (
            lambda: change(verdict="perhaps"),
            lambda: change(cause="bad luck"),
            lambda: change(verdict="mask"),
            lambda: change(bits=disc()),
            lambda: mender.decide([change(), change()], "ann"),
            lambda: mender.undo([1], "ann"),
        ):
            with pytest.raises(UsageError):
                raises()
        assert mender.decisions.last() == 0
        assert not mender.stale
    assert not list(out.rglob("*.part"))


def test_another_source_is_not_decided_with_the_old_mask(tmp_path: Path) -> None:
    out = made(tmp_path)
    root = tmp_path / "data/cub/CUB_200_2011"
    with Mender.open(out) as mender:
        mender.decide([change(verdict="mask", bits=disc()), change(OTHER)], "ann")
        mender.finish()
    before = result(out)
    kept = (root / KEY).read_bytes()
    (root / KEY).write_bytes((root / OTHER).read_bytes())
    with Mender.open(out) as mender:
        (refused,) = mender.undo([1], "ann")
        assert isinstance(refused, Refused) and "another one" in refused.reason
        (refused,) = mender.decide([change(verdict="mask", bits=disc(22), seen=1)], "ann")
        assert isinstance(refused, Refused)
        outcomes(mender.undo([2], "ann"))  # which needs no pixel
        (root / KEY).unlink()
        (refused,) = mender.undo([1], "ann")
        assert isinstance(refused, Refused) and "Auk_0001" in refused.reason
        (root / KEY).write_bytes(kept)
        outcomes(mender.undo([1], "ann"))
        mender.finish()
    assert result(out).keys() == before.keys()


def test_decisions_survive_a_resume_of_the_run(tmp_path: Path) -> None:
    out = made(tmp_path)
    with Mender.open(out) as mender:
        mender.decide([change(verdict="mask", bits=disc()), change(OTHER, "reject")], "ann")
        assert mender.stale
    decided = rows(out)
    assert not verify(out).intact
    made(tmp_path)  # the same command; it writes the lists anew
    assert rows(out) == decided
    assert verify(out).intact
    with Mender.open(out) as mender:
        assert not mender.stale


def test_one_writer_and_only_runs(tmp_path: Path) -> None:
    out = made(tmp_path)
    with Mender.open(out), pytest.raises(OutputLockedError):
        Mender.open(out)
    with pytest.raises(OutputRefusedError, match="no run"):
        Mender.open(tmp_path)
    (tmp_path / "data/cub").rename(tmp_path / "data/moved")
    with pytest.raises(UsageError, match="--root"):
        Mender.open(out)
    with Mender.open(out, tmp_path / "data/moved") as mender:
        outcomes(mender.decide([change(verdict="mask", bits=disc())], "ann"))
        mender.finish()
        assert replace(mender.plan).describe()["root"].endswith("moved/CUB_200_2011")


def test_the_banner_is_never_subject(tmp_path: Path) -> None:
    out = made(tmp_path, "aircraft")
    with Mender.open(out) as mender:
        sample = mender.plan.dataset.samples[0]
        assert sample.banner_rows
        everything = np.ones((HEIGHT, WIDTH), np.bool_)
        (outcome,) = outcomes(mender.decide([change(sample.key, "mask", bits=everything)], "ann"))
    assert outcome.area == (HEIGHT - sample.banner_rows) * WIDTH


def test_a_thread_of_its_own_can_open_it_and_decide_in_batches(tmp_path: Path) -> None:
    out = made(tmp_path)

    def review() -> list[Any]:
        with Mender.open(out) as mender:
            keys = sorted(mender.output.ledger.labels())
            batch = [change(key, "mask", bits=disc(18 + n)) for n, key in enumerate(keys)]
            return [*mender.decide(batch, "ann"), *mender.undo([1, 2], "ann"), mender.finish()]

    with ThreadPoolExecutor(1) as pool:
        *answers, report = pool.submit(review).result()
    assert len(outcomes(answers)) == 6
    assert report.counts["done"] == 4
    assert verify(out).intact


def test_a_strangers_decisions_that_cannot_be_carried_out_are_named_and_stop_nothing(tmp_path: Path) -> None:
    out = made(tmp_path)
    with Mender.open(out) as mender:
        was = mender.output.ledger.outcome_of(KEY)
    assert was is not None and was.source is not None and was.size is not None
    before = result(out)
    mask = Decision(
        KEY,
        "mask",
        "brush",
        "eve",
        "2026-12-01T00:00:00Z",
        0,
        source=was.source.sha256,
        size=was.size,
        box=was.box,
        before=was.rle,
        after=b"not a mask",
        was=replace(was, files={}, id=None),
    )
    with Decisions(out / "fgfast/decisions.sqlite", write=True) as decisions:
        other = replace(mask, key=OTHER, after=rle_encode(np.ones((5, 5), np.bool_)), size=Size(5, 5), source=b"")
        decisions.append([mask, replace(other, was=None), replace(mask, key="images/images/x.jpg")])
    with Mender.open(out) as mender:
        assert {problem.key for problem in mender.problems} == {KEY, "images/images/x.jpg"}
        assert any("is none" in problem.reason for problem in mender.problems)
        (conflict,) = mender.decide([change()], "ann")
        assert isinstance(conflict, Conflict)
        outcomes(mender.decide([change(seen=1)], "ann"))
        mender.finish()
    assert result(out) == before


def test_accept_and_reject_need_no_background(tmp_path: Path) -> None:
    """The image behind the subjects is gone: nothing can be drawn on it, but a person can still judge."""
    wall = tmp_path / "wall.png"
    pillow.new("RGB", (WIDTH, HEIGHT), (9, 99, 9)).save(wall)
    out = made(tmp_path, background=str(wall))
    wall.rename(tmp_path / "moved.png")
    before = result(out)
    with Mender.open(out) as mender:
        accepted, rejected = outcomes(mender.decide([change(), change(OTHER, "reject")], "ann"))
        assert (accepted.status, rejected.status) == ("done", "skipped")
        drawn = change(THIRD, "mask", bits=disc(30, 20))
        (refused,) = mender.decide([drawn], "ann")
        assert isinstance(refused, Refused) and "wall.png" in refused.reason
        (undone,) = mender.undo([2], "ann")
        assert isinstance(undone, Refused)
        mender.finish()
        assert mender.decisions.last() == 2
    assert verify(out).intact
    (tmp_path / "moved.png").rename(wall)
    with Mender.open(out) as mender:
        outcomes(mender.undo([1, 2], "ann"))
        outcomes(mender.decide([drawn], "ann"))
        mender.undo([5], "ann")
        mender.finish()
    assert result(out) == before


def test_a_changed_data_set_does_not_lead_to_another_images_file(tmp_path: Path) -> None:
    """Names depend on the data set: without a.png, a.jpg would be written as what is a.png's."""
    source, out = tmp_path / "src/c", tmp_path / "out"
    source.mkdir(parents=True)
    for name, level in (("a.jpg", 40), ("a.png", 200)):
        pillow.new("RGB", (WIDTH, HEIGHT), (level,) * 3).save(source / name)
    convert(tmp_path / "src", out, settings=Settings(segmenter="box", format="png", devices="cpu"), in_process=True)
    (source / "a.png").unlink()
    before = result(out)
    drawn = change("c/a.jpg", "mask", bits=disc())
    with Mender.open(out) as mender:
        (refused,) = mender.decide([drawn], "ann")
        assert isinstance(refused, Refused) and "c/a.png" in refused.reason
        assert mender.decisions.last() == 0
        outcomes(mender.decide([change("c/a.jpg")], "ann"))
    assert result(out) == before
    assert not verify(out).damaged
