"""What a figure must carry to be believed: commit, machine, versions."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from fgfast.io.provenance import versions
from fgfast.machine import machine


def stamp() -> dict[str, Any]:
    """Commit, machine and versions, as they stand beside every figure in bench/results."""
    return {"commit": commit(), "machine": machine(), "versions": versions()}


def commit() -> str:
    """The commit of the source tree, with "+" where it has changes; "unknown" for an installed package."""
    folder = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        changes = subprocess.run(
            ["git", "-C", str(folder), "status", "--porcelain"], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changes else "")
