"""Training: seeds, resume, schedules, what is frozen; and the grid of cells, whatever stops it."""

from __future__ import annotations

import dataclasses
import json
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from fgfast.studies import torchvision_shim  # noqa: E402

torchvision_shim.declare()
for _name in ("torchvision", "timm", "pyarrow"):
    pytest.importorskip(_name, reason="a study needs its extra")

from study_models import SMALL  # noqa: E402
from study_pairs import birds  # noqa: E402

from fgfast.errors import OutputFailedError, OutputRefusedError, UnknownNameError, UsageError  # noqa: E402
from fgfast.studies.arms import Shown  # noqa: E402
from fgfast.studies.cell import Cell, Strategy  # noqa: E402
from fgfast.studies.grid import EvaluationSet, Grid  # noqa: E402
from fgfast.studies.loading import Loader, Samples  # noqa: E402
from fgfast.studies.loop import Training, head_of, lr_factor  # noqa: E402
from fgfast.studies.masking_study import strategy_of  # noqa: E402
from fgfast.studies.models import build  # noqa: E402
from fgfast.studies.one_cell import run_cell  # noqa: E402
from fgfast.studies.predict import predict  # noqa: E402
from fgfast.studies.predictions import read_predictions  # noqa: E402
from fgfast.studies.recipes import Recipe, recipe  # noqa: E402
from fgfast.studies.run import Carried, run  # noqa: E402
from fgfast.studies.splits import train_and_test  # noqa: E402
from fgfast.studies.transforms import Prepare  # noqa: E402

TINY = recipe("drawn", epochs=3, batch=8, image_size=32)


def grid(out: Path, cells: tuple[Cell, ...], **more: object) -> Grid:
    pairs = birds(24, 16)
    train, test = train_and_test(pairs, 0)
    tests = (EvaluationSet("x", "x"), EvaluationSet("x_fg", "x_fg"))
    values = {"recipes": {TINY.name: TINY}, "tests": tests, "train": train, "test": test, "out": out, **more}
    return Grid(name="crossval", dataset="birds", cells=cells, shown=Shown(pairs), **values)  # type: ignore[arg-type]


def cell(seed: int = 0, train: str = "x", backbone: str = "test_resnet", strategy: Strategy | None = None) -> Cell:
    return Cell("crossval", backbone, train, strategy or Strategy(), TINY.name, seed, False)  # type: ignore[arg-type]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "weights.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(autouse=True)
def one_thread() -> object:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path: Path, backbone: str) -> None:
    one = dataclasses.replace(cell(backbone=backbone))
    whole, broken = grid(tmp_path / "a", (one,)), grid(tmp_path / "b", (one,))
    for _ in run_cell(whole, one, "cpu", 1):
        pass
    steps = run_cell(broken, one, "cpu", 1)
    for _ in range(1 + 4 + 1):  # the model, an epoch of three steps and its end, a step of the next
        next(steps)
    steps.close()
    folder = broken.folder(one).path
    assert (folder / "checkpoint.safetensors").is_file() and not (folder / "cell.json").exists()
    for _ in run_cell(broken, one, "cpu", 1):
        pass
    assert same(weights(whole.folder(one).path), weights(folder))
    assert (folder / "log.csv").read_bytes() == (whole.folder(one).path / "log.csv").read_bytes()
    assert len((folder / "log.csv").read_text().splitlines()) == 1 + TINY.epochs  # no epoch is repeated
    for name in ("predictions-x.parquet", "predictions-x_fg.parquet"):
        assert (folder / name).read_bytes() == (whole.folder(one).path / name).read_bytes()
    assert not (folder / "checkpoint.safetensors").exists()


def test_a_checkpoint_of_another_recipe_is_not_continued(tmp_path: Path) -> None:
    one = cell()
    first = grid(tmp_path, (one,), recipes={TINY.name: dataclasses.replace(TINY, lr=1e-3)})
    steps = run_cell(first, one, "cpu", 1)
    for _ in range(6):
        next(steps)
    steps.close()
    second, clean = grid(tmp_path, (one,)), grid(tmp_path / "clean", (one,))
    for some in (second, clean):
        for _ in run_cell(some, one, "cpu", 1):
            pass
    assert same(weights(second.folder(one).path), weights(clean.folder(one).path))


