"""The .cu files compiled for the host, where a fiber stands for each thread of a block, against the ops for the CPU.

It finds wrong indices, missing elements, wrong arithmetic, and reads that need a barrier. It does not find races
between blocks, and the arithmetic is the host's, so a GPU has the last word (test_cuda.py). It needs g++, not nvcc.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent / "cuda_on_host"
KERNELS = ("composite_gpu", "mask_post_gpu", "nms_gpu")
ON_CPU = ("composite_cpu", "mask_post_cpu", "mask_post_loops", "nms_cpu")
CASES = {"mask_post": 60, "nms": 200, "composite": 100}

# longjmp goes from one stack to another, which the fortified one refuses. Nothing is contracted, as in CMakeLists.txt.
FLAGS = ["-std=c++17", "-O1", "-U_FORTIFY_SOURCE", "-ffp-contract=off", "-pthread"]
FLAGS += [f"-I{HERE}", f"-I{ROOT / 'engine/include'}"]
SANITIZED = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g"]

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("g++"), reason="the stand-in for CUDA needs g++ on Linux"
)


class Fault(NamedTuple):
    """A kernel with a fault: what stands in the source, and what stands there instead."""

    op: str
    kernel: str
    right: str
    wrong: str


FAULTS = {
    "a bound leaves out the last column": Fault(
        "composite", "composite_gpu", "from_x < image.width;", "from_x < image.width - 1;"
    ),
    "a barrier is missing": Fault(
        "nms",
        "nms_gpu",
        "struck[n] |= hits[own * words + n];\n    __syncthreads();",
        "struck[n] |= hits[own * words + n];",
    ),
    "the right edge is one too small": Fault(
        "mask_post", "mask_post_gpu", "x0 + 32 - __clz(set)", "x0 + 31 - __clz(set)"
    ),
}


def translated(source: str) -> str:
    """Return a .cu file as C++ for the stand-in: launches, and shared memory whose size is given at the launch."""
    source = re.sub(
        r"extern __shared__ (\w+) (\w+)\[\];", r"\1* \2 = reinterpret_cast<\1*>(host::dynamic_shared);", source
    )
    return re.sub(r"(\w+)<<<(.*?)>>>\((.*?)\);", r"host::Launch(\2).Run([=] { \1(\3); });", source, flags=re.DOTALL)


def kernel(name: str, folder: Path, fault: Fault | None = None) -> Path:
    """Write a translated .cu file, with a fault or without, and return its path."""
    text = translated((ROOT / f"engine/src/{name}.cu").read_text("utf-8"))
    assert "<<<" not in text and "extern __shared__" not in text, f"{name}.cu has a launch that is not translated"
    if fault is not None:
        assert text.count(fault.right) == 1, f"{name}.cu: where is {fault.right!r}?"
        text = text.replace(fault.right, fault.wrong)
    path = folder / f"{name}.cc"
    folder.mkdir(exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def run(command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, check=False)


def compiled(sources: Iterable[Path], folder: Path, extra: Sequence[str] = ()) -> list[Path]:
    """Compile each source, several at a time, to an object that is named like it and its folder."""

    def one(source: Path) -> Path:
        made = folder / f"{source.parent.name}-{source.stem}.o"
        done = run(["g++", *FLAGS, *extra, "-c", source, "-o", made])
        assert done.returncode == 0, done.stderr
        return made

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(one, sources))


def linked(objects: Iterable[Path], program: Path, extra: Sequence[str] = ()) -> Path:
    done = run(["g++", "-pthread", *extra, *objects, "-o", program])
    assert done.returncode == 0, done.stderr
    return program


def compare(program: Path, op: str, cases: int) -> tuple[int, str]:
    """Compare an op until a case differs; return the number of cases that did not, and what the program says."""
    done = run([program, op, str(cases)])
    assert done.returncode == 0, done.stderr
    return int(done.stdout), done.stderr


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The comparison with the kernels as they are, as "right", and one with each fault; only its file differs."""
    folder = tmp_path_factory.mktemp("cuda_on_host")
    same = [HERE / "compare.cc", *(ROOT / f"engine/src/{name}.cc" for name in ON_CPU)]
    right = [kernel(name, folder / "right") for name in KERNELS]
    wrong = [kernel(fault.kernel, folder / f"wrong{n}", fault) for n, fault in enumerate(FAULTS.values())]
    objects = compiled([*same, *right, *wrong], folder)
    good, bad = objects[: len(same) + len(right)], objects[len(same) + len(right) :]
    made = {"right": linked(good, folder / "right.bin")}
    for n, (name, fault) in enumerate(FAULTS.items()):
        others = [path for path in good if not path.stem.endswith(fault.kernel)]
        made[name] = linked([*others, bad[n]], folder / f"wrong{n}.bin")
    return made


