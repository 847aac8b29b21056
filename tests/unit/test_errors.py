"""Errors that name a command name one that works: fgfast is not on PyPI."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from fgfast.errors import MissingExtraError, UsageError, install_command, runtime_command
from fgfast.methods import ModelSpec

ROOT = Path(__file__).parents[2]


class Distribution:
    def __init__(self, record: dict[str, Any] | None) -> None:
        self.record = record

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return json.dumps(self.record) if self.record else None


@pytest.mark.parametrize(
    ("record", "command"),
    [
        ({"url": "file:///src/fg%20fast", "dir_info": {}}, 'pip install "/src/fg fast[models]"'),
        ({"url": "file:///src/fgfast", "dir_info": {"editable": True}}, 'pip install -e "/src/fgfast[models]"'),
        (
            {
                "url": "https://host/fgfast.git",
                "vcs_info": {"vcs": "git", "commit_id": "abc", "requested_revision": "main"},
            },
            'pip install "fgfast[models] @ git+https://host/fgfast.git@abc"',
        ),
        (
            {"url": "file:///tmp/fgfast-0.1.0-py3-none-any.whl", "archive_info": {}},
            'pip install "fgfast[models] @ file:///tmp/fgfast-0.1.0-py3-none-any.whl"',
        ),
        (None, 'cd CLONE_OF_FGFAST && pip install ".[models]"'),
    ],
    ids=["folder", "editable", "git", "wheel", "unknown"],
)
def test_the_hint_installs_from_where_fgfast_came(
    record: dict[str, Any] | None, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Distribution(record))
    assert install_command("models") == command
    assert command in str(MissingExtraError("torch", "models", "SAM"))


@pytest.mark.parametrize(("present", "gpu"), [("onnxruntime", True), ("onnxruntime-gpu", False)])
def test_no_hint_installs_one_onnx_runtime_over_the_other(
    present: str, gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every hint that brings an ONNX Runtime: of a package, of a backend, of an engine."""

    def version(name: str) -> str:
        if name != present:
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.23"

    monkeypatch.setattr(importlib.metadata, "version", version)
    remove = f"pip uninstall -y {present} && "
    assert runtime_command(gpu).startswith(remove)
    hints = [str(MissingExtraError("tensorrt" if gpu else "onnxruntime", "gpu" if gpu else "cpu", "a backend"))]
    if importlib.util.find_spec("torch") is not None:
        from fgfast.export.make import check_tensorrt
        from fgfast.models.serving import backend

        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(UsageError, match="is not installed") as error:
            backend.check([ModelSpec("detic", backend="onnxruntime", device="cuda:0" if gpu else "cpu")])
        hints.append(str(error.value))
        if gpu:
            with pytest.raises(UsageError, match="is not installed") as error:
                check_tensorrt()
            hints.append(str(error.value))
    assert all(remove in hint for hint in hints), hints


def test_without_a_record_of_the_installation_the_clone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    assert install_command(options="-U") == 'cd CLONE_OF_FGFAST && pip install -U "."'


def test_no_text_sends_anyone_to_the_name_on_pypi() -> None:
    """`pip install fgfast` would install whatever somebody else has put there."""
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    hints = re.compile(r"pip install [^\n`]*?[\"' ]fgfast(?![\w/.-]|\[\w+\] @|\{more\} @| @)")
    lines = [
        f"{file.relative_to(ROOT)}: {line}"
        for file in [*(ROOT / "fgfast").rglob("*.py"), *pages]
        for line in file.read_text(encoding="utf-8").splitlines()
    ]
    assert len(lines) > 1000
    assert not [line for line in lines if hints.search(line)]
    assert hints.search('pip install "fgfast[models]"') and hints.search("pip install -U fgfast")
