"""run.json: the settings, versions and machine that made a twin, and when."""

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
from fgfast.io.encode import deflater
from fgfast.io.ledger import Ledger
from fgfast.machine import machine
from fgfast.writing import Target, write_file

# Packages whose version can change a pixel.
_PACKAGES = ("numpy", "opencv-contrib-python-headless", "pillow", "simplejpeg")


def write_run_json(
    target: Target,
    *,
    title: str,
    fingerprint: Mapping[str, Any],
    reasons: Sequence[str],
    warnings: Sequence[str],
    source: Mapping[str, Any],
    cpu_threads: int,
    result: Mapping[str, Any],
) -> dict[str, Any]:
    """Write run.json and return its content.

    Args:
        target: the file.
        title: the data set's name, for people.
        fingerprint: everything that changes the result.
        reasons: one sentence per choice.
        warnings: one sentence per reason to doubt many of the masks.
        source: data set, folder, label list, selection and background image, with which an output can be reopened.
        cpu_threads: number of threads that decode, cut and write.
        result: counts and times.
    """
    facts = {
        "title": title,
        "fingerprint": dict(fingerprint),
        "choices": list(reasons),
        "warnings": list(warnings),
        "source": dict(source),
        "result": dict(result),
        "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "code_sha256": code_hash(),
        "versions": versions(),
        "machine": {**machine(), "cpu_threads": cpu_threads},
    }
    write_file(target, (json.dumps(facts, indent=2, ensure_ascii=True) + "\n").encode())
    return facts


def add_run(ledger: Ledger, processed: int, seconds: float) -> dict[str, float]:
    """Add a run to those that made the twin, unless it processed nothing; return their number and their sums."""
    runs: list[dict[str, float]] = ledger.meta("runs") or []
    if processed:
        runs.append({"processed": processed, "seconds": round(seconds, 3)})
        ledger.set_meta({"runs": runs})
    return {
        "runs": len(runs),
        "processed": sum(run["processed"] for run in runs),
        "seconds": round(sum(run["seconds"] for run in runs), 3),
    }


def versions() -> dict[str, str]:
    """Return the versions that can change a pixel (Python, fgfast, packages), the ops in use, and the deflater."""
    found = {"python": platform.python_version(), "fgfast": fgfast.__version__, "ops": ops.implementation()}
    found["deflate"] = deflater()
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found


def code_hash() -> str:
    """Return the SHA-256 of the installed package's Python files, in order of their paths."""
    package = Path(fgfast.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(str(file.relative_to(package)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
