"""What `fgfast convert` would use on this machine and why, and what would improve it."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from fgfast.config import Settings
from fgfast.datasets.layout import Dataset
from fgfast.doctor import drivers
from fgfast.doctor.findings import attempted
from fgfast.errors import install_command, runtime_command
from fgfast.methods import METHODS
from fgfast.records import Sample

# Free bytes below which the cache's disk is reported: the weights of Detic and SAM ViT-L with their copies need them.
_LITTLE_SPACE = 8 << 30
# The models that convert prefers.
_MODELS = tuple(method for method in METHODS if method.is_model and method.automatic)
# The commits that fgfast is compared with; neither repository is on PyPI.
_ORIGINAL = {"detectron2": "02b5c4e2", "Detic": "436cda2a"}


@dataclass(frozen=True)
class _Example:
    """A data set of one image, with or without a box, for fgfast.pipeline.choices."""

    name: str
    subject: tuple[str, ...]
    samples: tuple[Sample, ...]


def choices() -> dict[str, dict[str, Any]]:
    """Kind of data set -> the methods that convert chooses for it, and the reasons."""
    box = np.array([[0, 0, 1, 1]], np.float32)
    examples = {
        "with boxes": _Example("cub", ("bird",), (Sample("a.jpg", Path("a.jpg"), boxes=box),)),
        "without boxes": _Example("folder", (), (Sample("a.jpg", Path("a.jpg")),)),
    }
    return {kind: attempted(partial(_choice, example)) for kind, example in examples.items()}


def _choice(example: _Example) -> dict[str, Any]:
    from fgfast.pipeline.choices import choose

    settings, reasons = choose(cast(Dataset, example), Settings(), measure=False)
    plain = [reason.replace(" for 1 of 1 images", "") for reason in reasons]
    return {"detector": settings.detector, "segmenter": settings.segmenter, "reasons": plain}


def steps(facts: dict[str, Any]) -> list[dict[str, str]]:
    """What would improve fgfast on this machine, the most useful first: the reason and the command."""
    found = [*_repairs(facts), *_models(facts), *_speed(facts), *_references(facts)]
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
        install = install_command("gpu" if _on_gpu(facts) else "cpu")
        found.append(
            (
                "onnxruntime and onnxruntime-gpu overwrite each other's files",
                f"pip uninstall -y onnxruntime onnxruntime-gpu && {install}",
            )
        )
    found += drivers.repairs(facts)
    if facts["fgfast"].get("native") is False:
        found.append(
            (
                "the native ops are not installed: the same images take longer; they need a C++17 compiler",
                install_command(options="--force-reinstall --no-deps --no-cache-dir"),
            )
        )
    for place in facts["disk"] if isinstance(facts["disk"], list) else ():
        if place["name"] == "cache" and place["free"] < _LITTLE_SPACE:
            found.append((f"{place['path']} has little space for weights", "export FGFAST_CACHE=/a/larger/disk"))
    return found


def _models(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Commands that give better masks and boxes."""
    found = []
    if importlib.util.find_spec("torch") is None:
        found.append(("the models need PyTorch", install_command(_MODELS[0].extra)))
    stored = {row["name"]: row["path"] for row in facts["weights"]} if isinstance(facts["weights"], list) else {}
    lacking = [model for model in _MODELS if not stored.get(model.weights, "unknown")]
    if lacking:
        better = {"segmenter": "gives better masks than GrabCut", "detector": "gives boxes"}
        reasons = [f"{model.name} ({model.licence}) {better[model.kind]}" for model in lacking]
        command = f"fgfast models pull {' '.join(model.weights for model in lacking)}"
        found.append((" and ".join(reasons), command))
    return found


def _speed(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Commands that make the models faster."""
    found = []
    gpus, packages = facts["gpus"], facts["packages"]
    usable = gpus.get("torch", {}).get("found") or []
    tensorrt = bool(usable and packages.get("tensorrt", {}).get("version"))
    if usable and not tensorrt:
        command = drivers.gpu_packages(facts) or runtime_command(gpu=True)
        found.append(("TensorRT is the fastest way to run the models on this GPU", command))
    if not usable and _computes_bf16():
        # convert takes bf16 here, and ONNX Runtime runs graphs in bf16 on GPUs only.
        return found
    stored = {row["name"] for row in facts["weights"] if row["path"]} if isinstance(facts["weights"], list) else set()
    rows = facts["graphs"] if isinstance(facts["graphs"], list) else []
    exported = {(row.get("model"), row["kind"]) for row in rows}
    install = _install_export(facts)
    what, kind, option = ("a TensorRT engine", "engine", " --backend tensorrt") if tensorrt else ("a graph", "onnx", "")
    for model in _MODELS:
        if model.weights in stored and (model.name, kind) not in exported:
            found.append((f"{model.name} may run faster as {what}", f"{install}fgfast export {model.name}{option}"))
    return found


def _install_export(facts: dict[str, Any]) -> str:
    """The beginning of a command that needs the packages of `fgfast export`: what installs those that are missing."""

    def missing(package: str) -> bool:
        return not facts["packages"].get(package, {}).get("version")

    extras = ("export",) if missing("onnx") or missing("onnxscript") else ()
    if missing("onnxruntime"):
        return f"{runtime_command(_on_gpu(facts), *extras)} && "
    return f"{install_command(*extras)} && " if extras else ""


def _on_gpu(facts: dict[str, Any]) -> bool:
    """Whether ONNX Runtime would compute on a GPU here."""
    return bool(facts["gpus"].get("torch", {}).get("found")) and drivers.gpu_packages(facts) is None


def _computes_bf16() -> bool:
    """Whether convert would choose bf16 on this CPU."""
    if importlib.util.find_spec("torch") is None:
        return False
    from fgfast.models.serving.devices import choose_precision

    return choose_precision("auto", "cpu")[0] == "bf16"


def _references(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """The commands that fetch the original Detic, where detectron2 is known to be absent."""
    if facts["packages"].get("detectron2", {"version": "unknown"})["version"]:
        return []
    command = " && ".join(
        f"git clone --recurse-submodules https://github.com/facebookresearch/{name} && git -C {name} checkout {commit}"
        for name, commit in _ORIGINAL.items()
    )
    reason = "only benches and tests against the original Detic need detectron2, which is not on PyPI (docs/models.md)"
    return [(reason, command)]
