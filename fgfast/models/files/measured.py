"""Measurements of this machine, stored in one JSON file in the cache folder.

They depend on the machine and on the versions of packages, both of which are part of their keys. They choose backends
and decoders, so that only those count that this user's fgfast measured (fgfast.keyed_notes).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from contextlib import suppress
from typing import Any

from filelock import Timeout

import fgfast
from fgfast import keyed_notes, ops
from fgfast.errors import OutputFailedError
from fgfast.machine import available_cores, processor_name
from fgfast.transfer import cache_folder
from fgfast.writing import Target, locked

_FILE, _KIND = "measured.json", "measured"
# Seconds to wait for another process that stores a value.
_TIMEOUT = 10
_PACKAGES = (
    *("torch", "triton", "onnxruntime", "onnxruntime-gpu", "tensorrt", "torchvision", "simplejpeg"),
    *("nvidia-dali-cuda130", "nvidia-dali-cuda120"),
)


def key_of(what: str, device: str) -> str:
    """Return the key of a measurement: its subject, the device, and the versions of packages."""
    where = f"{processor_name()} x{available_cores()}" if device == "cpu" else _gpu_name(device)
    versions = [f"fgfast {fgfast.__version__} {ops.implementation()}"]
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{package} {importlib.metadata.version(package)}")
    return f"{what} | {where} | {', '.join(versions)}"


def _gpu_name(device: str) -> str:
    """Return the GPU's name; the name of the device where torch is not installed."""
    if importlib.util.find_spec("torch") is not None:
        import torch

        if torch.cuda.is_available():
            return str(torch.cuda.get_device_name(torch.device(device)))
    return device


def recall(key: str) -> Any:
    """Return the value stored under a key from `key_of`; None where there is none."""
    return _read().get(key)


def remember(key: str, value: Any) -> None:
    """Store a plain value. In a folder that is not writable nothing is stored, and the value is measured every time."""
    file = cache_folder() / _FILE
    # Another process may store other values meanwhile.
    lock = Target(file.parent, f"{file.name}.lock")
    with suppress(OSError, OutputFailedError, Timeout), locked(lock, timeout=_TIMEOUT):
        keyed_notes.write_sealed(file, _KIND, {"values": {**_read(), key: value}})


def _read() -> dict[str, Any]:
    values = keyed_notes.read_sealed(cache_folder() / _FILE, _KIND).get("values")
    return values if isinstance(values, dict) else {}