def test_a_seed_changes_the_training_and_the_same_one_does_not(tmp_path: Path) -> None:
    found = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        some = grid(tmp_path / name, (cell(seed),))
        for _ in run_cell(some, cell(seed), "cpu", 1):
            pass
        found.append(weights(some.folder(cell(seed)).path))
    assert same(found[0], found[1]) and not same(found[0], found[2])


def test_parts_of_a_batch_give_the_gradients_of_the_whole() -> None:
    pairs = birds(24, 8)
    gradients = []
    for parts in (1, 3):
        torch.manual_seed(0)
        model = build("test_vit", 8, image_size=64)
        samples = Samples(Shown(pairs), "x", np.arange(24), Prepare(model.cfg, TINY, False), Strategy(), 0)
        (batch,) = Loader(samples, 24, False).batches()
        training = Training(model, dataclasses.replace(TINY, lr=0.0), Strategy(), 0, 1, "cpu", parts)
        step = training.optimizer.step
        training.optimizer.zero_grad = lambda set_to_none=True: None  # type: ignore[method-assign]
        assert step is not None
        list(training.epoch(0, [batch]))
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-6)


def test_frozen_trains_the_classifier_alone() -> None:
    pairs = birds(16, 8)
    model = build("test_resnet", 8, image_size=64)
    samples = Samples(Shown(pairs), "x", np.arange(16), Prepare(model.cfg, TINY, True), Strategy(), 0)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    training = Training(model, dataclasses.replace(TINY, frozen=True), Strategy(), 0, 2, "cpu")
    list(training.epoch(0, Loader(samples, 8, True).batches()))
    head = {id(p) for p in head_of(model).parameters()}
    trained = {name for name, p in model.named_parameters() if id(p) in head}
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == trained  # statistics of batch normalisation, too, stay as they are


@pytest.mark.parametrize("schedule", ["cosine", "one-cycle"])
def test_the_learning_rate_rises_and_falls(schedule: str) -> None:
    some = dataclasses.replace(recipe("quick"), epochs=10, warmup=2, schedule=schedule)  # type: ignore[arg-type]
    factors = [lr_factor(step, 7, some) for step in range(70)]
    top = int(np.argmax(factors))
    assert 12 <= top <= 15 and 0.95 < max(factors) <= 1
    assert all(a < b for a, b in pairwise(factors[: top + 1]))
    assert all(a > b for a, b in pairwise(factors[top:]))
    assert factors[-1] < 0.01 and factors[0] <= 0.07


def test_layers_before_learn_more_slowly_and_the_head_faster() -> None:
    some: Recipe = dataclasses.replace(recipe("quick"), layer_decay=0.5, head_lr=10)
    model = build("test_vit", 8, image_size=64)
    training = Training(model, some, Strategy(), 0, 1, "cpu")
    scale = {id(p): group["lr_scale"] for group in training.optimizer.param_groups for p in group["params"]}
    decay = {id(p): group["weight_decay"] for group in training.optimizer.param_groups for p in group["params"]}
    assert len(scale) == len(list(model.parameters()))
    blocks = [scale[id(block.attn.qkv.weight)] for block in model.timm.blocks]
    assert all(b == pytest.approx(2 * a) for a, b in pairwise(blocks))
    assert scale[id(model.timm.patch_embed.proj.weight)] < blocks[0]
    assert scale[id(model.timm.head.weight)] == 10
    assert decay[id(model.timm.head.weight)] > 0 == decay[id(model.timm.head.bias)]
    assert decay[id(model.timm.pos_embed)] == 0 == decay[id(model.timm.cls_token)]


def test_a_training_that_diverges_says_so() -> None:
    pairs = birds(16, 8)
    model = build("test_resnet", 8, image_size=64)
    samples = Samples(Shown(pairs), "x", np.arange(16), Prepare(model.cfg, TINY, False), Strategy(), 0)
    training = Training(model, dataclasses.replace(TINY, lr=1e30), Strategy(), 0, 2, "cpu")

    def train() -> None:
        for epoch in range(3):
            list(training.epoch(epoch, Loader(samples, 8, True).batches()))

    with pytest.raises(UsageError, match="--lr"):
        train()


