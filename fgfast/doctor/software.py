"""fgfast itself, the packages it can use, and the environment variables it reads."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
from pathlib import Path
from typing import Any

from fgfast.doctor.findings import attempted

# Import name -> names it may be installed under; the name that fgfast's extras install comes first.
PACKAGES = {
    "numpy": ("numpy",),
    "cv2": (
        "opencv-contrib-python-headless",
        "opencv-contrib-python",
        "opencv-python-headless",
        "opencv-python",
    ),
    "PIL": ("pillow",),
    "simplejpeg": ("simplejpeg",),
    "pyarrow": ("pyarrow",),
    "torch": ("torch",),
    "torchvision": ("torchvision",),
    "triton": ("triton", "triton-windows"),
    "safetensors": ("safetensors",),
    "transformers": ("transformers",),
    "onnx": ("onnx",),
    "onnxscript": ("onnxscript",),
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime"),
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "nvidia.dali": ("nvidia-dali-cuda130", "nvidia-dali-cuda120", "nvidia-dali-cuda110"),
    "open_clip": ("open_clip_torch",),
    "segment_anything": ("segment-anything",),
    "detectron2": ("detectron2",),
    "ray": ("ray",),
}
# Variables that are reported besides those that begin with FGFAST_.
_VARIABLES = (
    *("HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE", "XDG_CACHE_HOME"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_HOME", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "MKL_NUM_THREADS"),
    *("TORCHINDUCTOR_CACHE_DIR", "TORCH_HOME"),
)


def fgfast() -> dict[str, Any]:
    """The versions and paths of fgfast and Python, and which implementation of the ops is used."""
    import fgfast as package
    from fgfast import ops

    return {
        "version": package.__version__,
        "path": str(Path(package.__file__).parent),
        "python": platform.python_version(),
        "interpreter": sys.executable,
        "native": importlib.util.find_spec("fgfast._native") is not None,
        "ops": attempted(ops.implementation),
    }


def packages() -> dict[str, dict[str, Any]]:
    """Package -> its version (None if not installed), its names if it is installed twice, and its capabilities."""
    found: dict[str, dict[str, Any]] = {}
    for module, names in PACKAGES.items():
        versions = {name: version for name in names if (version := _version(name))}
        facts: dict[str, Any] = {"version": next(iter(versions.values()), None)}
        if not versions and _importable(module):
            facts["version"] = "unknown"
        if len(versions) > 1:
            facts["duplicates"] = versions
        elif versions:
            facts["installed_as"] = next(iter(versions))
        found[module] = facts
    if found["onnxruntime"]["version"]:
        found["onnxruntime"]["providers"] = attempted(_providers)
    if found["cv2"]["version"]:
        found["cv2"]["guided_filter"] = attempted(_guided_filter)
    return found


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _providers() -> list[str]:
    onnxruntime = importlib.import_module("onnxruntime")  # it has no types
    return list(onnxruntime.get_available_providers())


def _guided_filter() -> bool:
    from fgfast.models.grabcut import check_opencv

    check_opencv()
    return True


def environment() -> dict[str, str]:
    """The relevant variables that are set, without values that could hold a password."""
    found = {}
    for name in sorted(os.environ):
        if name.startswith("FGFAST_") or name in _VARIABLES:
            value = os.environ[name]
            found[name] = "(an address that may hold a password)" if "@" in value and "://" in value else value
    return found
