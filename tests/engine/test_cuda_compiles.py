"""The CUDA twins compile for every architecture that CMakeLists.txt names, wherever there is an nvcc; no GPU needed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(ROOT.glob("engine/src/*_gpu.cu"))
NVCC = shutil.which("nvcc")


def architectures() -> list[str]:
    """As -gencode wants them: CMake's "80-real;90" is code for 80, and code and PTX for 90."""
    named = re.search(r'CUDA_ARCHITECTURES "([^"]+)"', (ROOT / "CMakeLists.txt").read_text("utf-8"))
    assert named
    flags = []
    for name in named[1].split(";"):
        number = name.removesuffix("-real")
        code = f"sm_{number}" if name.endswith("-real") else f"[sm_{number},compute_{number}]"
        flags += ["-gencode", f"arch=compute_{number},code={code}"]
    return flags


def test_there_is_code_for_these_gpus() -> None:
    """A GPU runs code of its own major version and a minor one that is not higher (CUDA C++ Programming Guide)."""
    code = [flag.rpartition("code=")[2].strip("[]").split(",")[0] for flag in architectures() if "code=" in flag]
    numbers = [int(name.removeprefix("sm_")) for name in code]
    for gpu, capability in {"T4": 75, "A100": 80, "3090": 86, "4090": 89, "H200": 90}.items():
        assert any(n // 10 == capability // 10 and n <= capability for n in numbers), gpu


def test_every_op_with_a_twin_is_built() -> None:
    """CMakeLists.txt lists sources by name; none is forgotten."""
    listed = (ROOT / "CMakeLists.txt").read_text("utf-8")
    assert [path.name for path in SOURCES] == ["composite_gpu.cu", "device_gpu.cu", "mask_post_gpu.cu", "nms_gpu.cu"]
    for path in [*SOURCES, *ROOT.glob("engine/*/*.cc")]:
        assert f"engine/{path.parent.name}/{path.name}" in listed


@pytest.mark.skipif(NVCC is None, reason="no nvcc")
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_compiles(source: Path, tmp_path: Path) -> None:
    """Without a warning, with the options that CMakeLists.txt gives: the oracle's roundings, nothing is contracted."""
    command = [
        str(NVCC),
        "-std=c++17",
        "-O3",
        "-fmad=false",
        "-Werror",
        "all-warnings",
        "-Xcompiler",
        "-Wall,-Wextra,-fPIC",
    ]
    made = tmp_path / "twin.o"
    done = subprocess.run(
        [*command, *architectures(), f"-I{ROOT / 'engine/include'}", "-c", str(source), "-o", str(made)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert made.stat().st_size > 0


@pytest.mark.skipif(NVCC is None, reason="no nvcc")
def test_cuda_itself_says_why_the_ops_do_not_run(tmp_path: Path) -> None:
    """Linked with the real CUDA runtime, asked on this machine: the reason begins with CUDA's name of it."""
    main, program = tmp_path / "main.cc", tmp_path / "refusal"
    call = "puts(fgfast::CudaRefusal(0).c_str());"
    main.write_text(f'#include <cstdio>\n#include "fgfast/device.h"\nint main() {{ {call} }}\n')
    sources = [main, ROOT / "engine/src/device.cc", ROOT / "engine/src/device_gpu.cu"]
    flags = ["-std=c++17", "-DFGFAST_CUDA", *architectures(), f"-I{ROOT / 'engine/include'}"]
    for command in ([str(NVCC), *flags, *map(str, sources), "-o", str(program)], [str(program)]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
    driver = Path("/proc/driver/nvidia/version").exists()
    assert re.fullmatch(r"(cudaError\w+, .+)?\n" if driver else r"cudaError\w+, .+\n", done.stdout)
