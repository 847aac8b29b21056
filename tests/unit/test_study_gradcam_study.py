"""`fgfast study gradcam`: the figures of images, their tables, the page, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="models of a study need torch")

from fgfast.studies import torchvision_shim  # noqa: E402

torchvision_shim.declare()
for _name in ("torchvision", "timm", "pyarrow", "scipy", "statsmodels"):
    pytest.importorskip(_name, reason="a study needs its extra")

from study_models import SMALL, TOKENS  # noqa: E402
from study_pairs import birds  # noqa: E402

from fgfast.errors import DatasetError, OutputRefusedError, UsageError  # noqa: E402
from fgfast.studies import gradcam, gradcam_report, gradcam_tables  # noqa: E402
from fgfast.studies.arms import Fill, Shown  # noqa: E402
from fgfast.studies.cell import Cell, Strategy  # noqa: E402
from fgfast.studies.checkpoint import write_tensors  # noqa: E402
from fgfast.studies.figures import Estimate  # noqa: E402
from fgfast.studies.gradcam_cell import loaders, of_batch, run_cell, trained_model  # noqa: E402
from fgfast.studies.gradcam_figures import Look, both, compared_rows  # noqa: E402
from fgfast.studies.gradcam_look import Gradcam  # noqa: E402
from fgfast.studies.gradcam_sheet import tile  # noqa: E402
from fgfast.studies.gradcam_study import run  # noqa: E402
from fgfast.studies.gradcam_values import CLASSES, SHARES, TRUTHS, Values, read_values  # noqa: E402
from fgfast.studies.grid import EvaluationSet, Grid, write_json  # noqa: E402
from fgfast.studies.one_cell import model_of  # noqa: E402
from fgfast.studies.pairs import Pair  # noqa: E402
from fgfast.studies.recipes import recipe  # noqa: E402
from fgfast.studies.results import Study, Trained  # noqa: E402
from fgfast.studies.splits import train_and_test  # noqa: E402
from fgfast.studies.transforms import Prepare  # noqa: E402

TINY = recipe("drawn", epochs=1, batch=8, image_size=32)
LATE = Strategy("late", pooling="fg")
CELLS = tuple(
    Cell("masking", "test_resnet", train, strategy, TINY.name, 0, False)  # type: ignore[arg-type]
    for train, strategy in (("x", Strategy()), ("x_fg", Strategy()), ("x", Strategy("early")), ("x", LATE))
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def as_trained(grid: Grid, cell: Cell) -> None:
    """Write a cell's weights, random ones, as if it were trained."""
    model = model_of(grid, cell)
    with torch.no_grad():  # scales that start at nearly nothing would leave no evidence
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    write_tensors(grid.folder(cell) / "weights.safetensors", model.state_dict(), {})
    write_json(grid.folder(cell) / "cell.json", {"cell": cell.name})


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """Four cells on drawn birds, with random weights: what they learned is no matter here."""
    pairs = birds(16, 12)
    train, test = train_and_test(pairs, 0)
    out = tmp_path_factory.mktemp("study")
    tests = (EvaluationSet("x", "x"),)
    more = {"options": {"output_stride": 8}}  # maps of 4 x 4 cells
    made = Grid("masking", "birds", CELLS, {TINY.name: TINY}, tests, Shown(pairs), train, test, out, **more)  # type: ignore[arg-type]
    for cell in CELLS:
        as_trained(made, cell)
    return made


@pytest.fixture(scope="module")
def found(grid: Grid, tmp_path_factory: pytest.TempPathFactory) -> Gradcam:
    """All of them looked at."""
    look = Gradcam(grid, tmp_path_factory.mktemp("gradcam") / "out", batch=5)
    carried = run(look, ("cpu",), in_process=True)
    assert not carried.failed, carried.failed
    gradcam_report.write(look.out)
    return look


def values_of(look: Gradcam, cell: Cell) -> Values:
    return read_values(look.folder(cell).path / "looks.parquet")


