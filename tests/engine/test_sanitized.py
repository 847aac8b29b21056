"""The bindings under AddressSanitizer and UndefinedBehaviorSanitizer, with arguments that hypothesis makes.

`make fuzz` runs this with many examples (FGFAST_FUZZ_EXAMPLES for each binding) and prints the figures. The module is
built from a copy of engine/ in build/sanitized, and kept there. Faults that were mended once are planted in the copy
again: each must end in a report, or the sanitizers look at nothing.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "sanitized"
EXAMPLES = int(os.environ.get("FGFAST_FUZZ_EXAMPLES", "100"))
BINDINGS = ("composite", "composite_alpha", "rle_encode", "rle_decode", "mask_post", "nms", "nms_ordered", "resize")
BINDINGS += ("attend", "attend_bf16", "attend_windows", "attends", "attends_bf16")
BINDINGS += ("area_average", "area_coverage", "colour_contrast", "mask_parts", "outline_edges")
REPORT = r"ERROR: AddressSanitizer|runtime error: "

# Source, the mended line, the faulty one, the binding that shows it, the function that the report must name.
FAULTS = (
    (
        "engine/src/resize.cc",
        "if ((r.height - 1 - done) * length < kSlack) row =",
        "if (done == r.height - 1) row =",
        "resize",
        "ColumnsAvx2",
    ),
    ("engine/src/nms.cc", "    CheckOrder(nms);\n", "", "nms_ordered", "Suppress"),
    (
        "engine/src/mask_post_cpu.cc",
        "  s.Forget();\n",
        '  s.Forget();\n  if (y0 > 0) throw std::length_error("planted");\n',
        "together",
        "",
    ),
)


def tool(name: str) -> str | None:
    """A program, beside the interpreter (the wheels of cmake and ninja) or of the system."""
    return shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


def runtime() -> list[str]:
    """What must be loaded before Python. libstdc++ too: the sanitizers take over the throwing of exceptions."""
    compiler = tool("g++")
    names = ("libasan.so", "libubsan.so", "libstdc++.so") if compiler else ()
    asked = [[str(compiler), f"-print-file-name={name}"] for name in names]
    return [subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() for command in asked]


def missing() -> str:
    """Why this cannot run here, or nothing."""
    lacking = [name for name in ("g++", "cmake", "ninja") if tool(name) is None]
    if sys.platform != "linux" or lacking:
        return f"not Linux, or no {' and no '.join(lacking)}"
    return "" if all(Path(path).is_absolute() for path in runtime()) else "g++ has no libasan or libubsan"


pytestmark = [pytest.mark.full, pytest.mark.skipif(bool(missing()), reason=missing())]


def build(name: str, changes: dict[str, str]) -> Path:
    """Build a copy of engine/ with these files' texts changed; only what differs from the last build is compiled."""
    import nanobind

    sources = [ROOT / "CMakeLists.txt", *(path for path in (ROOT / "engine").rglob("*") if path.is_file())]
    for source in sources:
        relative = source.relative_to(ROOT)
        text, copy = changes.get(relative.as_posix(), source.read_text("utf-8")), FOLDER / "source" / relative
        if not copy.exists() or copy.read_text("utf-8") != text:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(text, "utf-8")
    options = {"CMAKE_BUILD_TYPE": "Debug", "FGFAST_SANITIZE": "ON", "FGFAST_CUDA": "OFF", "CMAKE_CXX_COMPILER": "g++"}
    options |= {"Python_EXECUTABLE": sys.executable, "nanobind_DIR": nanobind.cmake_dir()}
    options |= {"CMAKE_MAKE_PROGRAM": str(tool("ninja"))}
    configure = [str(tool("cmake")), "-G", "Ninja", "-S", str(FOLDER / "source"), "-B", str(FOLDER / "build")]
    for command in (
        [*configure, *(f"-D{key}={value}" for key, value in options.items())],
        [str(tool("cmake")), "--build", str(FOLDER / "build")],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (FOLDER / "build").glob("_native*.so")
    return Path(shutil.copy(built, FOLDER / f"{name}-{built.name}"))


def call(module: Path, binding: str, examples: int, last: Path) -> subprocess.CompletedProcess[str]:
    """Run sanitized_bindings.py; `last` gets the last call."""
    paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    with last.open("wb") as file:
        environment = {
            **os.environ,
            "LD_PRELOAD": " ".join(runtime()),
            # Python itself keeps memory until its end, which is no leak of ours.
            "ASAN_OPTIONS": "detect_leaks=0:malloc_context_size=5:quarantine_size_mb=16",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            # NumPy's arrays come from malloc anyway. Only bytes do not, and everything else is faster without it.
            "PYTHONMALLOC": "malloc" if binding == "rle_decode" else "pymalloc",
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "FGFAST_LAST_CALL": str(file.fileno()),
        }
        script = [sys.executable, str(ROOT / "tests/engine/sanitized_bindings.py"), str(module), str(examples), binding]
        return subprocess.run(
            script, capture_output=True, text=True, env=environment, pass_fds=[file.fileno()], timeout=3600, check=False
        )


@pytest.fixture(scope="module")
def lock() -> Iterator[None]:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with FileLock(FOLDER / "lock"):
        yield


@pytest.fixture(scope="module")
def planted(lock: None, clean: Path) -> Path:
    """The module with all faults; built after the clean one, from the same files."""
    changes: dict[str, str] = {}
    for source, mended, faulty, *_ in FAULTS:
        text = (ROOT / source).read_text("utf-8")
        assert text.count(mended) == 1, f"{source}: where is {mended!r}?"
        changes[source] = "#include <stdexcept>\n" + text.replace(mended, faulty)
    return build("planted", changes)


@pytest.fixture(scope="module")
def clean(lock: None) -> Path:
    return build("clean", {})


def test_no_reports(clean: Path, tmp_path: Path) -> None:
    """Every binding, and large images from several threads at once."""

    def one(binding: str) -> dict[str, Any]:
        last = tmp_path / binding
        done = call(clean, binding, EXAMPLES, last)
        found = re.search(REPORT, done.stderr)
        assert done.returncode == 0 and not found, f"{done.stderr[-6000:]}\nlast call: {last.read_text().rstrip()}"
        return json.loads(done.stdout or "{}")

    began = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        figures = dict(zip(BINDINGS, pool.map(one, (*BINDINGS, "together")), strict=False))
    for binding, figure in figures.items():
        print(f"{binding}: {figure['taken']} taken, {figure['refused']} refused, {figure['seconds']} s, no report")
        assert figure["taken"] + figure["refused"] >= min(EXAMPLES, 90)
    print(f"{time.monotonic() - began:.0f} s in all")


@pytest.mark.parametrize(("binding", "function"), [fault[3:] for fault in FAULTS[:2]])
def test_a_planted_fault_is_found(planted: Path, binding: str, function: str, tmp_path: Path) -> None:
    if function == "ColumnsAvx2" and "avx2" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("the fault is in a loop for AVX2")
    done = call(planted, binding, 2000, tmp_path / "last")
    assert done.returncode != 0
    report = done.stderr[re.search(REPORT, done.stderr).start() :]  # type: ignore[union-attr]
    print("\n".join(report.splitlines()[:9]), "\nlast call:", (tmp_path / "last").read_text().rstrip())
    assert function in "".join(report.splitlines()[:9])


def test_what_a_thread_throws_is_an_exception_in_python(planted: Path, tmp_path: Path) -> None:
    """Not the end of the process."""
    done = call(planted, "together", 1, tmp_path / "last")
    assert done.returncode == 1
    assert "Error: planted" in done.stderr
    assert not re.search(REPORT, done.stderr)