@pytest.mark.parametrize("op", CASES)
def test_kernels_equal_the_ops_for_the_cpu(programs: dict[str, Path], op: str) -> None:
    equal, which = compare(programs["right"], op, CASES[op])
    assert equal == CASES[op], which


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(programs: dict[str, Path], name: str) -> None:
    op = FAULTS[name].op
    equal, _ = compare(programs[name], op, CASES[op])
    assert equal < CASES[op]


# Under the sanitizers a switch of fibers costs far more.
FEWER = {"mask_post": 12, "nms": 30, "composite": 100}
BEYOND = Fault("nms", "nms_gpu", "  if (own >= nms.count) return;\n", "")


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The comparison under both sanitizers: "right", and "beyond", in which a kernel has lost a bound."""
    folder = tmp_path_factory.mktemp("sanitized")
    sources = [HERE / "compare.cc", *(ROOT / f"engine/src/{name}.cc" for name in ON_CPU)]
    sources += [kernel(name, folder / "right") for name in KERNELS]
    *right, beyond = compiled([*sources, kernel(BEYOND.kernel, folder / "beyond", BEYOND)], folder, SANITIZED)
    others = [path for path in right if not path.stem.endswith(BEYOND.kernel)]
    return {
        "right": linked(right, folder / "right.bin", SANITIZED),
        "beyond": linked([*others, beyond], folder / "beyond.bin", SANITIZED),
    }


@pytest.mark.full
@pytest.mark.parametrize("op", FEWER)
def test_kernels_stay_within_their_arrays(sanitized: dict[str, Path], op: str) -> None:
    equal, which = compare(sanitized["right"], op, FEWER[op])
    assert equal == FEWER[op], which


@pytest.mark.full
def test_the_sanitizer_sees_what_lies_beyond(sanitized: dict[str, Path]) -> None:
    done = run([sanitized["beyond"], BEYOND.op, str(FEWER[BEYOND.op])])
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr and "Compare" in done.stderr


# CUDA's errors by what follows from them: the process must end, a smaller batch may fit, the call was refused.
LOST, SHORT, REFUSED = (700, 716, 719), (2,), (1, 35, 98, 209)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[str, str]]:
    """Number of an error -> what an op throws, and what `fgfast.ops.cuda.refusal` would return: the real text.

    The errors themselves are pretended, by the stand-in's header.
    """
    folder = tmp_path_factory.mktemp("reports")
    sources = [HERE / "report.cc", kernel("device_gpu", folder / "kernels"), ROOT / "engine/src/device.cc"]
    program = linked(compiled(sources, folder, ["-DFGFAST_CUDA"]), folder / "report")
    numbers = (0, *LOST, *SHORT, *REFUSED)
    done = run([program, *map(str, numbers)])
    assert done.returncode == 0, "CudaRefusal leaves an error behind"
    lines = done.stdout.split("\n")
    return {number: (lines[2 * n], lines[2 * n + 1]) for n, number in enumerate(numbers)}


def test_a_refusal_gives_cudas_reason(texts: dict[int, tuple[str, str]]) -> None:
    wanted = "cudaErrorNoKernelImageForDevice, no kernel image is available for execution on the device"
    assert texts[209] == (f"nms on the GPU: {wanted}", wanted)
    assert texts[0] == ("", "")
    assert all(refusal for number, (_, refusal) in texts.items() if number)


def test_what_an_op_throws_is_recognised(texts: dict[int, tuple[str, str]]) -> None:
    pytest.importorskip("torch")
    from fgfast.backends.slots import failure_of
    from fgfast.errors import DeviceFailedError, DeviceMemoryError

    for numbers, kind in ((LOST, DeviceFailedError), (SHORT, DeviceMemoryError), (REFUSED, None)):
        for number in numbers:
            assert failure_of(RuntimeError(texts[number][0])) is kind, texts[number]
