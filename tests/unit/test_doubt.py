"""One doubt from many numbers: sure flags first, no flag's sign turned round, the most doubtful of a run flagged."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgfast.cli import main
from fgfast.config import Settings
from fgfast.errors import OutputRefusedError, UsageError
from fgfast.io.ledger import Ledger
from fgfast.io.ledger_doubt import ranked
from fgfast.ops import doubt as doubts
from fgfast.ops.doubt import BUILT_IN, SENTENCES, SURE, Family, Term, Weights, built_in, doubt, family_name
from fgfast.ops.truth import box_distance, keypoints_outside, mask_distance, sides_off
from fgfast.pipeline.flagging import NO_FLAG, flag_doubtful, flagging_of
from fgfast.records import Outcome, Sample, Size
from fgfast.review.outliers import LEAST, NAME, unlike

WEIGHTS = Weights({"grabcut": Family(-4.0, {"box gap": Term(0.3, 0.05, 1.0), "fill": Term(0.1, 0.1, 0.5)}, "a test")})


def test_a_high_number_raises_the_doubt_and_its_flag_has_a_sentence() -> None:
    low, high = doubt({"box gap": 0.09}, WEIGHTS), doubt({"box gap": 0.25, "fill": 0.62}, WEIGHTS)
    assert 0 < low.value < high.value < SURE
    assert low.flags == ()  # as in right results on average
    assert doubt({"box gap": 0.0}, WEIGHTS).value == low.value  # better than those is no merit
    (flag,) = high.flags
    assert (flag.name, flag.number) == ("box gap", 0.25)
    assert flag.share == pytest.approx((math.sqrt(0.25) - 0.3) / 0.05 - doubts.ORDINARY)
    assert flag.sentence.endswith(".")


def test_too_little_and_too_much_of_the_box_are_both_doubtful() -> None:
    usual, little, much = (doubt({"fill": fill}, WEIGHTS).value for fill in (0.62, 0.2, 1.0))
    assert usual < little
    assert usual < much


@pytest.mark.parametrize(
    "numbers",
    [
        {"empty": 0.0},
        {"no box": 1.0},
        {"not detected": 1.0},
        {"far from the annotated box": 0.5, "box gap": 0.0},
        {"far from the official mask": 0.6},
    ],
)
def test_a_sure_flag_comes_before_all_others(numbers: dict[str, float]) -> None:
    sure, worst = doubt(numbers, WEIGHTS), doubt(dict.fromkeys(SENTENCES, 1.0) | {"box gap": 9.0}, WEIGHTS)
    assert sure.value >= SURE
    assert math.isinf(sure.flags[0].share)
    assert worst.value <= 1
    without = {name: 1e6 for name in SENTENCES if not doubts.sure(name, 1e6)}
    assert doubt(without, WEIGHTS).value <= SURE


def test_nothing_known_is_no_doubt_and_what_is_no_number_is_passed_over() -> None:
    assert doubt({}) == doubt({"some rule": 1.0, "box gap": math.nan}) == doubts.Doubt(0.0, ())
    assert not doubts.says_something({"some rule": 1.0, "parts": 9.0}, WEIGHTS)
    assert doubts.says_something({"fill": 0.5}, WEIGHTS)
    assert doubts.says_something({"empty": 0.0}, WEIGHTS)


def test_the_numbers_tell_the_family() -> None:
    assert family_name({"box gap": 0.1}) == "grabcut"
    assert family_name({"low quality": 0.1, "far from the annotated box": 0.1}) == "sam, box known"
    assert family_name({"unstable box": 0.1}) == "grabcut, second look"


def test_the_built_in_weights_turn_no_sign_round() -> None:
    families = built_in().families
    assert all(term.weight >= 0 for family in families.values() for term in family.terms.values())
    for name, family in families.items():
        base = {flag: term.mean for flag, term in family.terms.items() if flag != "fill"}
        before = sum(family.terms[flag].share(number) for flag, number in base.items())
        for flag, number in base.items():
            after = {**base, flag: number + 10 * family.terms[flag].deviation}
            assert sum(family.terms[f].share(n) for f, n in after.items()) >= before, (name, flag)
        assert family.reason


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(version=99),
        lambda c: c.pop("families"),
        lambda c: c["families"]["grabcut"]["terms"]["box gap"].update(weight=-0.1),
        lambda c: c["families"]["grabcut"]["terms"]["box gap"].update(deviation=0),
        lambda c: c["families"]["grabcut"]["terms"]["box gap"].update(mean=math.nan),
        lambda c: c["families"]["grabcut"]["terms"]["box gap"].update(ordinary=doubts.HIGHEST),
        lambda c: c["families"]["grabcut"]["terms"]["box gap"].update(ordinary=math.nan),
        lambda c: c["families"]["grabcut"]["terms"].update(nonsense={"mean": 0, "deviation": 1, "weight": 1}),
        lambda c: c["families"].update(grabcut=[]),
    ],
)
def test_a_file_of_weights_that_is_none_is_refused(tmp_path: Path, change: object) -> None:
    term = {"mean": 0.1, "deviation": 0.1, "weight": 1.0}
    content = {
        "version": doubts.VERSION,
        "families": {"grabcut": {"intercept": 0, "reason": "", "terms": {"box gap": term}}},
    }
    file = tmp_path / "weights.json"
    file.write_text(json.dumps(content))
    for version in (2, doubts.VERSION):  # of outputs made before numbers said from where they count
        file.write_text(json.dumps({**content, "version": version}))
        assert Weights.load(file).families["grabcut"].terms["box gap"] == Term(0.1, 0.1, 1.0, doubts.ORDINARY)
    change(content)  # type: ignore[operator]
    file.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"weights\.json"):
        Weights.load(file)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"\xff\xfe", b"[]", b"[" * 100_000):
        (tmp_path / "w.json").write_bytes(content)
        with pytest.raises(UsageError):
            Weights.load(tmp_path / "w.json")
    with pytest.raises(UsageError, match="cannot be read"):
        Weights.load(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("given", "shown"), [("5%", "5%"), (0.05, "5%"), ("0.125", "12.5%"), (1, "100%"), ("0%", "0%")]
)
def test_the_flag_rate_is_a_share(given: object, shown: str) -> None:
    settings = Settings(flag_rate=given)  # type: ignore[arg-type]
    assert settings.flag_rate == shown
    assert settings.flag_share == pytest.approx(float(shown[:-1]) / 100)


@pytest.mark.parametrize("given", ["", "five", "-1%", "101%", 2, True, "nan", None])
def test_what_is_no_share_is_refused(given: object) -> None:
    with pytest.raises(UsageError, match="flag-rate"):
        Settings(flag_rate=given)  # type: ignore[arg-type]


def test_rules_have_no_rate() -> None:
    with pytest.raises(UsageError, match="flag-rate 10% has no effect with flags rules"):
        Settings(flags="rules", flag_rate="10%")


def outcome(key: str, doubt: float | None, **more: object) -> Outcome:
    fields = {"status": "done", "numbers": {"box gap": 0.5}, "reasons": (), **more}
    return Outcome(
        key=key,
        stage="write",
        twin=None if fields["status"] in ("skipped", "failed") else key,
        size=Size(30, 40),
        twin_size=Size(30, 40),
        box=np.array([0, 0, 40, 30], np.float32),
        area=300,
        rle=b"0",
        doubt=doubt,
        **fields,  # type: ignore[arg-type]
    )


def filled(path: Path, outcomes: list[Outcome], settings: Settings, meta: object = None) -> Ledger:
    ledger = Ledger(path / "ledger.sqlite")
    ledger.register((n, Sample(o.key, path / o.key, label="auk")) for n, o in enumerate(outcomes))
    ledger.record(outcomes)
    ledger.set_meta({"flagging": flagging_of(settings) if meta is None else meta})
    return ledger


def statuses(ledger: Ledger) -> dict[str, str]:
    return {o.key: o.status for o in ledger.outcomes()}


def test_the_most_doubtful_of_a_run_are_flagged_and_the_others_are_done(tmp_path: Path) -> None:
    rows = [outcome(f"{n:02}.png", n / 100) for n in range(40)]
    rows[3] = replace(rows[3], status="flagged", reasons=("short of the box",))
    with filled(tmp_path, rows, Settings(flag_rate="10%", flag_least=0)) as ledger:
        flag_doubtful(ledger)
        first = list(ledger.outcomes())
        assert [o.key for o in first if o.status == "flagged"] == [f"{n}.png" for n in range(36, 40)]
        assert all(o.reasons for o in first if o.status == "flagged")
        assert first[3].reasons == ()
        flag_doubtful(ledger)
        assert [(o.status, o.reasons) for o in ledger.outcomes()] == [(o.status, o.reasons) for o in first]


@pytest.mark.parametrize(
    ("results", "given", "flagged"),
    [
        *((48, {}, 10), (7, {}, 7), (1, {}, 1), (200, {}, 10), (260, {}, 13), (48, {"flag_least": 0}, 2)),
        *((48, {"flag_least": 3}, 3), (48, {"flag_rate": "50%"}, 24), (48, {"flag_rate": "0%"}, 0)),
    ],
)
def test_a_small_run_has_at_least_some_flags(results: int, given: dict[str, Any], flagged: int, tmp_path: Path) -> None:
    rows = [outcome(f"{n:03}.png", n / 1000) for n in range(results)]
    with filled(tmp_path, rows, Settings(**given)) as ledger:
        flag_doubtful(ledger)
        keys = [o.key for o in ledger.outcomes() if o.status == "flagged"]
        assert keys == [f"{n:03}.png" for n in range(results - flagged, results)]
        flag_doubtful(ledger)
        assert [o.key for o in ledger.outcomes() if o.status == "flagged"] == keys


@pytest.mark.parametrize("least", [None, "10", True, -4])
def test_a_run_without_a_least_number_has_its_share(least: object, tmp_path: Path) -> None:
    rows = [outcome(f"{n:03}.png", n / 1000) for n in range(40)]
    meta = {**flagging_of(Settings(flag_rate="10%")), "least": least}
    with filled(tmp_path, rows, Settings(), meta if least is not None else {**meta, "least": None}) as ledger:
        flag_doubtful(ledger)
        assert sum(o.status == "flagged" for o in ledger.outcomes()) == 4


@pytest.mark.parametrize("given", [{"flags": "rules"}, {"flag_rate": "0%"}])
def test_a_least_number_without_effect_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="flag-least 5 has no effect with flag"):
        Settings(flag_least=5, **given)
    Settings(**given)


def test_what_is_surely_wrong_is_flagged_however_small_the_share(tmp_path: Path) -> None:
    rows = [outcome("a.png", 0.995, numbers={"empty": 0.0}), outcome("b.png", 0.2), outcome("c.png", None)]
    with filled(tmp_path, rows, Settings(flag_rate="0%")) as ledger:
        flag_doubtful(ledger)
        found = list(ledger.outcomes())
    assert [(o.status, o.reasons) for o in found] == [("flagged", ("empty",)), ("done", ()), ("done", ())]


def test_equally_doubtful_ones_are_taken_in_order_and_without_a_flag_there_is_a_reason(tmp_path: Path) -> None:
    rows = [outcome(f"{n}.png", 0.5, numbers={"box gap": 0.0}) for n in range(4)]
    with filled(tmp_path, rows, Settings(flag_rate="50%", flag_least=0)) as ledger:
        flag_doubtful(ledger)
        assert statuses(ledger) == {"0.png": "flagged", "1.png": "flagged", "2.png": "done", "3.png": "done"}
        assert next(iter(ledger.outcomes())).reasons == (NO_FLAG,)


def test_what_a_person_decided_keeps_its_status(tmp_path: Path) -> None:
    rows = [outcome("a.png", 0.9), outcome("b.png", 0.8, status="skipped"), outcome("c.png", 0.1)]
    with filled(tmp_path, rows, Settings(flag_rate="100%")) as ledger:
        flag_doubtful(ledger, decided={"a.png"})
        assert statuses(ledger) == {"a.png": "done", "b.png": "skipped", "c.png": "flagged"}


def test_rules_and_results_without_doubt_stay_as_they_are(tmp_path: Path) -> None:
    rows = [outcome("a.png", 0.999), outcome("b.png", None, status="flagged", reasons=("full",))]
    with filled(tmp_path, rows, Settings(flags="rules")) as ledger:
        flag_doubtful(ledger)
        assert statuses(ledger) == {"a.png": "done", "b.png": "flagged"}
    (tmp_path / "two").mkdir()
    with filled(tmp_path / "two", rows, Settings()) as ledger:
        flag_doubtful(ledger)
        assert statuses(ledger) == {"a.png": "flagged", "b.png": "flagged"}


def test_a_ledger_of_anybody_is_refused_where_it_is_damaged(tmp_path: Path) -> None:
    bad = {"flags": "doubt", "share": 0.5, "weights": {"version": 7}}
    with filled(tmp_path, [outcome("a.png", 0.5)], Settings(), meta=bad) as ledger:
        with pytest.raises(OutputRefusedError):
            flag_doubtful(ledger)
        ledger._db.execute("UPDATE outcomes SET doubt = 7.5")
        with pytest.raises(OutputRefusedError):
            ranked(ledger)


def test_a_mask_far_from_the_nearest_annotated_box() -> None:
    bits = np.zeros((60, 80), np.bool_)
    assert box_distance(bits, np.array([[0, 0, 10, 10]], np.float32)) == 1
    bits[10:30, 20:40] = True
    boxes = np.array([[0, 0, 5, 5], [20, 10, 40, 30]], np.float32)
    assert box_distance(bits, boxes) == 0
    assert box_distance(bits, np.array([20, 10, 40, 50], np.float32)) == pytest.approx(0.5)
    assert box_distance(bits, np.array([9, 9, 9, 9], np.float32)) == 1


def test_the_sides_of_a_mask_beyond_and_short_of_the_nearest_annotated_box() -> None:
    bits = np.zeros((60, 80), np.bool_)
    assert sides_off(bits, np.array([0, 0, 10, 10], np.float32)) == (0, 1)
    bits[10:30, 20:40] = True
    assert sides_off(bits, np.array([[0, 0, 5, 5], [20, 10, 40, 30]], np.float32)) == (0, 0)
    assert sides_off(bits, np.array([20, 10, 40, 50], np.float32)) == pytest.approx((0, 0.5))
    assert sides_off(bits, np.array([25, 10, 45, 30], np.float32)) == pytest.approx((0.25, 0.25))
    beyond, short = sides_off(bits, np.array([30, 20, 30, 20], np.float32))  # a box without an area
    assert beyond >= 10
    assert short == 0


def test_a_mask_far_from_the_official_one() -> None:
    bits, official = np.zeros((10, 10), np.bool_), np.zeros((10, 10), np.bool_)
    assert mask_distance(bits, official) == 1
    bits[:5], official[:4] = True, True
    assert mask_distance(bits, official) == pytest.approx(0.2)
    assert mask_distance(bits, ~bits) == 1


def test_keypoints_outside_the_mask() -> None:
    bits = np.zeros((60, 80), np.bool_)
    bits[10:30, 20:40] = True
    points = np.array([[25, 15], [41, 15], [70, 50], [-5, 3], [999, 3]], np.float32)  # in, at the outline, out, off
    assert keypoints_outside(bits, points) == pytest.approx(1 / 3)
    assert keypoints_outside(bits, points[3:]) is None
    assert keypoints_outside(np.zeros_like(bits), points[:1]) == 1
    assert keypoints_outside(bits, np.zeros((0, 2), np.float32)) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"area": 3}, "unusually little of"),
        ({"area": 1200}, "unusually much of"),
        ({"box": np.array([0, 0, 40, 3], np.float32), "area": 30}, "unusually wide"),
    ],
)
def test_an_outlier_is_one_within_its_class_and_a_small_class_has_none(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    usual = [replace(outcome(f"{n}.png", 0.1), area=300 + n) for n in range(LEAST)]
    odd = replace(outcome("odd.png", 0.1), **change)  # type: ignore[arg-type]
    nothing = [replace(outcome("box.png", 0.1), box=None), outcome("x.png", None, status="failed")]
    with filled(tmp_path, [*usual, odd, *nothing], Settings()) as ledger:
        ((number, flag),) = unlike(ledger).items()
        found = ledger.outcome(number)
        assert found is not None and found.key == "odd.png"
        assert flag.name == NAME and flag.number >= 3.5 and flag.share == 0
        assert said in flag.sentence
        assert unlike(ledger, lambda: True) == {}
    (tmp_path / "two").mkdir()
    with filled(tmp_path / "two", [*usual[: LEAST - 2], odd], Settings()) as ledger:
        assert unlike(ledger) == {}
        ledger._db.execute("UPDATE outcomes SET area = 'much'")
        with pytest.raises(OutputRefusedError):
            unlike(ledger)


def test_the_built_in_file_is_of_this_version() -> None:
    assert json.loads(BUILT_IN.read_text())["version"] == doubts.VERSION
    assert "review" in main.commands
