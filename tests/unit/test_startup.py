"""What a command imports before it does anything: modules are counted, not seconds."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from fgfast.cli import main

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
