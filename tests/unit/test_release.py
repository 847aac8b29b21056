"""The release build as far as it can be held here: one version, settings that agree, paths and extras that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import fgfast

ROOT = Path(__file__).parents[2]

if not (ROOT / "Dockerfile").is_file():
    pytest.skip("the source tree is not here", allow_module_level=True)
tomllib = pytest.importorskip("tomllib", reason="it is new in Python 3.11")

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, with their continued lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.M).replace("\\\n", " ")
    return [(line.partition(" ")[0], line.partition(" ")[2].strip()) for line in text.splitlines() if line.strip()]


def test_the_version_is_one() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert PROJECT["project"]["version"] == fgfast.__version__
    assert f"\nversion: {fgfast.__version__}\n" in citation


def test_wheels_are_built_for_every_supported_python() -> None:
    settings = PROJECT["tool"]["cibuildwheel"]
    oldest = PROJECT["project"]["requires-python"].removeprefix(">=3.")
    assert settings["build"].split()[0] == f"cp3{oldest}-*"
    assert {"linux", "macos", "windows"} <= set(settings)
    for command in settings["test-command"]:
        for word in shlex.split(command):
            if word.startswith("{project}/"):
                assert (ROOT / word.removeprefix("{project}/")).is_file()
        if command.startswith("python -c"):
            compile(shlex.split(command)[2], "test-command", "exec")
    assert "FGFAST_CUDA" in settings["environment"]["SKBUILD_CMAKE_DEFINE"]


def test_the_image_copies_what_exists_and_what_the_build_needs() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [word.rstrip("/") for name, value in instructions() if name == "COPY" for word in value.split()[:-1]]
    assert set(copied) == allowed
    assert all((ROOT / path).exists() for path in copied)
    assert {"pyproject.toml", "CMakeLists.txt", PROJECT["project"]["readme"]} <= set(copied)
    assert set(PROJECT["project"]["license-files"]) <= set(copied)


def test_the_image_installs_extras_that_exist() -> None:
    arguments = dict(value.split("=", 1) for name, value in instructions() if name == "ARG")
    extras = set(PROJECT["project"]["optional-dependencies"])
    assert set(arguments["EXTRAS"].split(",")) <= extras
    page = (ROOT / "docs/release.md").read_text(encoding="utf-8")
    assert set(re.findall(r"EXTRAS=([\w,]+)", page)[0].split(",")) <= extras
    # DALI's wheels are for one major version of CUDA; the image and torch must have the same.
    (cuda,) = re.findall(r"nvidia-dali-cuda(\d+)0", " ".join(PROJECT["project"]["optional-dependencies"]["gpu"]))
    assert arguments["CUDA"].split(".")[0] == cuda
    assert f"/cu{''.join(arguments['CUDA'].split('.')[:2])}" in arguments["TORCH_INDEX"]


def test_the_image_runs_as_an_ordinary_user_with_its_cache_and_its_key_on_volumes() -> None:
    found = dict(instructions())
    assert found["USER"] == "fgfast" and found["ENTRYPOINT"] == '["fgfast"]'
    cache, state = found["VOLUME"].split()  # the key of the notes about a cache does not lie in it
    assert f"FGFAST_CACHE={cache}" in found["ENV"] and f"XDG_STATE_HOME={state}" in found["ENV"]
    assert "FGFAST_CUDA=ON" in DOCKERFILE and "implementation() == 'native'" in DOCKERFILE


def test_only_two_extras_bring_an_onnx_runtime() -> None:
    """The packages onnxruntime and onnxruntime-gpu share their files: installed together, neither works."""
    bring = {
        extra: {
            name for name in ("onnxruntime", "onnxruntime-gpu") if re.search(rf"(^|\n){name}[<>=]", "\n".join(names))
        }
        for extra, names in PROJECT["project"]["optional-dependencies"].items()
    }
    assert {extra: names for extra, names in bring.items() if names} == {
        "gpu": {"onnxruntime-gpu"},
        "cpu": {"onnxruntime"},
    }
