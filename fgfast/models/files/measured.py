"""What was measured once on this machine with today's packages, in one JSON file in the cache folder.

Whatever was measured depends on the machine and on versions, which therefore stand in its key.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import fgfast
from fgfast import ops
from fgfast.machine import available_cores, processor_name
from fgfast.transfer import cache_folder

_PACKAGES = ("torch", "onnxruntime", "onnxruntime-gpu", "tensorrt", "nvidia-dali-cuda130", "torchvision")


def key_of(what: str, device: str) -> str:
    """What was measured, on which device, with which packages, in one line."""
    where = f"{processor_name()} x{available_cores()}" if device == "cpu" else _gpu_name(device)
    versions = [f"fgfast {fgfast.__version__} {ops.implementation()}"]
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{package} {importlib.metadata.version(package)}")
    return f"{what} | {where} | {', '.join(versions)}"


def _gpu_name(device: str) -> str:
    """The GPU's name, as torch gives it; the device's where torch is not there to ask."""
    if importlib.util.find_spec("torch") is not None:
        import torch

        if torch.cuda.is_available():
            return str(torch.cuda.get_device_name(torch.device(device)))
    return device


def recall(key: str) -> Any:
    """What was remembered under a key of `key_of`; None where nothing was."""
    return _read().get(key)


def remember(key: str, value: Any) -> None:
    """Keep a plain value. A folder that cannot be written is accepted: it is measured again then."""
    file = _file()
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    known = {**_read(), key: value}  # another process may have measured something else meanwhile
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(known, indent=1))
        os.replace(part, file)


def _file() -> Path:
    return cache_folder() / "measured.json"


def _read() -> dict[str, Any]:
    try:
        content = json.loads(_file().read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
