"""`fgfast quality`: masks against official ones."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from layouts import make_image
from PIL import Image as Pillow

import fgfast
from fgfast import ops
from fgfast.cli import main
from fgfast.config import Settings
from fgfast.errors import UsageError
from fgfast.io.decisions import Decision, Decisions
from fgfast.io.ledger import Ledger
from fgfast.review.quality import Agreement, averages, found_within, measure, risk_coverage

SIDE = 40


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def square(x: int, side: int = 20) -> np.ndarray:
    bits = np.zeros((SIDE, SIDE), np.bool_)
    bits[10 : 10 + side, x : x + side] = True
    return bits


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, Path]:
    """The output of a run on four images with doubts 0.1 to 0.4, and a folder of their official masks.

    The box of each is x 10..30; the official masks are shifted by 0, 2, 10 and 10 px.
    """
    source, truth = tmp_path / "in", tmp_path / "truth"
    (source / "a").mkdir(parents=True)
    (truth / "a").mkdir(parents=True)
    for n, shift in enumerate((0, 2, 10, 10)):
        make_image(source / f"a/{n}.png", n, (SIDE, SIDE))
        Pillow.fromarray(square(10 + shift)).save(truth / f"a/{n}.png")
    fgfast.convert(source, tmp_path / "out", settings=Settings(detector="center", segmenter="box"))
    with Ledger(tmp_path / "out/fgfast/ledger.sqlite") as ledger:
        rows = [
            replace(o, doubt=0.1 * (n + 1), rle=ops.rle_encode(square(10)), area=400)
            for n, o in enumerate(ledger.outcomes())
        ]
        ledger.record(rows)
    return tmp_path / "out", truth


def test_masks_are_compared_and_wrong_ones_are_searched_for_by_doubt(run: tuple[Path, Path]) -> None:
    out, truth = run
    found = measure(out, truth)
    assert [one.key for one in found.judged] == [f"a/{n}.png" for n in range(4)] and not found.missing
    ious = [one.before.iou for one in found.judged if one.before]
    assert ious == pytest.approx([1, 18 / 22, 1 / 3, 1 / 3])
    assert found.before is not None and found.before.wrong == 0.5 and found.before.masks == 4
    assert found.after == found.before
    within = found_within([(one.doubt or 0, one.before.iou) for one in found.judged if one.before], (0.25, 0.5))
    assert within == {0.25: 0.5, 0.5: 1.0}
    coverage, risk = found.curve()
    assert coverage == [0.25, 0.5, 0.75, 1.0] and risk == sorted(risk)


def test_before_is_what_the_run_made_and_after_is_what_people_decided(run: tuple[Path, Path]) -> None:
    out, truth = run
    size = fgfast.records.Size(SIDE, SIDE)
    common = {"who": "me", "when": "2026-12-01T00:00:00Z", "seen": 0, "size": size, "source": bytes(32)}
    box = np.array([20, 10, 40, 30], np.float32)
    first, mended = ops.rle_encode(square(10)), ops.rle_encode(square(20))
    with Decisions(out / "fgfast/decisions.sqlite", write=True) as decisions:
        decisions.append(
            [
                Decision("a/2.png", "mask", "brush", **common, before=first, after=mended, box=box),
                Decision("a/3.png", "reject", "reject", **common, before=first),
                Decision("a/0.png", "accept", "accept", **common, before=first),
            ]
        )
    with Ledger(out / "fgfast/ledger.sqlite") as ledger:
        rows = {o.key: o for o in ledger.outcomes()}
        ledger.record([replace(rows["a/2.png"], rle=mended)])
        gone = replace(rows["a/3.png"], status="skipped", twin=None, twin_size=None, reasons=("rejected",), rle=None)
        ledger.record([gone])
    found = {one.key: one for one in measure(out, truth).judged}
    assert found["a/2.png"].before != found["a/2.png"].after
    assert found["a/2.png"].after == Agreement(1.0, 1.0)
    assert found["a/3.png"].after is None and found["a/3.png"].before is not None
    assert [found[f"a/{n}.png"].verdict for n in range(4)] == ["accept", "", "mask", "reject"]


def test_an_official_mask_that_cannot_be_used_is_named(run: tuple[Path, Path]) -> None:
    out, truth = run
    (truth / "a/1.png").unlink()
    Pillow.new("L", (9, 9), 255).save(truth / "a/2.png")
    found = measure(out, truth)
    assert [one.key for one in found.missing] == ["a/1.png", "a/2.png"] and "9x9" in found.missing[1].detail
    with pytest.raises(UsageError, match="--truth"):
        measure(out)  # the data set brings none


def test_the_command_prints_writes_and_draws(run: tuple[Path, Path], tmp_path: Path) -> None:
    out, truth = run
    table, plot = tmp_path / "q.csv", tmp_path / "q.svg"
    result = command("quality", out, "--truth", truth, "--csv", table, "--plot", plot)
    assert result.exit_code == 0, result.output
    assert "4 images compared" in result.output and "as the run made them" in result.output
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    assert [row["key"] for row in rows] == [f"a/{n}.png" for n in range(4)]
    assert float(rows[0]["iou_before"]) == 1 and rows[0]["doubt"] == "0.1"
    assert plot.read_text(encoding="utf-8").startswith("<?xml")
    facts = json.loads(command("quality", out, "--truth", truth, "--json").stdout)
    assert facts["before"]["wrong"] == 0.5 and len(facts["images"]) == 4


def test_a_figure_of_another_kind_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    result = command("quality", tmp_path / "none", "--plot", tmp_path / "q.txt")
    assert result.exit_code == 2 and "--plot" in result.output


def test_masks_of_one_doubt_share_their_places() -> None:
    pairs = [(0.5, 0.1), (0.5, 0.9), (0.5, 0.1), (0.5, 0.9)]
    assert found_within(pairs, (0.5,)) == {0.5: 0.5}
    assert found_within([(0.1, 0.9)]) is None


def test_nothing_has_no_averages_and_no_curve() -> None:
    assert averages([]) is None and risk_coverage([]) == ([], [])
