"""The machine: its system, processor and cores."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """Return the system, the processor and the number of cores, for run.json and benchmark results."""
    return {"system": platform.platform(), "processor": processor_name(), "cores": os.cpu_count()}


def processor_name() -> str:
    """Return the processor's model name, or its architecture where the system gives no name."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def available_cores() -> int:
    """Return the number of cores that this process may use; the default number of workers."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # absent on macOS and Windows
        return os.cpu_count() or 1
