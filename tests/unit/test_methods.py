"""The table of methods: every entry can be resolved, and one more entry is a new method everywhere."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from layouts import BUILDERS
from PIL import Image as Pillow

import fgfast
from fgfast import methods
from fgfast.errors import UnknownNameError, UsageError
from fgfast.methods import METHODS, Method, ModelSpec
from fgfast.models.files import weights
from fgfast.records import Bool, Float32, Mask, UInt8

TORCH = importlib.util.find_spec("torch") is not None


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_dotted_name_is_a_function(method: Method) -> None:
    if method.is_model and not TORCH:
        pytest.skip("PyTorch is not installed")
    dotted = [method.build, *(name for name in (method.graphs, method.timed, method.share, method.check) if name)]
    assert all(callable(methods.resolve(name)) for name in dotted)
    assert bool(method.graphs) == bool(method.timed) == method.is_model


def test_names_are_unique_and_every_model_has_weights_a_licence_and_a_source() -> None:
    for kind in ("detector", "segmenter"):
        names = [name for method in methods.methods(kind) for name in (method.name, *method.aliases)]
        assert len(set(names)) == len(names)
    for model in methods.models():  # they are found without their kind
        assert all(methods.find(name) is model for name in (model.name, *model.aliases))
    for method in methods.models():
        assert method.weights in weights.MODELS and method.licence and method.source and method.extra, method.name


def test_every_kind_has_a_method_that_needs_nothing() -> None:
    for kind in ("detector", "segmenter"):
        assert any(m.automatic and not m.is_model and not m.annotated for m in methods.methods(kind)), kind


def test_an_alias_is_its_method_and_another_name_is_refused() -> None:
    assert methods.method("sam").name == "sam_vit_l"
    with pytest.raises(UnknownNameError, match="sam_vit_l"):
        methods.method("sam_vit_xl")
    with pytest.raises(UnknownNameError, match="no segmenter named 'center'"):
        methods.method("center", "segmenter")


@pytest.mark.parametrize(("text", "seed"), [("random:7", 7), ("cached", None), ("/tmp/random:x.pth", None)])
def test_seeds(text: str, seed: int | None) -> None:
    assert methods.seed_of(text) == ModelSpec("detic", text).seed == seed


@pytest.mark.parametrize("text", ["random:", "random:x", "random:-1", "random:1.5"])
def test_a_seed_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="random:SEED"):
        methods.seed_of(text)


def left_half(spec: ModelSpec) -> Any:
    """A dummy segmenter: the left half of the box is the subject."""

    def segment(pixels: UInt8, box: Float32, banner_rows: int) -> Mask:
        bits: Bool = np.zeros(pixels.shape[:2], np.bool_)
        x0, y0, x1, y1 = box.astype(int)
        bits[y0:y1, x0 : (x0 + x1) // 2] = True
        return Mask(bits)

    return segment


@pytest.fixture
def dummy(monkeypatch: pytest.MonkeyPatch) -> None:
    # This file is no module of a package; worker processes find it by its folder.
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    entry = Method("left_half", "segmenter", "the left half of the box", "test_methods:left_half")
    monkeypatch.setattr(methods, "METHODS", (*METHODS, entry))


def masks_of(out: Path) -> dict[str, UInt8]:
    folder = out / ".masks"
    return {p.relative_to(folder).as_posix(): np.asarray(Pillow.open(p)) for p in sorted(folder.rglob("*.png"))}


def test_one_entry_is_a_new_segmenter_in_python_and_on_the_command_line(dummy: None, tmp_path: Path) -> None:
    from fgfast.cli import main

    root = BUILDERS["cub"](tmp_path / "data")
    report = fgfast.convert("cub", tmp_path / "a", root=root, settings=fgfast.Settings(segmenter="left_half"))
    assert report.counts["failed"] == 0 and report.total > 0
    arguments = ["convert", "--dataset", "cub", "--root", str(root), "--out", str(tmp_path / "b")]
    done = CliRunner().invoke(main, [*arguments, "--segmenter", "left_half", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["counts"] == report.counts
    python, command = masks_of(tmp_path / "a"), masks_of(tmp_path / "b")
    assert python.keys() == command.keys() and len(python) == report.total
    assert all(np.array_equal(python[key], command[key]) for key in python)
    cutout = fgfast.cut_out(
        np.full((40, 60, 3), 9, np.uint8), (10, 10, 50, 30), settings=fgfast.Settings(segmenter="left_half")
    )
    assert np.flatnonzero(cutout.mask.bits.any(0)).tolist() == list(range(10, 30))
    done = CliRunner().invoke(main, [*arguments, "--segmenter", "left_hulf"])
    assert done.exit_code == 2 and "Did you mean 'left_half'?" in done.output