def test_values_are_those_of_each_image_alone(grid: Grid, found: Gradcam) -> None:
    """Neither the batch nor the other images matter; the class is the image's own."""
    cell = CELLS[0]
    model = trained_model(grid, cell)
    keys, columns = values_of(found, cell).of("mixed-rand")
    for n, key in ((0, keys[0]), (7, keys[7])):
        index = grid.pairs.keys.index(key)
        first, second = (
            next(one.batches()) for one in loaders(found, replace(cell, train="mixed-rand"), model, [index], 1)
        )
        alone = of_batch(model, cell.strategy, first, second, "cpu")
        assert columns["label"][n] == grid.pairs.labels[index] == alone["label"][0]
        for name in SHARES:
            assert columns[name][n] == pytest.approx(alone[name][0], abs=1e-5), name
        another = replace(first, y=(first.y + 1) % 8), replace(second, y=(second.y + 1) % 8)
        other = of_batch(model, cell.strategy, *another, "cpu")
        for name in ("cam_inside", "gradient_inside", "probability"):
            assert abs(other[name][0] - alone[name][0]) > 1e-4, f"{name} does not depend on the class"


def test_a_background_is_repainted_before_pixels_are_masked(grid: Grid, found: Gradcam) -> None:
    none, _, early, late = (values_of(found, cell).columns for cell in CELLS)
    assert (early["probability"] == early["repainted_probability"]).all()
    assert (early["prediction"] == early["repainted_prediction"]).all()
    assert (none["probability"] != none["repainted_probability"]).any()
    assert (late["probability"] != late["repainted_probability"]).any()
    painted = found.repainted(grid.shown)
    for arm in ("x", "mixed-rand"):
        index = int(grid.usable(arm, grid.test)[0])  # type: ignore[arg-type]
        before, after = grid.shown.show(arm, index), painted.show(arm, index)  # type: ignore[arg-type]
        assert (before.mask == after.mask).all()
        assert (before.pixels[before.mask] == after.pixels[before.mask]).all()
        assert (before.pixels[~before.mask] != after.pixels[~before.mask]).mean() > 0.9
    first, _ = (next(one.batches()) for one in loaders(found, CELLS[0], trained_model(grid, CELLS[0]), [20], 1))
    with pytest.raises(UsageError, match="another one's"):
        of_batch(trained_model(grid, CELLS[0]), Strategy(), first, replace(first, keys=("other",)), "cpu")


def test_the_masks_area_is_that_after_the_crop(grid: Grid) -> None:
    """A subject that fills the middle covers more of a model's crop than of the stored image."""
    mask = np.zeros((64, 64), bool)
    mask[16:48, 16:48] = True
    cfg = replace(trained_model(grid, CELLS[0]).cfg, image_size=(32, 32), crop_pct=0.5)
    prepare = Prepare(cfg, replace(TINY, resize=0.0), train=False)
    _, cropped = prepare(Pair(np.zeros((64, 64, 3), np.uint8), mask))
    seen = gradcam.looks(torch.ones(1, 4, 4), cropped[None])
    assert mask.mean() == 0.25 and seen.area.item() == pytest.approx(1.0) == seen.inside.item()


def test_figures_of_an_image_are_those_of_the_mask_that_the_model_sees(grid: Grid, found: Gradcam) -> None:
    """Computed once more by NumPy and OpenCV, from the sample itself: a mask a pixel off would have others."""
    import cv2

    model = trained_model(grid, CELLS[0])
    keys, columns = values_of(found, CELLS[0]).of("x")
    some, off = [n for n in range(len(keys)) if columns["cam_evidence"][n]], 0.0
    for n in some:
        index = grid.pairs.keys.index(keys[n])
        x, mask = Prepare(model.cfg, TINY, train=False)(grid.shown.show("x", index))
        small = gradcam.maps(model, x[None], mask[None], torch.tensor([grid.pairs.labels[index]]), Strategy())[0]
        large = cv2.resize(small.numpy(), (32, 32), interpolation=cv2.INTER_LINEAR)
        subject = mask[0].numpy()
        assert columns["area"][n] == pytest.approx(subject.mean(), abs=1e-6)
        inside = (large * subject).sum() / large.sum()
        assert columns["cam_inside"][n] == pytest.approx(inside, abs=2e-5)
        assert columns["cam_hit"][n] == (subject.flat[large.argmax()] > 0.5)
        off = max(off, *(abs((large * np.roll(subject, 1, axis)).sum() / large.sum() - inside) for axis in (0, 1)))
    assert off > 1e-3


