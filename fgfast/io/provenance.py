"""run.json: what a twin was made with, where and when."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fgfast
from fgfast import ops
from fgfast.io.png import deflater
from fgfast.io.write import write_file
from fgfast.machine import machine

# The packages whose version can change a pixel.
_PACKAGES = ("numpy", "opencv-contrib-python-headless", "pillow", "simplejpeg")


def write_run_json(
    path: Path,
    *,
    title: str,
    made_with: Mapping[str, Any],
    reasons: Sequence[str],
    root: Path,
    workers: int,
    result: Mapping[str, Any],
) -> dict[str, Any]:
    """Write run.json and return its content.

    Args:
        path: the file.
        title: what to call the data set.
        made_with: everything that changes the result.
        reasons: one sentence for each choice that was made.
        root: the data set's folder.
        workers: number of threads.
        result: counts and times.
    """
    facts = {
        "title": title,
        "made_with": dict(made_with),
        "choices": list(reasons),
        "data_set_root": str(root.absolute()),
        "result": dict(result),
        "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "code_sha256": code_hash(),
        "versions": versions(),
        "machine": {**machine(), "workers": workers},
    }
    write_file(path, (json.dumps(facts, indent=2, ensure_ascii=True) + "\n").encode())
    return facts


def versions() -> dict[str, str]:
    """Versions of Python, fgfast and the packages whose version can change a pixel; who does the ops and deflates."""
    found = {"python": platform.python_version(), "fgfast": fgfast.__version__, "ops": ops.implementation()}
    found["deflate"] = deflater()
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found


def code_hash() -> str:
    """SHA-256 over the Python files of the installed package, in order of their paths."""
    package = Path(fgfast.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(str(file.relative_to(package)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
