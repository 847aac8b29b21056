"""What stands beside every figure, so that it can be checked: commit, machine, versions."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from fgfast.io.provenance import versions
from fgfast.machine import available_cores, machine

# The packages that compute the models and their references, where they are installed.
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
# Seconds that nvidia-smi may take: a driver that hangs must not hang the bench.
_PATIENCE = 10


def stamp() -> dict[str, Any]:
    """Commit, machine and versions, as they stand beside every figure in bench/results.

    "load" is the load of the system: the processes that wanted to run in the last 1, 5 and 15 minutes, those of the
    bench included.
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
    found["load"] = [round(load, 2) for load in psutil.getloadavg()]
    return found


@cache
def gpus() -> list[str]:
    """Name, memory and driver of each NVIDIA GPU, as nvidia-smi reports them; none where it is absent."""
    return [", ".join(row) for row in ask_gpus("name", "memory.total", "driver_version")]


def ask_gpus(*fields: str) -> list[list[str]]:
    """Ask nvidia-smi for some fields; return a row per GPU, and none where it is absent or fails."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=" + ",".join(fields), "--format=csv,noheader"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_PATIENCE).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [[part.strip() for part in line.split(",")] for line in output.splitlines() if line.strip()]


@cache
def commit() -> str:
    """The commit of the source tree, with "+" where it has changes; "unknown" for an installed package.

    Files in bench/results do not count as changes. Git is asked once per process, because the code that runs was loaded
    by then.
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