def test_maps_inside_by_construction_are_marked(found: Gradcam) -> None:
    look = gradcam_report.read(found.out).look
    table = gradcam_tables.inside(look)
    marks = {(row[0], row[1], row[3]): row[4] for row in table.rows if row[2] == "x"}
    named = {cell.strategy.where: row.name for row in look.study.rows for cell in [row.cell]}
    assert marks[named["late"], "x", "Grad-CAM"] == "yes, late masking"
    assert marks[named["late"], "x", "input gradients"] == "no"
    assert marks[named["early"], "x", "input gradients"] == "yes, early masking"
    assert marks[named["none"], "x_fg", "Grad-CAM"] == "no"
    stays = {row[0]: row[5] for row in gradcam_tables.changes(look).rows if "stay" in str(row[4])}
    assert stays[named["early"]] == "yes, early masking" and stays[named["late"]] == "no"
    said = " ".join(text for text, _ in gradcam_tables.verdict(look))
    assert "Grad-CAM lies inside by construction (late masking): no finding." in said
    assert "late, last, fg" in named["late"]  # the strategy is in the row's name
    page = (found.out / "study.html").read_text()
    assert "inside by construction: yes, late masking" in page
    assert page.count('<section class="sheet">') == 3 and "data:image/webp" in page
    assert not re.search(r"https?://", page)


