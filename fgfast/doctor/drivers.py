"""NVIDIA's driver: the versions of CUDA it runs, and packages on this machine that need a newer one."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from typing import Any

# Major version of CUDA -> the oldest driver that runs it, whatever the minor version (NVIDIA, CUDA Compatibility,
# table 1 of "Minor Version Compatibility").
OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}
# PyTorch's wheels by the major version of CUDA; PyPI has those for CUDA 13 on Linux, and those for the CPU on Windows.
_INDEX = {12: "https://download.pytorch.org/whl/cu126", 13: "https://download.pytorch.org/whl/cu130"}
# What replaces the extra `gpu` where the driver runs CUDA 12 only. onnxruntime-gpu is for CUDA 13 from 1.27 on, and
# earlier ones cannot compute fgfast's graphs.
_GPU_PACKAGES_12 = 'pip install "tensorrt-cu12>=10.15" "nvidia-dali-cuda120>=1.51"'


def cuda_of(facts: dict[str, Any]) -> int | None:
    """The newest major version of CUDA that the driver runs; None where there is no driver, or it was not asked."""
    driver = facts["gpus"].get("driver") or {}
    version = re.match(r"\d+", driver.get("version") or "")
    if not driver.get("found") or version is None:
        return None
    running = [cuda for cuda, oldest in OLDEST_DRIVER.items() if int(version[0]) >= oldest]
    return max(running, default=min(OLDEST_DRIVER) - 1)


def repairs(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (reason, command) where a GPU is not used because its driver and the packages do not fit each other."""
    cuda = cuda_of(facts)
    if cuda is None:
        return
    torch, driver = facts["gpus"].get("torch", {}), facts["gpus"]["driver"]
    gpu = driver["found"][0]["name"]
    if importlib.util.find_spec("torch") and not torch.get("found"):
        yield _torch(gpu, driver, torch.get("cuda"), cuda)
    newer = sorted(_packages_of_cuda_13(facts)) if cuda < 13 else []
    if newer:
        yield (
            f"{' and '.join(newer)} need CUDA 13: {_too_old(driver, 13)}",
            f"pip uninstall -y {' '.join(newer)} && {_GPU_PACKAGES_12}",
        )


def gpu_packages(facts: dict[str, Any]) -> str | None:
    """The command that installs TensorRT and DALI for a driver that is too old for the extra `gpu`; None otherwise."""
    cuda = cuda_of(facts)
    return _GPU_PACKAGES_12 if cuda == 12 else None


def _torch(gpu: str, driver: dict[str, Any], built: str | None, cuda: int) -> tuple[str, str]:
    wanted = min(cuda, max(_INDEX))
    # On Linux PyPI's wheel of torch is the one for CUDA 13.
    index = "" if wanted == 13 and sys.platform == "linux" else f" --index-url {_INDEX.get(wanted, _INDEX[12])}"
    install = f"pip install --force-reinstall torch{index}"
    if built is None:
        return f"torch cannot use {gpu}: it was built without CUDA", install
    major = int(built.partition(".")[0])
    if major > cuda:
        return f"torch cannot use {gpu}: it was built for CUDA {built}. {_too_old(driver, major)}", install
    return (
        f"torch cannot use {gpu}, though it was built for CUDA {built} and the driver is new enough: the command says "
        "why. CUDA_VISIBLE_DEVICES may hide the GPU, or a container may not have been given it",
        'python -c "import torch; torch.cuda.init()"',
    )


def _too_old(driver: dict[str, Any], cuda: int) -> str:
    return (
        f"The driver is {driver['version']}, and CUDA {cuda} needs {OLDEST_DRIVER.get(cuda, 'a newer one')} or newer: "
        "update the driver (better), or install packages for an older CUDA"
    )


def _packages_of_cuda_13(facts: dict[str, Any]) -> Iterator[str]:
    """Yield the installed packages that only work with CUDA 13."""
    for found in facts["packages"].values():
        name = found.get("installed_as", "") if isinstance(found, dict) else ""
        if re.search(r"-cu(da)?13", name):
            yield name
    # The package `tensorrt` is a name for the one of the newest CUDA.
    if (facts["packages"].get("tensorrt") or {}).get("installed_as") == "tensorrt":
        yield "tensorrt"
    runtime = facts["packages"].get("onnxruntime") or {}
    if runtime.get("installed_as") == "onnxruntime-gpu" and _at_least(runtime["version"], (1, 27)):
        yield "onnxruntime-gpu"


def _at_least(version: str, wanted: tuple[int, int]) -> bool:
    numbers = re.findall(r"\d+", version)[:2]
    return tuple(map(int, numbers)) >= wanted