def test_a_prediction_does_not_depend_on_the_batch() -> None:
    pairs = birds(24, 17)
    model = build("test_resnet", 8, image_size=64).eval()
    found = []
    for batch in (1, 8, 17, 50):
        samples = Samples(Shown(pairs), "x", np.arange(24, 41), Prepare(model.cfg, TINY, False), Strategy(), 0)
        found.append(predict(model, Loader(samples, batch, False).batches(), Strategy(), "cpu"))
    for one in found[1:]:
        assert one.keys == found[0].keys and (one.predicted == found[0].predicted).all()
        assert np.allclose(one.confidence, found[0].confidence, atol=1e-5)


def test_unknown_recipes_are_named() -> None:
    with pytest.raises(UnknownNameError, match="masking-2308"):
        recipe("secret")
    assert recipe("quick", epochs=None).name == "quick"
    assert recipe("quick", epochs=20).name == "quick" and recipe("quick", epochs=3).name == "quick, epochs 3"


# The grid.


def tables(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*.parquet"))}


def test_a_grid_is_finished_once_and_read_from_its_tables(tmp_path: Path) -> None:
    cells = (cell(0), cell(0, "x_fg"))
    some = grid(tmp_path / "a", cells)
    seen: list[tuple[str, int, int]] = []
    found = run(some, ["cpu"], in_process=True, progress=lambda one, n, of: seen.append((one.cell.name, n, of)))
    assert found.before == 0 and not found.failed and [one[1:] for one in seen] == [(1, 2), (2, 2)]
    again = run(grid(tmp_path / "a", cells), ["cpu"], in_process=True)
    assert again.before == 2 and again.done == ()
    study = some.study()
    assert [one.cell for one in study.trained] == list(cells) and study.arms == ("x", "x_fg")
    table = read_predictions(some.folder(cells[0]).path / "predictions-x.parquet")
    assert sorted(table.keys) == sorted(some.pairs.keys[n] for n in some.test)
    facts = json.loads((some.folder(cells[0]).path / "cell.json").read_text())
    assert facts["tests"]["x"] == {"accuracy": float(table.correct.mean()), "images": 16}
    assert facts["initial weights"] == "random" and facts["train"] == 24
    with pytest.raises(OutputRefusedError, match="train"):
        run(grid(tmp_path / "a", cells, train=some.train[:8]), ["cpu"], in_process=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "letter.txt").write_text("mine")
    with pytest.raises(OutputRefusedError, match="something other"):
        run(grid(tmp_path / "b", cells), ["cpu"], in_process=True)
    assert [p.name for p in (tmp_path / "b").iterdir()] == ["letter.txt"]


def test_a_cell_that_fails_says_why_and_the_others_go_on(tmp_path: Path) -> None:
    wrong = cell(0, strategy=Strategy("late", pooling="class"))  # a CNN has no class token
    found = run(grid(tmp_path, (wrong, cell(0))), ["cpu"], in_process=True)
    assert [one.cell for one in found.failed] == [wrong] and "class token" in found.failed[0].failed
    assert [one.cell for one in grid(tmp_path, (wrong, cell(0))).study().trained] == [cell(0)]


def test_the_best_epoch_is_chosen_on_a_tenth_of_train(tmp_path: Path) -> None:
    one = cell()
    some = grid(tmp_path, (one,), select="best-val")
    run(some, ["cpu"], in_process=True)
    rows = [line.split(",") for line in (some.folder(one).path / "log.csv").read_text().splitlines()[1:]]
    assert len(rows) == 3 and all(0 <= float(row[2]) <= 1 for row in rows)


@pytest.mark.full
def test_a_killed_grid_ends_with_the_same_tables_and_two_devices_are_one(tmp_path: Path) -> None:
    import random
    import signal
    import subprocess
    import sys
    import time

    cells = tuple(cell(seed, train) for seed in (0, 1) for train in ("x", "x_fg", "mixed-rand"))
    run(grid(tmp_path / "one", cells), ["cpu"])
    run(grid(tmp_path / "two", cells), ["cpu", "cpu"])
    assert tables(tmp_path / "one") == tables(tmp_path / "two") != {}
    script = Path(__file__).with_name("study_grid_child.py")
    rng, kills = random.Random(3), 0
    for _ in range(40):
        child = subprocess.Popen([sys.executable, script, str(tmp_path / "killed")])
        time.sleep(rng.uniform(2, 9))
        if child.poll() is not None:
            break
        child.send_signal(signal.SIGKILL)
        child.wait()
        kills += 1
        time.sleep(0.5)
    assert child.wait() == 0 and kills >= 3
    assert tables(tmp_path / "killed") == tables(tmp_path / "one")


@pytest.mark.full
@pytest.mark.parametrize("kind", SMALL)
def test_every_family_goes_through_masking(kind: str, tmp_path: Path) -> None:
    from fgfast.studies.masking_study import defaults

    name, size, options = SMALL[kind]
    how = recipe("drawn", epochs=1, batch=12, image_size=size)
    strategies = [strategy_of(text, 0.25, "black") for text in defaults(name)]
    if kind == "vit-mean":  # its own classifier reads the mean of the patches
        strategies = [one for one in strategies if one.pooling != "class"]
    cells = tuple(Cell("masking", name, "x", one, how.name, 0, False) for one in strategies)
    some = grid(tmp_path, cells, recipes={how.name: how}, options=options)
    found = run(some, ["cpu"], in_process=True)
    assert not found.failed and len(some.study().trained) == len(cells) >= 4


def test_a_stopped_grid_goes_on(tmp_path: Path) -> None:
    class SoonSet(threading.Event):
        looks = 0

        def is_set(self) -> bool:
            self.looks += 1
            return self.looks > 24 or super().is_set()

    cells = (cell(0), cell(1))
    found = run(grid(tmp_path / "a", cells), ["cpu"], in_process=True, stop=SoonSet())
    assert found.stopped and len(found.done) < 2 and len(list(tmp_path.rglob("checkpoint.safetensors"))) == 1
    run(grid(tmp_path / "a", cells), ["cpu"], in_process=True)
    run(grid(tmp_path / "b", cells), ["cpu"], in_process=True)
    assert tables(tmp_path / "a") == tables(tmp_path / "b")


def test_a_table_that_was_deleted_is_made_again(tmp_path: Path) -> None:
    some = grid(tmp_path, (cell(0),))
    run(some, ["cpu"], in_process=True)
    table = some.folder(cell(0)).path / "predictions-x_fg.parquet"
    before = table.read_bytes()
    table.unlink()
    assert not some.finished(cell(0)) and some.study().trained == ()
    assert not run(some, ["cpu"], in_process=True).failed
    assert table.read_bytes() == before


def test_what_a_kill_left_half_written_is_deleted(tmp_path: Path) -> None:
    some = grid(tmp_path, (cell(0),))
    (tmp_path / ".fgfast-9-1.part").write_bytes(b"{")  # before there was a study
    half = some.folder(cell(0)).path / ".fgfast-abc.part"
    half.mkdir(parents=True)
    (half / "checkpoint.safetensors").write_bytes(b"1")
    assert not run(some, ["cpu"], in_process=True).failed
    assert not list(tmp_path.rglob(".fgfast-*"))


def test_the_page_is_written_while_nobody_else_works_in_the_folder(tmp_path: Path) -> None:
    some, seen = grid(tmp_path, (cell(0),)), []

    def show(carried: Carried) -> None:
        seen.append(len(carried.done))
        with pytest.raises(UsageError, match="another process works in"):
            run(some, ["cpu"], in_process=True)

    run(some, ["cpu"], in_process=True, show=show)
    assert seen == [1]


def test_two_files_of_weights_with_one_name_are_refused(tmp_path: Path) -> None:
    files = [f"{folder}/test_resnet.safetensors" for folder in ("mine", "yours")]
    with pytest.raises(UsageError, match=r"one name .*resnet50\.mine\.safetensors.*mine/test_resnet"):
        grid(tmp_path, tuple(cell(backbone=file) for file in files))
    with pytest.raises(UsageError, match="one name"):
        grid(tmp_path, (cell(backbone=files[0]), cell()))
    grid(tmp_path, (cell(backbone="mine/test_resnet.mine.safetensors"), cell()))


def test_a_strategy_says_nothing_that_it_does_not_use() -> None:
    assert strategy_of("early", 0.5, "mean") == Strategy("early", fill="mean")
    assert strategy_of("none", 0.5, "mean") == Strategy()
    assert strategy_of("late", 0.5, "mean") == Strategy("late", share=0.5)
    assert strategy_of("both", 0.5, "mean") == Strategy("both", share=0.5, fill="mean")
    assert strategy_of("none:last:fg", 0.5, "mean") == Strategy(pooling="fg", share=0.5)
    with pytest.raises(UsageError, match="share"):
        strategy_of("early", 2.0, "black")


def test_a_training_killed_at_its_very_end_goes_on_without_weights_that_were_not_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = cell()
    some = grid(tmp_path, (one,), select="best-val", keep_weights=False)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("fgfast.studies.one_cell.write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            list(run_cell(some, one, "cpu", 1))
    list(run_cell(some, one, "cpu", 1))
    assert some.finished(one)
    assert not (some.folder(one).path / "weights.safetensors").exists()
    assert not (some.folder(one).path / "checkpoint.safetensors").exists()


def test_other_weights_of_the_same_name_are_another_training(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    file = tmp_path / "test_resnet.safetensors"

    def save(seed: int) -> None:
        torch.manual_seed(seed)
        save_file(build("test_resnet", 8).timm.state_dict(), file)

    one = dataclasses.replace(cell(backbone=str(file)), pretrained=True)
    random = dataclasses.replace(one, pretrained=False)
    some, clean = grid(tmp_path / "a", (one,)), grid(tmp_path / "b", (one,))
    save(1)
    list(run_cell(some, one, "cpu", 1))
    assert some.finished(one)
    save(2)
    assert not some.finished(one)
    list(run_cell(clean, one, "cpu", 1))
    steps = run_cell(some, one, "cpu", 1)
    for _ in range(6):
        next(steps)
    steps.close()
    assert not (some.folder(one).path / "cell.json").exists()  # its tables would be of both
    save(3)
    list(run_cell(some, one, "cpu", 1))  # not from the checkpoint of the second
    save(2)
    list(run_cell(some, one, "cpu", 1))
    assert same(weights(some.folder(one).path), weights(clean.folder(one).path))
    list(run_cell(other := grid(tmp_path / "c", (random,)), random, "cpu", 1))  # not from the file, as its name says
    save(1)
    assert other.finished(random)
    assert json.loads((other.folder(random).path / "cell.json").read_text())["initial weights"] == "random"


def test_other_weights_in_the_cache_of_timm_are_another_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import save_file

    file = tmp_path / "cached.safetensors"
    monkeypatch.setattr("fgfast.studies.weights.cached", lambda name, settings: file)
    one = dataclasses.replace(cell(), pretrained=True)
    some = grid(tmp_path / "a", (one,))
    for seed in (1, 2):
        torch.manual_seed(seed)
        save_file(build("test_resnet", 8).timm.state_dict(), file)
        assert not some.finished(one)
        list(run_cell(some, one, "cpu", 1))
        assert some.finished(one)
    file.unlink()
    assert some.finished(one)  # nothing says that they have changed


def test_an_arm_that_there_is_not_is_refused_before_anything_is_written() -> None:
    with pytest.raises(UnknownNameError, match="no arm named 'bogus'"):
        cell(train="bogus")


def test_a_full_disk_ends_the_study_not_a_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.torch
    from safetensors import SafetensorError

    def full(*_: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    some = grid(tmp_path, (cell(0), cell(1)))
    with monkeypatch.context() as patched:
        patched.setattr(safetensors.torch, "save_file", full)
        with pytest.raises(OutputFailedError, match=r"No space left .* What is finished is kept"):
            run(some, ("cpu",), in_process=True)
    assert run(some, ("cpu",), in_process=True).failed == ()