def test_the_page_needs_neither_run_nor_models(found: Gradcam, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(found.out, moved)
    page = (moved / "study.html").read_bytes()
    tables = {path.name: path.read_bytes() for path in moved.glob("*.csv")}
    assert tables.keys() == {"inside.csv", "changes.csv", "repainted.csv"}
    for name in ("study.html", *tables):
        (moved / name).unlink()
    assert gradcam_report.write(moved) is not None
    assert (moved / "study.html").read_bytes() == page
    assert {path.name: path.read_bytes() for path in moved.glob("*.csv")} == tables


def test_a_killed_look_goes_on_with_its_cells(grid: Grid, found: Gradcam, tmp_path: Path) -> None:
    look = replace(found, grid=replace(grid, cells=CELLS[:2]), out=tmp_path / "out")
    look.open()
    for _ in run_cell(look, CELLS[0], "cpu", 1):
        pass
    steps = run_cell(look, CELLS[1], "cpu", 1)
    for _ in range(3):
        next(steps)
    steps.close()
    assert look.finished(CELLS[0]) and not look.finished(CELLS[1])
    carried = run(look, ("cpu",), in_process=True)
    assert carried.before == 1 and len(carried.done) == 1 and not carried.failed
    for cell in CELLS[:2]:
        for name in ("looks.parquet", "sheet.safetensors"):
            assert (look.folder(cell) / name).path.read_bytes() == (found.folder(cell) / name).path.read_bytes()


def test_a_cell_that_was_trained_again_is_looked_at_again(grid: Grid, found: Gradcam, tmp_path: Path) -> None:
    shutil.copytree(grid.out, tmp_path / "study")
    look = replace(found, grid=replace(grid, out=tmp_path / "study"))
    assert all(look.finished(cell) for cell in CELLS)
    path = look.grid.folder(CELLS[2]).path / "cell.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "seconds": 1e6}))
    assert [look.finished(cell) for cell in CELLS] == [True, True, False, True]


def test_other_images_are_another_look(grid: Grid, found: Gradcam) -> None:
    other = replace(found, grid=replace(grid, test=grid.test[:4]))
    with pytest.raises(OutputRefusedError, match="images, sheet, test differ"):
        other.check()
    other.check(overwrite=True)


def test_weights_of_another_model_are_a_reason(grid: Grid, found: Gradcam, tmp_path: Path) -> None:
    shutil.copytree(grid.out, tmp_path / "study")
    broken = replace(grid, out=tmp_path / "study", cells=CELLS[:2])
    (broken.folder(CELLS[1]) / "weights.safetensors").path.write_bytes(b"nothing")
    look = replace(found, grid=broken, out=tmp_path / "out")
    carried = run(look, ("cpu",), in_process=True)
    assert [one.cell for one in carried.failed] == [CELLS[1]] and "weights.safetensors" in carried.failed[0].failed
    gradcam_report.write(look.out, [(one.cell.name, one.failed) for one in carried.failed])
    page = (look.out / "study.html").read_text()
    assert "study/cells" in page and CELLS[1].name in page and str(tmp_path) not in page


def test_another_initial_state_is_not_taken_for_the_trained_one(grid: Grid) -> None:
    fresh, trained = model_of(grid, CELLS[0]), trained_model(grid, CELLS[0])
    assert not torch.equal(next(fresh.parameters()), next(trained.parameters()))
    assert not trained.training and not any(p.requires_grad for p in trained.parameters())


@pytest.mark.parametrize("kind", SMALL)
def test_each_family_is_looked_at(grid: Grid, tmp_path: Path, kind: str) -> None:
    """A model of each family, of random weights, is looked at from its study's folder."""
    name, size, options = SMALL[kind]
    how = replace(TINY, image_size=size)
    tokens = kind in TOKENS
    strategies = (Strategy(), Strategy("late", pooling="patch", class_token="drop") if tokens else Strategy("late"))
    cells = tuple(Cell("masking", name, "x", some, TINY.name, 0, False) for some in strategies)
    more = {"cells": cells, "recipes": {TINY.name: how}, "options": options, "out": tmp_path / "study"}
    some = replace(grid, test=grid.test[:3], **more)  # type: ignore[arg-type]
    look = Gradcam(some, tmp_path / "out")
    for cell in cells:
        as_trained(some, cell)
        for _ in run_cell(look, cell, "cpu", 1):
            pass
    none, late = (json.loads((look.folder(cell) / "cell.json").path.read_text()) for cell in cells)
    assert none["by construction"]["cam"] == "no" and late["by construction"]["cam"] == "yes, late masking"
    values = values_of(look, cells[0])
    assert (values.columns["gradient_inside"] > 0).all() and values.columns["cam_evidence"].any()
    assert set(none["images"]) == {"x", "mixed-rand"} and none["images"]["x"] == 3


def made_values(inside: list[float], area: float = 0.2, **more: list[float]) -> Values:
    count = len(inside)
    columns = {name: np.full(count, 0.5) for name in SHARES}
    columns |= {name: np.ones(count, bool) for name in TRUTHS} | {name: np.zeros(count, np.int64) for name in CLASSES}
    columns |= {"cam_inside": np.array(inside), "area": np.full(count, area)}
    columns |= {name: np.array(values) for name, values in more.items()}
    return Values(tuple(f"{n}.png" for n in range(count)), ("x",) * count, columns)


def made_look(values: dict[tuple[str, int], Values]) -> Look:
    cells = {key: Cell("crossval", "resnet50", key[0], seed=key[1]) for key in values}  # type: ignore[arg-type]
    study = Study("crossval", "made", ("a", "b"), tuple(Trained(cell, {}) for cell in cells.values()))
    marks = {cell.name: {"cam": "no", "gradient": "no"} for cell in cells.values()}
    return Look(study, {cells[key].name: some for key, some in values.items()}, marks)


def test_intervals_are_over_images_and_over_trainings() -> None:
    nan = float("nan")
    look = made_look(
        {("x", seed): made_values([0.1 + seed / 100, 0.3, nan if seed else 0.8, nan]) for seed in range(3)}
    )
    (row,) = look.study.rows
    images, seeds = look.estimates(row, "x", "cam_inside") or (None, None)
    assert images is not None and images.count == 3  # the fourth has no evidence in any training
    assert images.value == pytest.approx((0.11 + 0.3 + 0.8) / 3)
    assert seeds is not None and seeds.count == 3 and seeds.sure
    assert seeds.value == pytest.approx(np.mean([1.2 / 3, 0.41 / 2, 0.42 / 2]))
    few = made_look({("x", seed): made_values([0.1, 0.3]) for seed in range(2)})
    images, seeds = few.estimates(few.study.rows[0], "x", "cam_inside") or (None, None)
    assert images is not None and images.sure and seeds is not None and not seeds.sure
    assert any("Too few runs: 2 trainings" in sure for _, sure in gradcam_tables.verdict(few))
    assert both(np.full((3, 4), nan)) is None


def test_rows_are_compared_with_training_on_x_image_by_image() -> None:
    noise = np.random.default_rng(0).uniform(-0.02, 0.02, (2, 3, 30))
    some = {("x", seed): made_values((0.3 + noise[0, seed]).tolist()) for seed in range(3)}
    some |= {("x_fg", seed): made_values((0.4 + noise[1, seed]).tolist()) for seed in range(3)}
    look = made_look(some)
    ((row, base),) = compared_rows(look.study)
    assert row.cell.train == "x_fg" and base.cell.train == "x"
    found = look.minus(row, base, "x", "cam_inside")
    assert found is not None and found.value == pytest.approx(0.1, abs=0.01) and found.seeds.sure
    table = gradcam_tables.changes(look)
    assert isinstance(table.rows[0][6], Estimate) and table.rows[0][6].value == found.value
    text, sure = gradcam_tables.verdict(look)[1]
    assert re.search(
        r"trained on x_fg, against x without masking: .* inside the subject rises by (9\.\d|10) points\.", text
    ), text
    assert "Holds over images and over 3 trainings." in sure
    other = made_look({**some, ("x_fg", 0): made_values([0.1])})
    with pytest.raises(UsageError, match="other images"):
        gradcam_tables.changes(other)


def test_subjects_outside_the_crop_are_left_out_and_counted() -> None:
    values = made_values([0.0, 0.5, 0.7])
    values.columns["area"][0] = 0.0
    look = made_look({("x", 0): values})
    images, _ = look.estimates(look.study.rows[0], "x", "cam_inside") or (None, None)
    assert images is not None and images.value == pytest.approx(0.6) and images.count == 2
    assert "1 image whose subject lies outside" in gradcam_tables.inside(look).note


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda table: table.drop_columns(["area"]), "has no column area"),
        (lambda table: table.append_column("more", table["key"]).take([0, 0]), "an image occurs twice"),
        (lambda table: table.set_column(5, "probability", [[2.0] * len(table)]), "must lie between 0 and 1"),
    ],
)
def test_a_table_of_somebody_else_is_checked(found: Gradcam, tmp_path: Path, harm: object, said: str) -> None:
    from pyarrow import parquet

    table = parquet.read_table((found.folder(CELLS[0]) / "looks.parquet").path)
    assert table.column_names[5] == "probability"
    parquet.write_table(harm(table), tmp_path / "looks.parquet")  # type: ignore[operator]
    with pytest.raises(DatasetError, match=said):
        read_values(tmp_path / "looks.parquet")


