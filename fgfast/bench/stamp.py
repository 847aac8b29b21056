"""What a figure must carry to be believed: commit, machine, versions."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from fgfast.io.provenance import versions
from fgfast.machine import available_cores, machine

# What computes the models and their references, where it is installed.
_PACKAGES = (
    "torch",
    "torchvision",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "nvidia-dali-cuda130",
    "segment-anything",
    "pycocotools",
)
# Of nvidia-smi, in seconds; a driver that hangs must not hang us.
_PATIENCE = 10


def stamp() -> dict[str, Any]:
    """Commit, machine and versions, as they stand beside every figure in bench/results.

    "load" is the system's, processes that want to run in the last 1, 5 and 15 minutes, our own included.
    """
    found: dict[str, Any] = {
        "commit": commit(),
        "machine": {**machine(), "usable_cores": available_cores()},
        "versions": versions(),
    }
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found["versions"][package] = importlib.metadata.version(package)
    if names := gpus():
        found["machine"]["gpus"] = names
    with suppress(OSError, AttributeError):  # where the system does not tell
        found["load"] = [round(load, 2) for load in os.getloadavg()]
    return found


@cache
def gpus() -> list[str]:
    """Name, memory and driver of each NVIDIA GPU, as nvidia-smi tells them; none where it is absent."""
    return [", ".join(row) for row in ask_gpus("name", "memory.total", "driver_version")]


def ask_gpus(*fields: str) -> list[list[str]]:
    """A row of these fields for each GPU; none where nvidia-smi is absent or fails."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=" + ",".join(fields), "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_PATIENCE).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [[part.strip() for part in line.split(",")] for line in told.splitlines() if line.strip()]


@cache
def commit() -> str:
    """The commit of the source tree, with "+" where it has changes; "unknown" for an installed package.

    Results that were saved since are no change. Asked once a process: what runs was loaded by then.
    """
    folder = str(Path(__file__).resolve().parent)
    changed = ["status", "--porcelain", "--", ":/", ":(top,exclude)bench/results"]
    try:
        head, changes = (
            subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, check=True).stdout.strip()
            for words in (["rev-parse", "--short", "HEAD"], changed)
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changes else "")
