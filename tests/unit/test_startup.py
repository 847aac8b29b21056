"""What a command imports before it does anything: modules are counted, not seconds."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path, PurePosixPath

import click
import pytest
from click.testing import CliRunner

from fgfast.cli import main
from fgfast.data_paths import DataPath
from fgfast.datasets import open_dataset
from fgfast.datasets.folder_tree import can_be_key, place
from fgfast.image_formats import written_suffix
from fgfast.pipeline.plan import names
from fgfast.records import Sample

HEAVY = ("numpy", "cv2", "scipy", "torch", "rich", "PIL", "fgfast.config", "fgfast.methods")
OF_COMMANDS = ("bench", "convert", "cut", "datasets", "doctor", "expand", "masks", "models", "quality", "study")


def imported(code: str) -> set[str]:
    """Return the modules that a fresh Python has after `code`, which must not print."""
    code += "; import json, sys; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def after(*arguments: str) -> set[str]:
    return imported(f"from fgfast.cli import main; main({list(arguments)!r}, standalone_mode=False)")


def test_help_imports_no_command() -> None:
    found = after("--help")
    assert not found & {*HEAVY, *(f"fgfast.cli.{name}" for name in OF_COMMANDS), "fgfast.export"}


@pytest.mark.parametrize("name", ["convert", "verify", "doctor"])
def test_the_help_of_a_command_imports_no_other(name: str) -> None:
    found = after(name, "--help")
    others = {"bench", "doctor", "expand", "study", "models"} - {name}
    assert f"fgfast.cli.{name}" in found
    assert not found & {*(f"fgfast.cli.{other}" for other in others), "fgfast.export", "numpy", "cv2", "torch"}


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_the_list_of_commands_is_as_click_writes_it(columns: str) -> None:
    eager = click.Group(
        "fgfast",
        commands=dict(main.commands),
        params=main.params,
        help=main.help,
        context_settings=main.context_settings,
    )
    lazy, plain = (
        CliRunner().invoke(group, ["--help"], prog_name="fgfast", terminal_width=int(columns)).output
        for group in (main, eager)
    )
    assert lazy == plain
    assert "completion" in lazy


def test_a_misspelt_command_still_gets_a_suggestion() -> None:
    done = CliRunner().invoke(main, ["convrt"])
    assert done.exit_code == 2
    assert "Did you mean 'convert'?" in done.output


def test_doctor_looks_for_a_compiler_without_torch() -> None:
    # The module of the fused attention imports torch's compiler, which takes longer than torch itself.
    assert "torch" not in imported("from fgfast.doctor.hardware import _triton; assert 'compiler' in _triton()")


@pytest.mark.parametrize("model", ["sam", "detic"])
def test_models_import_no_compiler_of_torch(model: str) -> None:
    pytest.importorskip("torch", reason="models need torch")
    assert "torch._dynamo" not in imported(f"import fgfast.models.{model}.sessions")


# Every path of up to four of these pieces, among them the ones that PurePosixPath leaves out.
PIECES = ("", ".", "..", "...", "a", ".a", "a.", "b.JPG", "c.tar.gz", "\u0130.\u0130")
PATHS = sorted({"/".join(parts) for n in range(1, 5) for parts in itertools.product(PIECES, repeat=n)})


def test_names_are_taken_apart_as_by_pathlib() -> None:
    for text in PATHS:
        pure = PurePosixPath(text)
        if sys.version_info < (3, 14) or not pure.name.endswith("."):  # since 3.14, "a." has the suffix "."
            assert written_suffix(text) == pure.suffix, text
        if not text.startswith("/"):
            assert place(text, {}) == ("", [*pure.parts[:-1], ""][0]), text
        below = PurePosixPath(f"x/{text}".lstrip("/"))
        assert (DataPath("top", "x") / text).below == str(below), text
        top = PurePosixPath(text.lstrip("/"))
        assert (DataPath("top") / text).below == (str(top) if top.parts else ""), text


def test_the_keys_that_a_sample_refuses_are_those_of_pathlib() -> None:
    for text in (*PATHS, "a\\b"):
        parts = PurePosixPath(text).parts
        refused = not parts or text.startswith("/") or ".." in parts or "\\" in text
        try:
            Sample(text, Path("x"))
        except ValueError:
            assert refused, text
        else:
            assert not refused, text


def test_a_key_is_text_that_utf_8_can_hold() -> None:
    assert can_be_key("a/b.jpg") and can_be_key("\u00e4/\U0001f426.jpg")
    assert not can_be_key("a\\b") and not can_be_key("a/\udc80.jpg")


def test_the_list_of_a_folder_takes_no_pathlib_per_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # `--limit 100` of many images reads the names of all of them, because names in the twin do not depend on it.
    made = []
    parse = PurePosixPath.__new__

    def counted(cls: type[PurePosixPath], *parts: object, **more: object) -> PurePosixPath:
        made.append(parts)
        return parse(cls, *parts, **more)  # type: ignore[arg-type]

    for number in range(200):
        (tmp_path / f"{number:03}.jpg").touch()
    monkeypatch.setattr(PurePosixPath, "__new__", counted)
    opened = open_dataset(str(tmp_path))
    names([sample.key for sample in opened.samples], "png", False)
    assert len(opened.samples) == 200
    assert len(made) < 200
