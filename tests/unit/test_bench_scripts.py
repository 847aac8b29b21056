"""The scripts of bench/: each runs by itself and describes its options in sentences."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

SCRIPTS = sorted((Path(__file__).resolve().parents[2] / "bench").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_help_is_in_sentences(script: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: {script.name}")
    command = importlib.import_module(script.stem).main
    described = [command.help, *(param.help for param in command.params if isinstance(param, click.Option))]
    for text in described:
        assert re.fullmatch(r"[A-Z].*\.(  \[default: [^]]+\])?", text, flags=re.S), f"{text!r} is no sentence"
