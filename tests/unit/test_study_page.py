"""Tables, plots and the page of a study, from random predictions."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("statsmodels")
pytest.importorskip("matplotlib")

from study_numbers import NOTICE, study

from fgfast.errors import DatasetError, UsageError
from fgfast.studies import findings, kept_tables, page, plots, results, tables
from fgfast.studies.cell import Cell, Strategy
from fgfast.studies.figures import Estimate
from fgfast.studies.masking_study import by_size
from fgfast.studies.predictions import Predictions
from fgfast.studies.stored import cell_of, keep, understood
from fgfast.studies.waterbirds import Groups
from fgfast.writing import Target

PIXEL = "data:image/png;base64,iVBORw0KGgo="
HOSTILE = '</td><script>alert(1)</script> & "$x_1" \x00\x1b]0;\udcff 50% {{body}}'


def test_a_study_has_rows_of_trainings() -> None:
    some = study()
    assert [len(row.trained) for row in some.rows] == [3] * 4
    assert some.arms == ("x", "x_fg", "mixed-same", "mixed-rand", "only-bg")
    with pytest.raises(UsageError, match="two trainings are of one cell"):
        _ = replace(some, trained=(*some.trained, some.trained[0])).rows


def test_the_verdict_comes_from_the_figures() -> None:
    some = study()
    row = some.rows[0]
    found = row.minus("x", "x_fg")
    assert found is not None and found.images.low is not None and found.images.high is not None
    said = dict(page.verdict(some))
    start = "resnet50, recipe quick, trained on x: accuracy falls by "
    low, high = found.images.low, found.images.high
    sentence = f"{start}{100 * found.value:.0f} points ({100 * low:.0f} to {100 * high:.0f}) from X to X_FG."
    assert said[sentence] == "Holds over images and over 3 trainings."
    assert "(BG-gap)" in page.verdict(some)[0][0]  # it leads


def test_two_trainings_are_too_few() -> None:
    some = study(seeds=(0, 1))
    assert all("Too few runs: 2 trainings" in sure for _, sure in page.verdict(some))
    assert not any(estimate.sure for row in tables.accuracies(some).rows for estimate in row[3:] if estimate)
    assert {one.judgement for one in findings.findings([some])} == {"too few runs"}
    text = page.page(some, page.made(some), {}).decode()
    assert "2 of the 3 trainings that an interval needs" in text


def test_tables_are_ours_beside_the_papers() -> None:
    table = tables.accuracies(study(), {("resnet50", "x", "x"): 85.5})
    at = table.heads.index("x, paper")
    ours = table.rows[0][at - 1]
    assert isinstance(ours, Estimate) and table.rows[0][at] == 0.855
    assert table.rows[0][at + 1] == pytest.approx(ours.value - 0.855)
    assert table.rows[1][at : at + 2] == (None, None)  # unknown: a dash, no guess
    rows = list(csv.DictReader(io.StringIO(table.csv().decode())))
    assert float(rows[0]["x"]) == ours.value and float(rows[0]["x, low"]) == ours.low and rows[0]["x, count"] == "3"
    assert rows[1]["x, paper"] == ""


def test_latex_holds_no_command_of_a_name() -> None:
    hostile = r"\input{x} 50% a_b & $c$ #1 ^~" + "\n\\end{tabular}"
    text = tables.Table("t", "title\n\\input{y}", ("head_1",), ((hostile,), (0.5,))).latex()
    assert r"\textbackslash{}input\{x\} 50\% a\_b \& \$c\$ \#1 \textasciicircum{}\textasciitilde{}" in text
    assert text.count(r"\end{tabular}") == 1 and text.startswith("% title \\input{y}\n") and r"head\_1" in text


def test_who_loses_most_comes_first() -> None:
    row = study().rows[0]
    table = tables.lost_classes(row, study().classes)
    changes = [values[4] for values in table.rows]
    assert changes == sorted(changes) and len(changes) == 8 and changes[0] < 0


def test_the_gallery_is_right_on_x_and_wrong_on_x_fg() -> None:
    row = study().rows[0]
    keys = results.gallery_keys(row, 10)
    assert len(keys) == 10
    right, wrong = ([row.of(arm)[seed].ordered(keys).correct for seed in range(3)] for arm in ("x", "x_fg"))
    assert (np.sum([a & ~b for a, b in zip(right, wrong, strict=True)], axis=0) >= 2).all()
    labels = row.of("x")[0].ordered(keys[:8]).labels
    assert len(set(labels.tolist())) == 8  # each class in turn


def test_findings_hold_or_do_not() -> None:
    found = {(one.claim[:6], one.row.partition(",")[0]): one.judgement for one in findings.findings([study()])}
    vit = "vit_base_patch16_224"
    assert found[("A mode", vit)] == "does not hold"  # the third, of the same beginning: 99 on X_FG, 90 on X
    assert found[("Traini", "resnet50")] == "holds" and ("A ViT ", "resnet50") not in found
    assert found[("A ViT ", vit)] in ("undecided", "does not hold", "holds")


@pytest.mark.parametrize(
    ("figure", "judged"),
    [
        (Estimate(0.01, 0.0, 0.02, 3), "holds"),
        (Estimate(0.01, 0.0, 0.03, 3), "undecided"),
        (Estimate(0.04, 0.03, 0.05, 3), "does not hold"),
        (Estimate(-0.04, -0.05, -0.025, 3), "does not hold"),
        (Estimate(0.01, count=2), "too few runs"),
        (None, "not run"),
    ],
)
def test_judgements(figure: Estimate | None, judged: str) -> None:
    assert findings.judge(figure, -findings.CLOSE, findings.CLOSE) == judged


def test_two_studies_are_compared_on_the_same_images() -> None:
    table = tables.compared(study(), study())
    assert len(table.rows) == 20 and all(row[5].value == 0 and row[7] == "1.000" for row in table.rows)  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="only here: 'image 199'"):
        tables.compared(study(count=199), study(count=200))


def test_svg_is_the_same_twice_and_well_formed() -> None:
    some = study(count=40)
    text = plots.accuracy_bars(some)
    assert text == plots.accuracy_bars(some)
    ElementTree.fromstring(text)
    assert "var(--ink)" in text and "http://www.w3.org" in text and "date" not in text
    ids = re.findall(r'\bid="([^"]+)"', text) + re.findall(r'\bid="([^"]+)"', plots.gap_bars(some))
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    some = study(count=48, classes=[f"{HOSTILE} {n}" for n in range(8)], key=HOSTILE.replace("{{body}}", "") + "{}")
    cell = replace(some.trained[0].cell, backbone=HOSTILE)
    some = replace(some, dataset=HOSTILE, trained=(replace(some.trained[0], cell=cell), *some.trained[1:]))
    some = replace(some, not_run=((HOSTILE, HOSTILE),))
    keys = results.gallery_keys(some.rows[0], page.GALLERY)
    page.write_study(Target(tmp_path), some, thumbnails=dict.fromkeys(keys[1:], (PIXEL, PIXEL)))
    text = (tmp_path / "study.html").read_text(encoding="utf-8")
    assert "<script" not in text and "&lt;script&gt;" in text and NOTICE in text
    assert "1 have no thumbnail" in text and text.count("<img ") == 2 * (len(keys) - 1) > 0
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", text) and "url(http" not in text
    assert {path.suffix for path in tmp_path.iterdir()} == {".html", ".csv", ".tex"}


def test_a_thumbnail_must_be_an_image() -> None:
    some = study(count=48)
    keys = results.gallery_keys(some.rows[0], page.GALLERY)
    for bad in ('data:image/png;base64,AA" onerror="x', "https://example.org/x.png", "data:image/svg+xml;base64,AA"):
        with pytest.raises(UsageError, match="must be a data URI"):
            page.page(some, [], {keys[0]: (PIXEL, bad)})


def test_thumbnails_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    some = study(count=48)
    monkeypatch.setattr(page, "THUMBNAIL_BYTES", 5 * len(PIXEL))
    keys = results.gallery_keys(some.rows[0], page.GALLERY)
    assert page.page(some, [], dict.fromkeys(keys, (PIXEL, PIXEL))).decode().count("<img ") == 4


def test_a_study_of_nothing_says_so() -> None:
    empty = results.Study("crossval", "nothing", (), ())
    text = page.page(empty, page.made(empty), {}).decode()
    assert "No difference can be computed" in text


def test_a_training_that_lacks_a_test_set_is_named() -> None:
    some = study(count=48)
    first = some.trained[0]
    less = replace(first, tests={arm: p for arm, p in first.tests.items() if arm != "x_fg"})
    some = replace(some, trained=(less, *some.trained[1:]))
    text = page.page(some, page.made(some), {}).decode()
    assert "tested on x_fg" in text and "not tested in every training" in text
    assert "2 trainings" in dict(page.verdict(some))[next(s for s, _ in page.verdict(some) if "from X to X_FG" in s)]


def test_the_page_is_the_same_twice() -> None:
    some = study(count=48)
    assert page.page(some, page.made(some), {}) == page.page(some, page.made(some), {})


def test_a_class_without_image_is_left_out() -> None:
    some = study(count=4)
    assert len(tables.lost_classes(some.rows[0], some.classes).rows) == 4
    assert tables.shown(float("nan")) == ("–", "") and tables.shown(-0.0001, signed=True) == ("0.0", "")
    assert np.isfinite(Predictions.of("a", [0], [0], [1]).confidence).all()


def test_pages_of_two_studies_and_of_findings(tmp_path: Path) -> None:
    some = replace(study(count=48), dataset=HOSTILE)
    page.write_comparison(Target(tmp_path), some, study(count=48))
    page.write_findings(Target(tmp_path), [some, study(count=48)])
    for name in ("compared", "findings"):
        text = (tmp_path / f"{name}.html").read_text(encoding="utf-8")
        assert "<script" not in text and "&lt;script&gt;" in text and "<table>" in text
        assert (tmp_path / f"{name}.csv").exists() and (tmp_path / f"{name}.tex").exists()
    with pytest.raises(UsageError, match="nothing can be compared"):
        page.write_comparison(Target(tmp_path), some, results.Study("crossval", "nothing", (), ()))


def test_an_interval_of_an_accuracy_ends_at_all_and_none() -> None:
    row = study(count=40).rows[3]
    found = row.accuracy("x_fg")
    assert found is not None and found.high is not None and 0.95 < found.value <= found.high <= 1


def test_groups_are_shown_with_both_figures(tmp_path: Path) -> None:
    some = study(count=48)
    group_of = {key: "land" if n % 2 else "water" for n, key in enumerate(some.trained[0].tests["x"].keys)}
    table = tables.grouped(some, "x", group_of, {"land": 3, "water": 1})
    average, worst, plain = (table.rows[0][n] for n in (2, 3, 5))
    assert isinstance(average, Estimate) and isinstance(worst, Estimate) and isinstance(plain, Estimate)
    assert worst.value < plain.value and worst.value < average.value and average.value != plain.value
    page.write_study(Target(tmp_path), some, more=[table])
    assert "Average by train groups" in (tmp_path / "study.html").read_text(encoding="utf-8")
    assert (tmp_path / "groups.csv").exists()
    (tmp_path / "mine.csv").write_text("1")
    page.write_study(Target(tmp_path), some)  # no table of an earlier page stays beside it
    assert not list(tmp_path.glob("groups.*")) and (tmp_path / "gaps.csv").exists() and (tmp_path / "mine.csv").exists()


def test_strategies_that_differ_in_share_or_start_have_a_line_each() -> None:
    one = study(count=48, seeds=(0,)).trained[0]
    late = Strategy(where="late")
    cells = [
        Cell("masking", "test_resnet", strategy=late),
        Cell("masking", "test_resnet", strategy=replace(late, share=0.6)),
        Cell("masking", "test_resnet", strategy=late, pretrained=False),
    ]
    right = replace(one.tests["mixed-rand"], predicted=one.tests["mixed-rand"].labels)
    wrong = replace(right, predicted=(right.labels + 1) % 8)
    said = [right, wrong, wrong]
    trained = tuple(results.Trained(cell, {"mixed-rand": s}) for cell, s in zip(cells, said, strict=True))
    some = replace(study(count=48), name="masking", trained=trained)
    found = [(*row[:2], row[2].value) for row in by_size(some).rows]  # type: ignore[union-attr]
    assert found == [
        ("late, last", "quick", 1.0),
        ("late, last, share 0.6", "quick", 0.0),
        ("late, last", "quick, random start", 0.0),
    ]
    assert len({row.name for row in some.rows}) == 3


@pytest.mark.parametrize(
    "cell",
    [
        '"train": ["x"]',
        '"train": "bogus"',
        '"pretrained": {"a": 1}',
        '"strategy": {"fill": ["x"]}',
        '"strategy": {"where": ["x"]}',
        '"strategy": {"share": NaN}',
    ],
)
def test_a_cell_of_somebody_else_is_refused_by_name(cell: str, tmp_path: Path) -> None:
    names = '"study": "crossval", "backbone": "resnet50", "recipe": "quick", "seed": 0, "strategy": {}'
    (tmp_path / "cell.json").write_text(f'{{"cell": {{{names}, {cell}}}}}')
    with pytest.raises(DatasetError, match=r"cell\.json"):
        understood(tmp_path / "cell.json", cell_of)


def test_numbers_beyond_all_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"count": 1e999}')
    with pytest.raises(DatasetError, match="OverflowError"):
        understood(tmp_path / "a.json", lambda found: int(found["count"]))
    value = '{"value": 1, "low": null, "high": null, "count": 1e999}'
    table = f'{{"name": "a", "title": "", "heads": ["a"], "rows": [[{value}]], "note": "", "signed": []}}'
    (tmp_path / "tables.json").write_text(f'{{"title": "a", "said": [], "tables": [{table}]}}')
    with pytest.raises(DatasetError, match="OverflowError"):
        kept_tables.read(tmp_path)


def test_groups_of_an_earlier_study_in_a_folder_are_not_kept(tmp_path: Path) -> None:
    keep(tmp_path, {}, Groups(("x",), {"a": "landbird on land"}, {"landbird on land": 1}))
    assert (tmp_path / "groups.json").is_file()
    keep(tmp_path, {}, None)
    assert not (tmp_path / "groups.json").exists()
