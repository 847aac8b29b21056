"""Stamps every result with commit, machine and versions, so that it can be checked."""

from __future__ import annotations

import importlib.metadata
import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from fgfast import processes
from fgfast.io.provenance import versions
from fgfast.machine import available_cores, machine

# The packages that compute the models and their references, if they are installed.
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
# Seconds that nvidia-smi and git may take: a hanging driver must not hang the bench.
_TIMEOUT, _GIT_TIMEOUT = 10, 60
# A repository's settings name programs that git runs; these are the ones of the commands that are used here.
_NO_PROGRAMS = ("-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}", "--no-pager")


def stamp() -> dict[str, Any]:
    """Return commit, machine and versions, as stored beside every figure in bench/results.

    "load" is the system's load average over 1, 5 and 15 minutes, which includes the bench itself.
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
    """Return name, memory and driver of each NVIDIA GPU, as nvidia-smi reports them; none without nvidia-smi."""
    return [", ".join(row) for row in query_gpus("name", "memory.total", "driver_version")]


def query_gpus(*fields: str) -> list[list[str]]:
    """Query fields from nvidia-smi; return a row per GPU, and none if it is absent or fails."""
    command = ["nvidia-smi", "--query-gpu=" + ",".join(fields), "--format=csv,noheader"]
    try:
        done = processes.run(command, _TIMEOUT)
    except (OSError, processes.ChildError):
        return []
    output = "" if done.returncode else done.stdout
    return [[part.strip() for part in line.split(",")] for line in output.splitlines() if line.strip()]


@cache
def commit() -> str:
    """Return the commit of the source tree, with "+" if it has changes; "unknown" for an installed package.

    Files in bench/results do not count as changes. Git is queried once per process, because the running code was loaded
    by then.
    """
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():  # git would search above an installed package, in whatever repository is there
        return "unknown"
    head = git(folder, "rev-parse", "--short", "HEAD")
    changes = git(folder, "status", "--porcelain", "--", ":/", ":(top,exclude)bench/results")
    return "unknown" if head is None or changes is None else head + ("+" if changes else "")


def git(folder: Path, *words: str) -> str | None:
    """Run a git command in a repository, the code of which is run anyway; return its output, or None if it fails."""
    command = ["git", *_NO_PROGRAMS, "-C", str(folder), *words]
    try:
        done = processes.run(command, _GIT_TIMEOUT, {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"})
    except (OSError, processes.ChildError):
        return None
    return None if done.returncode else done.stdout.strip()
