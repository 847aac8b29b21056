"""Measures what an export costs and gains: seconds, peak memory, and the graph in ONNX Runtime beside PyTorch."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from fgfast import processes
from fgfast.bench.stamp import stamp
from fgfast.machine import available_cores
from fgfast.records import Size
from fgfast.terminal import say
from fgfast.writing import scratch_folder

MODELS = ("sam_vit_b", "sam_vit_l", "sam_vit_h", "detic")
_WEIGHTS = "random:1"
_ROUNDS = 3
# The only canvas that Detic is exported for, height and width in pixels: that of a 3:2 image.
_CANVAS = Size(800, 1216)


def measure(model: str) -> dict[str, Any]:
    """Export a model in float32 with random weights, and time its main graph in both backends.

    Args:
        model: one of `MODELS`.

    Returns:
        Seconds and peak memory of the export with its check, sizes of the files, largest differences from PyTorch,
        seconds per image, the machine and the versions, as plain values.
    """
    with scratch_folder("fgfast-bench-") as folder:
        seconds, peak = export(model, folder)
        (where,) = (path.parent for path in folder.rglob("*.onnx") if "decoder" not in path.name)
        return {
            "bench": "export",
            "model": model,
            "precision": "fp32",
            "model_weights": _WEIGHTS,
            "export_and_check_seconds": round(seconds, 1),
            "peak_mib": round(peak),
            "files_mb": {file.name: round(file.stat().st_size / 1e6, 1) for file in sorted(where.iterdir())},
            "largest_differences": differences(where),
            "seconds_per_image": compare(model, where),
            "cores": available_cores(),
            **stamp(),
        }


def export(model: str, folder: Path) -> tuple[float, float]:
    """Run `fgfast export` into a folder; return its seconds and its peak memory in MiB."""
    command = ["export", model, "--precision", "fp32", "--out", str(folder)]
    command += ["--model-weights", _WEIGHTS]
    if model == "detic":
        command += ["--canvas", f"{_CANVAS[0]}x{_CANVAS[1]}"]
    start = time.perf_counter()
    run = f"from fgfast.cli import main; main({command!r}, 'fgfast')"
    nothing = subprocess.DEVNULL
    process = processes.start_python(run, processes.import_path(), stdin=nothing, stdout=nothing, stderr=None)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"fgfast {' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    # Linux counts in KiB.
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def differences(where: Path) -> dict[str, float]:
    """Return the largest difference from PyTorch that the check found for each output of the graphs in a folder."""
    worst: dict[str, float] = {}
    for manifest in where.glob("*.json"):
        for record in json.loads(manifest.read_text())["measured"]:
            if "output" in record:
                largest = float(f"{record['largest']:.2g}")
                worst[record["output"]] = max(worst.get(record["output"], 0.0), largest)
    return worst


def compare(model: str, where: Path) -> dict[str, float]:
    """Time the main graph in both backends, in turns; return the seconds of the fastest round of each."""
    from fgfast.methods import ModelSpec
    from fgfast.models.detic.build import build_detic
    from fgfast.models.detic.sessions import detic_in_torch
    from fgfast.models.files.graph_files import find
    from fgfast.models.sam.sessions import segmenter
    from fgfast.models.serving.exported import load
    from fgfast.models.serving.speed import seconds_of

    graph = "detic_detector" if model == "detic" else "sam_image_encoder"
    spec = ModelSpec(model, _WEIGHTS)
    ours = load(find(graph, where)[0], replace(spec, backend="onnxruntime"))
    torch = detic_in_torch(build_detic(spec)).session(_CANVAS, 1) if model == "detic" else segmenter(spec).encoder
    found: dict[str, list[float]] = {"torch": [], "onnxruntime": []}
    for _ in range(_ROUNDS):
        for name, session in zip(found, (torch, ours), strict=True):
            found[name].append(seconds_of(session, rounds=1))
    return {name: round(min(values), 3) for name, values in found.items()}


@click.command()
@click.argument("model", type=click.Choice(MODELS))
def main(model: str) -> None:
    """Measure what exporting a model costs and gains: seconds, peak memory, and ONNX Runtime beside PyTorch."""
    say(json.dumps(measure(model), indent=2))


if __name__ == "__main__":
    main()
