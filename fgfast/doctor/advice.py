"""What `fgfast convert` would use on this machine, why, and what would improve it."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from fgfast.config import Settings
from fgfast.datasets.layout import Dataset
from fgfast.doctor.findings import attempted
from fgfast.records import Sample

# Free bytes below which the cache's disk is reported: the weights of Detic and SAM ViT-L with their copies need them.
_LITTLE_ROOM = 8 << 30


@dataclass(frozen=True)
class _Example:
    """A data set of one image, with or without a box, for fgfast.pipeline.choices."""

    name: str
    subject: tuple[str, ...]
    samples: tuple[Sample, ...]


def choices() -> dict[str, dict[str, Any]]:
    """Kind of data set -> what convert chooses for it, and why."""
    box = np.array([[0, 0, 1, 1]], np.float32)
    examples = {
        "with boxes": _Example("cub", ("bird",), (Sample("a.jpg", Path("a.jpg"), boxes=box),)),
        "without boxes": _Example("folder", (), (Sample("a.jpg", Path("a.jpg")),)),
    }
    return {kind: attempted(partial(_choice, example)) for kind, example in examples.items()}


def _choice(example: _Example) -> dict[str, Any]:
    from fgfast.pipeline import choices as methods

    settings, reasons = methods.choose(cast(Dataset, example), Settings(), measure=False)
    plain = [reason.replace(" for 1 of 1 images", "") for reason in reasons]
    return {"detector": settings.detector, "segmenter": settings.segmenter, "reasons": plain}


def steps(facts: dict[str, Any]) -> list[dict[str, str]]:
    """What would improve fgfast on this machine, the most useful first: the reason, and the command to type."""
    found = [*_repairs(facts), *_models(facts), *_speed(facts)]
    return [{"reason": reason, "command": command} for reason, command in found]


def _repairs(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Commands that repair what is broken."""
    found = []
    opencv = facts["packages"].get("cv2", {})
    if isinstance(opencv.get("guided_filter"), dict):
        found.append(
            (
                "OpenCV lacks the guided filter that GrabCut needs: another OpenCV package hides it",
                "pip uninstall -y opencv-python opencv-python-headless opencv-contrib-python && "
                "pip install --force-reinstall opencv-contrib-python-headless",
            )
        )
    if facts["packages"].get("onnxruntime", {}).get("duplicates"):
        found.append(
            (
                "onnxruntime and onnxruntime-gpu overwrite each other's files",
                "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu",
            )
        )
    if facts["fgfast"].get("native") is False:
        found.append(
            (
                "the native ops are not installed: the same images take longer; they need a C++17 compiler",
                "pip install --force-reinstall --no-deps --no-cache-dir fgfast   (in a clone: .)",
            )
        )
    for place in facts["disk"] if isinstance(facts["disk"], list) else ():
        if place["name"] == "cache" and place["free"] < _LITTLE_ROOM:
            found.append((f"{place['path']} has little room for weights", "export FGFAST_CACHE=/a/larger/disk"))
    return found


def _models(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Commands that give better masks and boxes."""
    found = []
    if importlib.util.find_spec("torch") is None:
        found.append(("the models need PyTorch", 'pip install "fgfast[models]"'))
    stored = {row["name"]: row["path"] for row in facts["weights"]} if isinstance(facts["weights"], list) else {}
    lacking = [name for name in ("detic", "sam_vit_l") if name in stored and not stored[name]]
    if lacking:
        better = {"sam_vit_l": "SAM gives better masks than GrabCut", "detic": "Detic gives boxes"}
        reason = " and ".join(better[name] for name in reversed(lacking))
        found.append((reason, f"fgfast models pull {' '.join(lacking)}"))
    return found


def _speed(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Commands that make the models faster."""
    found = []
    gpus = facts["gpus"]
    seen = gpus.get("driver", {}).get("found") or []
    usable = gpus.get("torch", {}).get("found") or []
    if seen and not usable and importlib.util.find_spec("torch"):
        built = gpus["torch"].get("cuda") or "no CUDA"
        found.append((f"torch cannot use {seen[0]['name']} (built for {built})", "pip install --force-reinstall torch"))
    packages = facts["packages"]
    if usable and not packages.get("tensorrt", {}).get("version"):
        found.append(("TensorRT is the fastest way to run the models on this GPU", 'pip install "fgfast[gpu]"'))
    stored = {row["name"] for row in facts["weights"] if row["path"]} if isinstance(facts["weights"], list) else set()
    rows = facts["graphs"] if isinstance(facts["graphs"], list) else []
    exported = {(row.get("model"), row["kind"]) for row in rows}
    # On a CPU that computes bf16, convert takes bf16, and ONNX Runtime runs graphs in bf16 on GPUs only.
    idle = not usable and _computes_bf16()
    tensorrt = bool(usable and packages.get("tensorrt", {}).get("version"))
    for name in ("detic", "sam_vit_l"):
        if name in stored and not idle and (name, "engine" if tensorrt else "onnx") not in exported:
            lacks = [p for p in ("onnx", "onnxscript", "onnxruntime") if not packages.get(p, {}).get("version")]
            command = 'pip install "fgfast[export]" && ' if lacks else ""
            command += f"fgfast export {name}{' --backend tensorrt' if tensorrt else ''}"
            what = "a TensorRT engine" if tensorrt else "an exported graph"
            found.append((f"{name} may run faster as {what}", command))
    return found


def _computes_bf16() -> bool:
    """Whether convert would choose bf16 on this CPU."""
    if importlib.util.find_spec("torch") is None:
        return False
    from fgfast.models.serving.devices import choose_precision

    return choose_precision("auto", "cpu")[0] == "bf16"
