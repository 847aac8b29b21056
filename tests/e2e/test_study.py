"""`fgfast study` from the command line, on tiny data sets and tiny models."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
from birds import many_birds
from command import fgfast as command
from layouts import text

torch = pytest.importorskip("torch", reason="a study needs torch")

from fgfast.studies import torchvision_shim  # noqa: E402

torchvision_shim.declare()
for _name in ("torchvision", "timm", "pyarrow", "matplotlib", "statsmodels"):
    pytest.importorskip(_name, reason="a study needs its extra")

TINY = ("--backbone", "test_resnet", "--recipe", "drawn", "--epochs", "2", "--batch", "8", "--image-size", "32")
TINY = (*TINY, "--no-pretrained", "--in-process")
UNTRAINED = ("--backbone", "test_resnet", "--image-size", "32", "--no-pretrained")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over 36 birds of two classes, and one over Waterbirds made of them."""
    place = tmp_path_factory.mktemp("study")
    root = many_birds(place, 36)
    swapped = place / "waterbird_complete95_forest2water2"
    rows = ["img_id,img_filename,y,split,place,place_filename"]
    splits = dict(line.split() for line in (root / "train_test_split.txt").read_text().splitlines())
    for line in (root / "images.txt").read_text().splitlines():
        ident, name = line.split()
        (swapped / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / "images" / name, swapped / name)
        split = 2 if splits[ident] == "0" else 0
        rows.append(f"{ident},{name},{int('Auk' in name)},{split},{int(ident) // 6 % 2},/p/a.jpg")
    text(swapped / "metadata.csv", *rows)
    for dataset, folder, out in (("cub", root, "run"), ("waterbirds", swapped, "swapped")):
        done = command("convert", "--dataset", dataset, "--root", folder, "--out", place / out, "--segmenter", "box")
        assert done.returncode == 0, done.stderr
    return place


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_crossval_says_what_it_takes_trains_tests_and_shows(places: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("study", "crossval", places / "run", "--out", out, "--seeds", "1", "--train-on", "x,x_fg", *TINY)
    said = command(*words, "--dry-run")
    assert re.search(r"2 trainings, 4 epochs, about \d+ min, 0\.0\d GB on disk", said.stdout), said.stderr
    assert not out.exists()
    done = command(*words, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["finished"] == 2 and facts["failed"] == {} and "Too few runs" in facts["verdict"][0]
    found = rows(out / "accuracies.csv")
    assert [row["Trained on"] for row in found] == ["x", "x_fg"]
    assert all(0 <= float(row[test]) <= 1 for row in found for test in ("x", "x_fg", "mixed-same", "only-bg"))
    page = (out / "study.html").read_text()
    assert "BG-gap" in page and not re.search(r"https?://(?!www\.w3\.org/)", page)
    again = command(*words)
    assert "2 of them finished before" in again.stderr and again.returncode == 0


def test_masking_is_tested_on_waterbirds_by_species_and_by_groups(places: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    more = ("--strategy", "none", "--strategy", "early", "--seeds", "1", "--waterbirds", places / "swapped")
    done = command("study", "masking", places / "run", "--out", out, *more, *TINY)
    assert done.returncode == 0, done.stderr
    found = rows(out / "accuracies.csv")
    tests = ("x", "x-unmasked", "waterbirds", "waterbirds-study-masks")
    assert len(found) == 2 and all(found[0][test] for test in tests)
    assert [row["Strategy"] for row in rows(out / "strategies.csv")] == ["none", "early"]
    for name in ("groups-1", "groups-2"):
        for row in rows(out / f"{name}.csv"):
            assert float(row["Worst group"]) <= float(row["Average by train groups"]) <= 1
            assert re.fullmatch(r"(land|water)bird on (land|water)", row["Which"])


def test_waterbirds_itself_is_reported_by_groups(places: Path, tmp_path: Path) -> None:
    done = command(
        "study", "masking", places / "swapped", "--out", tmp_path, "--strategy", "none", "--seeds", "1", *TINY
    )
    assert done.returncode == 0, done.stderr
    (row,) = rows(tmp_path / "groups-1.csv")
    assert float(row["Worst group"]) <= float(row["Average by train groups"])


def test_groups_are_weighed_as_the_data_set_has_them_whatever_part_of_it_was_converted(
    places: Path, tmp_path: Path
) -> None:
    from fgfast.pipeline.twin import Twin
    from fgfast.studies.waterbirds import groups_of

    root = places / "waterbird_complete95_forest2water2"
    words = ("convert", "--dataset", "waterbirds", "--root", root, "--segmenter", "box", "--split", "test")
    done = command(*words, "--out", tmp_path / "part")
    assert done.returncode == 0, done.stderr
    found = []
    for run in (places / "swapped", tmp_path / "part"):
        with Twin.open(run) as twin:
            groups = groups_of(twin, ("x",))
        assert groups is not None and sum(groups.train_counts.values()) > 0
        found.append(groups.train_counts)
    assert found[0] == found[1]


def test_no_background_comes_from_the_other_split_of_the_study(places: Path) -> None:
    from fgfast.studies.crossval import TESTS, cells
    from fgfast.studies.recipes import recipe
    from fgfast.studies.request import Request, grid_of

    how = recipe("quick")
    asked = Request(places / "run", recipes={how.name: how}, test_share=0.4)
    grid, pairs, _ = grid_of(asked, "crossval", cells(["test_resnet"], ["x"], how.name, [0], False), TESTS)
    sides = set(grid.train.tolist()), set(grid.test.tolist())
    assert not sides[0] & sides[1] and len(sides[0]) + len(sides[1]) == len(pairs.keys)
    for side in sides:
        found = [grid.shown.partner(arm, n) for n in side for arm in ("mixed-same", "mixed-rand", "mixed-next")]
        assert set(found) - {None} <= side and len(set(found)) > 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--strategy", "sideways"), "no where named 'sideways'"),
        (("--recipe", "secret"), "no recipe named 'secret'"),
        (("--backbone", "resnet51"), "has no model named 'resnet51'; did you mean"),
        (("--devices", "cuda:9"), "there is no device 'cuda:9'"),
        (("--timm", "drop"), "NAME=VALUE"),
        (("--fill", "pink"), "no fill named 'pink'"),
    ],
)
def test_what_is_not_known_is_named_before_anything_is_made(
    places: Path, tmp_path: Path, words: tuple[str, str], said: str
) -> None:
    done = command("study", "masking", places / "run", "--out", tmp_path / "out", *TINY[2:], *words)
    assert done.returncode == 2 and said in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_expansion_is_no_run(tmp_path: Path) -> None:
    done = command("study", "crossval", tmp_path, *TINY)
    assert done.returncode == 2 and "holds no run" in done.stderr


def test_a_report_needs_nothing_but_the_folders(places: Path, tmp_path: Path) -> None:
    for name, seeds in (("a", "1"), ("b", "2")):
        words = ("--out", tmp_path / name, "--seeds", seeds, "--train-on", "x,x_fg", *TINY)
        assert command("study", "crossval", places / "run", *words).returncode == 0
    kept = {path.name: path.read_bytes() for path in (tmp_path / "a").glob("*.*")}
    done = command("study", "report", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "both")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "both/report.html").read_text()
    assert page.count("crossval: cub") == 2 and "too few runs" in page
    assert rows(tmp_path / "both/findings.csv")[0]["Verdict"].startswith("too few runs")
    assert (tmp_path / "both/1-crossval-accuracies.csv").read_bytes() == kept["accuracies.csv"]
    compared = command("study", "report", tmp_path / "a", tmp_path / "b", "--compare", "--out", tmp_path / "both")
    assert compared.returncode == 0, compared.stderr
    same = rows(tmp_path / "both/compared.csv")
    assert same and all(float(row["second − first, over images"]) == 0 for row in same)  # seed 0 is in both
    (tmp_path / "a/study.json").write_text('{"study": "crossval"}')
    done = command("study", "report", tmp_path / "a")
    assert done.returncode == 1 and "study.json" in done.stderr and "not understood" in done.stderr
    done = command("study", "report", places / "run")
    assert done.returncode == 2 and "holds no study" in done.stderr


