"""What fgfast uses of TensorRT, against NVIDIA's own Python bindings, over stubs of the libraries that need a GPU.

`make test` downloads the bindings of TensorRT 10 and 11 (1.3 MB each) into .venv/tensorrt-bindings.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

import unit.fake_tensorrt as fake
from unit.tensorrt_names import CLASSES, FAKES, FUNCTIONS, MODULE, OWNERS, PLAIN

ROOT = Path(__file__).parents[2]
BINDINGS = ROOT / ".venv" / "tensorrt-bindings"
VERSIONS = ("10.16.1.11", "11.4.0.106")
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")


def _missing(what: str) -> None:
    linux = sys.platform == "linux" and platform.machine() == "x86_64"
    if linux and os.environ.get("FGFAST_REQUIRE_NATIVE") == "1":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Version -> what tests/unit/tensorrt_child.py found; both versions at the same time, each in its own process."""
    wheels = {v: next(iter(sorted(BINDINGS.glob(f"tensorrt_cu13_bindings-{v}-*.whl"))), None) for v in VERSIONS}
    if None in wheels.values():
        _missing(f"{BINDINGS} has no wheels of tensorrt-cu13-bindings {' and '.join(VERSIONS)}: make test gets them")
    if (compiler := shutil.which("g++") or shutil.which("c++")) is None:
        _missing("no C++ compiler for the stub of TensorRT's libraries")
    folder = tmp_path_factory.mktemp("tensorrt")
    stub = folder / "libstub.so"
    source = Path(__file__).with_name("tensorrt_stub.cc")
    subprocess.run([str(compiler), "-std=c++17", "-shared", "-fPIC", str(source), "-o", str(stub)], check=True)
    for name in LIBRARIES:
        for version in VERSIONS:
            # The loader takes files that are the same for one library.
            (folder / f"lib{name}.so.{version.partition('.')[0]}").symlink_to(stub)
    children = {}
    for version, wheel in wheels.items():
        assert wheel is not None
        file = zipfile.ZipFile(wheel).extract("tensorrt_bindings/tensorrt.so", folder / version)
        search = os.pathsep.join([str(ROOT), str(ROOT / "tests"), *sys.path])
        command = [sys.executable, "-m", "unit.tensorrt_child", str(file), str(stub)]
        environment = {**os.environ, "PYTHONPATH": search, "LD_LIBRARY_PATH": str(folder)}
        children[version] = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd=folder)
    return {version: (child.communicate(timeout=300)[0], child.returncode) for version, child in children.items()}


def _found(real: dict[str, Any], version: str) -> dict[str, Any]:
    text, status = real[version]
    assert status == 0, f"the child ended with {status}: {text}"
    return dict(json.loads(text))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_table_is_true(real: dict[str, Any], version: str) -> None:
    found = _found(real, version)["classes"]
    for name, attributes in {**CLASSES, "": FUNCTIONS}.items():
        assert found[name].keys() == set(attributes), f"TensorRT {version}: {name}"
        for attribute, parameters in attributes.items():
            overloads = found[name][attribute]
            if parameters is None:
                assert overloads is None, f"{name}.{attribute} is a method"
            else:
                fits = [tuple(real[: len(parameters)]) == parameters for real in overloads]
                assert any(fits), f"TensorRT {version}: {name}.{attribute} takes {overloads}, not {parameters}"


@pytest.mark.parametrize("version", VERSIONS)
def test_attention_is_split_on_the_real_layers(real: dict[str, Any], version: str) -> None:
    """And tensorrt_child.try_arguments ran: values of the types that fgfast passes are taken."""
    found = _found(real, version)
    assert found["layer"] == "ILayer", "what get_layer returns; a cast is needed"
    assert found["split"]


def _tree(file: str) -> ast.Module:
    return ast.parse((ROOT / "fgfast" / file).read_text())


@pytest.mark.parametrize("file", OWNERS)
def test_the_table_has_all_that_the_sources_use(file: str) -> None:
    owners, used = OWNERS[file], set()
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            used.add(owner)
            _check_attribute(owners, owner, node.attr)
        elif isinstance(node, ast.Call):
            _check_call(owners, node)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            _check_result(owners, node.targets, node.value.func)
    assert owners.keys() <= used, "no longer in the source"


def test_no_other_source_uses_tensorrt() -> None:
    texts = {file.relative_to(ROOT / "fgfast").as_posix(): file.read_text() for file in (ROOT / "fgfast").rglob("*.py")}
    assert {file for file, text in texts.items() if re.search(r"\btrt\.|\b_trt\b", text)} <= OWNERS.keys()


def _check_attribute(owners: dict[str, str], owner: str, name: str) -> None:
    if name.startswith("__"):
        return
    if owner in MODULE:
        assert name in CLASSES or name in FUNCTIONS, f"trt.{name}"
    elif owner.startswith(tuple(f"{module}." for module in MODULE)):
        assert name in CLASSES[owner.split(".")[-1]], f"{owner}.{name}"
    elif owner in owners:
        assert name in CLASSES[owners[owner]], f"{owner}.{name}"


def _check_call(owners: dict[str, str], call: ast.Call) -> None:
    """Check the number of a call's arguments and its keywords."""
    if isinstance(call.func, ast.Name) and call.func.id == "getattr" and isinstance(call.args[1], ast.Constant):
        _check_attribute(owners, ast.unparse(call.args[0]), str(call.args[1].value))
    if not isinstance(call.func, ast.Attribute) or (owner := ast.unparse(call.func.value)) not in owners:
        return
    parameters = CLASSES[owners[owner]][call.func.attr]
    assert parameters is not None and len(call.args) <= len(parameters), ast.unparse(call)
    assert {keyword.arg for keyword in call.keywords} <= set(parameters), ast.unparse(call)


def _check_result(owners: dict[str, str], targets: list[ast.expr], called: ast.expr) -> None:
    """Check that a variable that holds what TensorRT returns has its class in the table."""
    if isinstance(called, ast.Attribute) and ast.unparse(called.value) in owners:
        for target in targets:
            assert ast.unparse(target) in owners or ast.unparse(target) in PLAIN, ast.unparse(target)


@pytest.mark.parametrize("name", FAKES)
def test_the_fake_has_nothing_but_what_is_real(name: str) -> None:
    there, known = getattr(fake, name), CLASSES[FAKES[name]]
    own = {attribute: value for attribute, value in vars(there).items() if not attribute.startswith("_")}
    for attribute, value in own.items():
        if attribute == "trt":
            continue
        assert attribute in known, f"{name}.{attribute}"
        if inspect.isfunction(value):
            parameters = tuple(inspect.signature(value).parameters)[1:]
            assert parameters == known[attribute], f"{name}.{attribute}"
    missing = known.keys() - own.keys() - {"num_io_tensors"}  # set in __init__
    assert not missing, f"the fake's {name} lacks {missing}"