@pytest.mark.parametrize("content", [b"", b"\x08\0\0\0\0\0\0\0{}      ", b"PAR1"])
def test_damaged_files_are_named(found: Gradcam, tmp_path: Path, content: bytes) -> None:
    shutil.copytree(found.out, tmp_path / "out")
    place = tmp_path / "out/cells" / CELLS[0].name
    (place / "sheet.safetensors").write_bytes(content)
    with pytest.raises(DatasetError, match=r"sheet\.safetensors"):
        gradcam_report.write(tmp_path / "out")
    (place / "looks.parquet").write_bytes(content)
    with pytest.raises(DatasetError, match=r"looks\.parquet"):
        gradcam_report.write(tmp_path / "out")
    (tmp_path / "out/gradcam.json").write_bytes(b"[]")
    with pytest.raises(DatasetError, match=r"gradcam\.json"):
        gradcam_report.write(tmp_path / "out")


def test_hostile_names_are_shown_as_text(found: Gradcam, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(found.out, out)
    about = json.loads((out / "gradcam.json").read_text())
    about["classes"] = [f"<script>alert({n})</script>" for n in range(8)]
    about["not run"] = [["</section><img src=x onerror=alert(1)>", "\x1b[2J"]]
    (out / "gradcam.json").write_text(json.dumps(about))
    gradcam_report.write(out)
    page = (out / "study.html").read_text()
    assert "<script" not in page and "<img src=x" not in page and "&lt;script&gt;" in page
    about["planned"] = ["../.."]
    (out / "gradcam.json").write_text(json.dumps(about))
    with pytest.raises(DatasetError, match="no name of a folder"):
        gradcam_report.write(out)


def test_what_is_left_out_is_said(found: Gradcam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyarrow import compute, parquet

    out = tmp_path / "out"
    shutil.copytree(found.out, out)
    for path in out.rglob("looks.parquet"):
        table = parquet.read_table(path)
        parquet.write_table(table.filter(compute.equal(table["arm"], "x")), path)
    monkeypatch.setattr(gradcam_report, "THUMBNAIL_BYTES", 100_000)
    gradcam_report.write(out)
    page = (out / "study.html").read_text()
    assert page.count("shown mixed-rand") == 4 and "no test image has it" in page
    left = re.search(r"(\d) further sheets of maps", page)
    assert left and int(left[1]) + page.count('<section class="sheet">') == 3 and 0 < int(left[1]) < 3
    assert len(page) < 150_000


def test_outlines_lie_on_the_masks_edge_and_maps_where_they_are_highest() -> None:
    pixels = np.full((64, 64, 3), 120, np.uint8)
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 10:50] = 255
    image = tile(pixels, mask)
    assert (image[20, 10:50] == 255).all() and (image[39, 10:50] == 255).all() and (image[30, 30] == 120).all()
    assert (pixels == 120).all()  # what was given stays as it is
    found = np.zeros((8, 8), np.float32)
    found[0, 7] = 3
    over = tile(pixels, mask, found)
    assert (over[2, 61] != 120).any() and (over[60, 3] == 120).all()
    assert (tile(pixels, mask, np.zeros((8, 8), np.float32)) == image).all()  # without evidence: no colours
    assert Fill("noise", seed=1) != Fill("noise", seed=2)