def test_a_report_has_features_and_gradcam_beside_crossval(places: Path, tmp_path: Path) -> None:
    words = ("--seeds", "1", "--train-on", "x", *TINY)
    for done in (
        command("study", "crossval", places / "run", "--out", tmp_path / "cv", *words),
        command("study", "features", places / "run", "--out", tmp_path / "ft", "--arm", "x,x_fg", *UNTRAINED),
        command("study", "gradcam", tmp_path / "cv", "--out", tmp_path / "gc", "--in-process"),
    ):
        assert done.returncode == 0, done.stderr
    done = command("study", "report", *(tmp_path / name for name in ("cv", "ft", "gc")), "--out", tmp_path / "all")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "all/report.html").read_text()
    assert "crossval: cub" in page and "features: cub" in page and "prove nothing" in page
    assert (tmp_path / "all/2-features.csv").read_bytes() == (tmp_path / "ft/features.csv").read_bytes()
    assert (tmp_path / "all/3-inside.csv").read_bytes() == (tmp_path / "gc/inside.csv").read_bytes()
    (tmp_path / "ft/tables.json").write_text('{"title": "<script>", "said": [], "tables": [{"name": "../x"}]}')
    done = command("study", "report", tmp_path / "ft", "--out", tmp_path / "bad")
    assert done.returncode == 1 and "tables.json" in done.stderr and not (tmp_path / "bad").exists()


@pytest.mark.full
def test_features_are_estimated_computed_once_and_measured(places: Path, tmp_path: Path) -> None:
    out = tmp_path / "ft"
    words = ("study", "features", places / "run", "--out", out, "--arm", "x,x_fg,x-box", *UNTRAINED)
    said = command(*words, "--dry-run", "--json")
    facts = json.loads(said.stdout)
    assert facts["backbones"] == 1 and facts["images"] == 3 * 36 and not out.exists()
    done = command(*words, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert "36 images of 2 classes prove nothing" in facts["verdict"][0] and len(facts["figures"]) == 3
    assert [row["Arm"] for row in rows(out / "features.csv")] == ["x", "x_fg", "x-box"]
    page = (out / "study.html").read_text()
    assert "mean nothing" in page and not re.search(r"https?://(?!www\.w3\.org/)", page)
    again = command(*words, "--dry-run")
    assert again.stdout.startswith("0 backbones, 0 images in all")
    for more, why in ((("--arm", "y"), "y"), (("--devices", "cpu,cpu"), "one device")):
        refused = command(*words, *more)
        assert refused.returncode == 2 and why in refused.stderr
