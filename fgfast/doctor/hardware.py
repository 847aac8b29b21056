"""The processor, the memory and the GPUs of this machine."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from fgfast import processes
from fgfast.doctor.findings import attempted
from fgfast.machine import available_cores, processor_name

# Flags of /proc/cpuinfo that change how fast models are: names of x86, then of ARM.
_INSTRUCTIONS = (
    *("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8"),
    *("asimd", "bf16", "i8mm", "sve", "sve2"),
)
_SMI_SECONDS = 20


def machine() -> dict[str, Any]:
    """The system, the processor, the cores and the memory; sizes are in bytes."""
    info = _read("/proc/cpuinfo")
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", info, re.MULTILINE)
    flags = set(line[1].split()) if line else set()
    return {
        "system": platform.platform(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "cores_available": available_cores(),
        "cores_quota": _quota(),
        "instructions": [name for name in _INSTRUCTIONS if name in flags],
        **_memory(),
    }


def _quota() -> float | None:
    """The control group's limit of CPU time, in cores; None where it sets no limit."""
    for folder in _control_groups():
        limit = _read(str(folder / "cpu.max")).split()
        if not limit:
            limit = [_read(str(folder / f"cpu.cfs_{part}_us")).strip() for part in ("quota", "period")]
        if len(limit) == 2 and all(part.isdigit() for part in limit):
            return round(int(limit[0]) / int(limit[1]), 2)
    return None


def _memory() -> dict[str, int | None]:
    memory = psutil.virtual_memory()
    texts = [
        _read(str(folder / name)).strip()
        for folder in _control_groups()
        for name in ("memory.max", "memory.limit_in_bytes")
    ]
    limits = [int(text) for text in texts if text.isdigit() and int(text) < memory.total]
    return {
        "memory": memory.total,
        "memory_available": memory.available,
        "memory_limit": min(limits, default=None),
    }


def _control_groups() -> list[Path]:
    """Folders of this process's control groups, of versions 2 and 1, the innermost first."""
    root = Path("/sys/fs/cgroup")
    found = []
    for line in _read("/proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, place = rest.partition(":")
        top = root / controllers.split(",")[0] if controllers else root
        inner = top / place.lstrip("/")
        found += [folder for folder in (inner, *inner.parents) if folder.is_relative_to(top)]
    return [*found, root, root / "cpu", root / "memory"]


def gpus() -> dict[str, Any]:
    """The GPUs that the driver lists, those that torch can use, and what compiles for them; memory is in bytes."""
    driver = attempted(_driver)
    torch = attempted(_torch) if importlib.util.find_spec("torch") else {"error": "torch is not installed"}
    return {"driver": driver, "torch": torch, "triton": attempted(_triton), "nvjpeg": attempted(_nvjpeg)}


def _driver() -> dict[str, Any]:
    """The GPUs that nvidia-smi lists, and the driver's version."""
    try:
        program = processes.find("nvidia-smi")
    except FileNotFoundError:
        return {"found": [], "version": None, "cuda": None}
    asked = "name,memory.total,memory.free,compute_cap,driver_version"
    table = _run(program, f"--query-gpu={asked}", "--format=csv,noheader,nounits")
    rows = [[part.strip() for part in line.split(",")] for line in table.splitlines() if line.strip()]
    cuda = re.search(r"CUDA Version:\s*([\d.]+)", _run(program))
    return {
        "found": [
            {"name": r[0], "memory": _mebibytes(r[1]), "memory_free": _mebibytes(r[2]), "capability": r[3]}
            for r in rows
            if len(r) == asked.count(",") + 1
        ],
        "version": rows[0][-1] if rows else None,
        "cuda": cuda[1] if cuda else None,
    }


def _mebibytes(text: str) -> int | None:
    return int(text) << 20 if text.isdigit() else None


def _run(*command: str) -> str:
    done = processes.run(command, _SMI_SECONDS)
    if done.returncode:
        raise OSError(f"nvidia-smi ended with {done.returncode}: {(done.stdout + done.stderr).strip()[:200]}")
    return done.stdout


def _torch() -> dict[str, Any]:
    import torch

    from fgfast.ops import cuda

    found = []
    for n in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(n)
        large, small = torch.cuda.get_device_capability(n)
        name = torch.cuda.get_device_name(n)
        facts = {"name": name, "memory": total, "memory_free": free, "capability": f"{large}.{small}"}
        found.append({**facts, "ops": attempted(partial(cuda.refusal, n))})
    return {"found": found, "cuda": torch.version.cuda}


def _triton() -> dict[str, Any]:
    """Whether Triton, which torch brings along for GPUs, is there, and the C compiler without which it does nothing."""
    compiler = None
    if importlib.util.find_spec("torch"):
        from fgfast.models.sam import fused_compiler

        compiler = fused_compiler.compiler() or None
    return {"installed": importlib.util.find_spec("triton") is not None, "compiler": compiler}


def _nvjpeg() -> str | None:
    """The path of nvJPEG, which decodes JPEGs on a GPU, or None."""
    for package in ("nvidia.nvjpeg", "nvidia.cu13", "nvidia.cu12"):
        try:
            spec = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            continue
        for place in spec.submodule_search_locations or () if spec else ():
            for file in sorted(Path(place).glob("**/*nvjpeg*.so*")):
                return str(file)
    # What the dynamic linker would find; `ctypes.util.find_library` would also start a compiler.
    try:
        known = processes.run(["/sbin/ldconfig", "-p"], _SMI_SECONDS).stdout
    except (OSError, processes.ChildError):
        return None
    match = re.search(r"^\s*(\S*nvjpeg\S*)\s", known, re.MULTILINE)
    return match[1] if match else None


def _read(path: str) -> str:
    """A file of the system as text; empty where it cannot be read."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
