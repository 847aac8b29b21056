"""The scripts in export/ and `python -m fgfast.export`: their help, their files, and the models that they know."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fgfast.errors import UnknownNameError, UsageError
from fgfast.export.command import export
from fgfast.export.exportable import DETIC_SPLIT, EXPORTABLE, family_of, graphs_of, parse_canvases
from fgfast.graphs import GRAPHS

SCRIPTS = sorted((Path(__file__).resolve().parents[2] / "export").glob("*.py"))
if not SCRIPTS:
    pytest.skip("export/ is not here (it is left out of wheels)", allow_module_level=True)


def run(*command: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", [*([path] for path in SCRIPTS), ["-m", "fgfast.export"]], ids=str)
def test_help_is_sentences(command: list[Any]) -> None:
    done = run(*command, "--help")
    assert done.returncode == 0, done.stderr
    _, _, options = done.stdout.partition("Options:\n")
    texts = [" ".join(text.split()) for text in re.split(r"^  -", options, flags=re.MULTILINE)[1:]]
    assert {"--precision", "--backend", "--out"} <= set(re.findall(r"--\w+", options))
    for text in texts:
        assert re.search(r" [A-Z][\w']+ .*\.( \[[^]]*\])?$", text), text


def test_scripts_are_short_and_have_the_models_of_one_family() -> None:
    assert [path.stem for path in SCRIPTS] == ["detic", "grounding_dino", "sam_decoder", "sam_encoder"]
    for path in SCRIPTS:
        assert len(path.read_text().splitlines()) <= 25
        shown = run(path, "--help").stdout
        family = next(name for name in ("detic", "sam", "grounding_dino") if path.stem.startswith(name))
        others = [name for name in EXPORTABLE if family_of(name) != family]
        assert not [name for name in others if name in shown]


@pytest.mark.parametrize(
    ("command", "files"),
    [
        pytest.param(
            [SCRIPTS[0].with_name("sam_decoder.py"), "--model"], ["sam_mask_decoder.onnx"], marks=pytest.mark.full
        ),
        (["-m", "fgfast.export"], ["sam_image_encoder-b1.onnx", "sam_mask_decoder.onnx"]),
    ],
    ids=["script", "module"],
)
def test_graphs_are_written(command: list[Any], files: list[str], tmp_path: Path) -> None:
    """A script writes its own graph only; the module writes all that a run needs."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    options = ("--model-weights", "random:1", "--precision", "fp32", "--out", tmp_path)
    done = run(*command, "sam_tiny256", *options)
    assert done.returncode == 0, done.stderr[-2000:]
    written = [Path(line) for line in done.stdout.split()]
    assert [path.name for path in written] == files
    assert sorted(written[0].parent.glob("*.onnx")) == sorted(written)
    assert done.stderr.count("agrees with PyTorch; largest differences: ") == len(files)


def test_an_alias_stands_for_its_model() -> None:
    pytest.importorskip("onnxscript")
    done = run("-m", "fgfast.export", "sam", "--model-weights", "no/such/file")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "'sam'" not in done.stderr


def test_errors_are_one_line(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    done = run("-m", "fgfast.export", "sam_vit_x", "--model-weights", "random:1", "--out", tmp_path)
    assert done.returncode == 2
    assert "no model named 'sam_vit_x'" in done.stderr and "tiny" not in done.stderr
    path = SCRIPTS[0].with_name("sam_encoder.py")
    done = run(path, "--model", "detic", "--out", tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: no graph of detic named 'sam_image_encoder'. Known: " + (
        "detic_backbone, detic_detector, detic_heads.\n"
    )
    done = run(SCRIPTS[0], "--canvas", "800x1000")
    assert done.returncode == 2
    assert "'800x1000' must be HEIGHTxWIDTH in multiples of 32, for example 800x1216" in done.stderr


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("sam_vit_b", ["--words", "5"], "--words is for detic, and has no effect on sam_vit_b: omit it"),
        ("grounding_dino_tiny", ["--split"], "--split is for detic, and has no effect on grounding_dino_tiny: omit it"),
        ("sam_vit_b", ["--canvas", "common"], "sam_vit_b takes images of one size: omit --canvas"),
        ("sam_vit_b", ["--images", "16"], "--images is the number of images of --calibrate, and has no effect without"),
    ],
)
def test_options_without_effect_are_refused(model: str, options: list[str], message: str) -> None:
    done = CliRunner().invoke(export, [model, *options, "--model-weights", "random:1"])
    assert isinstance(done.exception, UsageError) and str(done.exception).startswith(message)


def test_graphs_of_models() -> None:
    for model in EXPORTABLE:
        assert set(graphs_of(model)) <= set(GRAPHS)
    assert graphs_of("detic") == ("detic_detector",)
    assert graphs_of("detic", DETIC_SPLIT) == DETIC_SPLIT
    assert graphs_of("detic", (), "tensorrt") == DETIC_SPLIT
    assert graphs_of("sam_vit_b", (), "tensorrt") == graphs_of("sam_vit_b")
    assert graphs_of("sam_vit_b", ("sam_mask_decoder",)) == ("sam_mask_decoder",)
    with pytest.raises(UnknownNameError, match="no graph of sam_vit_b named 'sam_text_decoder'"):
        graphs_of("sam_vit_b", ("sam_text_decoder",))
    with pytest.raises(UnknownNameError, match="no model to export named 'sam2'"):
        graphs_of("sam2")


@pytest.mark.parametrize("text", ["800", "800x", "0x32", "800x1000", "800 x 1216", "-32x32", "800x1216,"])
def test_canvases_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="must be HEIGHTxWIDTH in multiples of 32"):
        parse_canvases(text)
    assert parse_canvases("800x1216, 1216x800") == [(800, 1216), (1216, 800)]
    assert parse_canvases("common") == "common"


def test_the_canvases_that_are_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that hold every image by default, since each takes minutes; with "common", all that a GPU's run has."""
    pytest.importorskip("torch")
    from fgfast.export import detic
    from fgfast.methods import ModelSpec
    from fgfast.models.detic.canvas import CANVASES
    from fgfast.records import Size

    monkeypatch.setattr(detic, "part", lambda model, exact, name, canvas, batch, words: canvas)
    spec, graphs = ModelSpec("detic_nano", "random:0"), ("detic_detector",)
    assert list(detic.parts(spec, (), graphs)) == [(800, 1344), (1344, 800)]
    assert list(detic.parts(spec, "common", graphs)) == list(CANVASES)
    assert list(detic.parts(spec, [Size(320, 320)], graphs)) == [(320, 320)]
