"""The scripts of bench/: each runs by itself and describes its options in sentences."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).resolve().parents[2] / "bench").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_help_is_in_sentences(script: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    usage, description, *_ = done.stdout.split("\n\n")
    assert usage.startswith(f"usage: {script.name}")
    assert re.fullmatch(r"[A-Z].*\.", description, flags=re.S)
    given = re.findall(r"^  (-?-?[\w,.{} -]+?)(?:  +|\n +)(\S.*?)(?=\n  \S|\n\n|\Z)", done.stdout, flags=re.M | re.S)
    described = {names: " ".join(text.split()) for names, text in given if not names.startswith("-h")}
    assert described
    for names, text in described.items():
        assert re.fullmatch(r"[A-Z].*\.", text), f"{names}: {text!r} is no sentence"
