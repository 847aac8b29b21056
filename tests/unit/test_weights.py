"""Weights: found, fetched, checked, and read without running what a file says."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import logging
import os
import pickle
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from mirror import Mirror, serving
from parity.in_slots import alone

import fgfast
from fgfast.cli.models import models
from fgfast.config import Settings
from fgfast.doctor import stores
from fgfast.errors import (
    DownloadError,
    MissingExtraError,
    ModelNotCachedError,
    OfflineError,
    UnknownNameError,
    UsageError,
    WeightsError,
)
from fgfast.methods import ModelSpec
from fgfast.models.detic.build import build_detic
from fgfast.models.files import checkpoints as build
from fgfast.models.files import hub, states, weights
from fgfast.models.sam.build import build_sam
from fgfast.pipeline import choices
from fgfast.records import Image
from fgfast.transfer import cache_folder, digest_of

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("FGFAST_OFFLINE", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "FGFAST_MIRROR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("FGFAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "cache" / "models"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small models; on cores that others use too, waiting threads cost more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    with serving(monkeypatch) as server:
        yield server


def saved(content: object, **how: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **how)
    return buffer.getvalue()


STATE = {"a": torch.arange(6.0).reshape(2, 3), "b.weight": torch.ones(4)}


def offer(monkeypatch: pytest.MonkeyPatch, mirror: Mirror, name: str, content: bytes, published: bool = True) -> str:
    """Let the mirror have `content` as the checkpoint of `name`; returns its file's name."""
    official = weights.MODELS[name]
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}" if published else ""
    remote = replace(official.files[0], digest=digest, size=len(content) if published else None)
    monkeypatch.setattr(weights, "MODELS", {**weights.MODELS, name: replace(official, files=(remote,), needs=())})
    mirror.files[remote.file] = content
    return remote.file


def finding(name: str) -> weights.Finding:
    return next(found for found in weights.status() if found.name == name)


def test_the_table_is_whole() -> None:
    assert weights.names() == tuple(weights.MODELS)
    for name, model in weights.MODELS.items():
        assert bool(model.files) != bool(model.snapshot)
        assert set(model.needs) <= set(weights.MODELS)
        for remote in model.files:
            assert remote.url.startswith("https://")
            assert remote.digest == "" if name == "detic" else len(remote.digest) == len("sha256:") + 64
    with pytest.raises(UnknownNameError, match="Did you mean 'sam_vit_b'"):
        weights.find("sam_vitb")


@pytest.mark.skipif(sys.platform != "linux", reason="platformdirs knows the folders of other systems")
@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"XDG_CACHE_HOME": "/x"}, "/x/fgfast"),
        ({}, "/home/me/.cache/fgfast"),
        ({"FGFAST_CACHE": "~/mine", "XDG_CACHE_HOME": "/x"}, "/home/me/mine"),
    ],
)
def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str) -> None:
    for variable in ("FGFAST_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    assert cache_folder() == Path(expected)


def test_pull_fetches_checks_and_converts(mirror: Mirror, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = offer(monkeypatch, mirror, "sam_vit_b", saved(STATE))
    assert weights.find("sam_vit_b") is None
    assert finding("sam_vit_b") == weights.Finding(
        "sam_vit_b", "SAM ViT-B", len(mirror.files[file]), None, verified=False, digest="published"
    )
    mirror.breaks = 1
    told: list[tuple[Any, ...]] = []
    assert weights.pull("sam_vit_b", lambda *args: told.append(args)) == cache / file
    assert told[-1][:2] == (file, len(mirror.files[file]))
    assert len(mirror.asked) == 2  # resumed
    found = finding("sam_vit_b")
    assert found.path and found.verified and found.converted
    assert weights.verify("sam_vit_b") == found
    weights.pull("sam_vit_b")
    assert len(mirror.asked) == 2
    (copy,) = cache.glob("*.safetensors")
    loaded = build.cached_state("sam_vit_b")
    assert loaded.keys() == STATE.keys() and all(torch.equal(loaded[key], STATE[key]) for key in STATE)
    copy.write_bytes(copy.read_bytes()[:-1] + b"x")
    assert not finding("sam_vit_b").converted  # it is not what was hashed; the checkpoint itself is loaded
    assert torch.equal(build.cached_state("sam_vit_b")["a"], STATE["a"])


def test_a_replaced_checkpoint_is_noticed_and_its_copy_not_used(
    mirror: Mirror, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = offer(monkeypatch, mirror, "sam_vit_b", saved(STATE))
    weights.pull("sam_vit_b")
    other = saved({"a": -STATE["a"], "b.weight": STATE["b.weight"]})
    time.sleep(0.01)
    (cache / file).write_bytes(other)
    with pytest.raises(WeightsError, match=r"SHA256 is [0-9a-f]{64}, not [0-9a-f]{64} as published"):
        weights.path("sam_vit_b")
    offer(monkeypatch, mirror, "sam_vit_b", other)  # as if it were the published one
    assert torch.equal(build.cached_state("sam_vit_b")["a"], -STATE["a"])
    weights.pull("sam_vit_b")
    assert len(list(cache.glob("*.safetensors"))) == 1
    assert torch.equal(build.cached_state("sam_vit_b")["a"], -STATE["a"])


@pytest.mark.parametrize("claimed", ["published", "its own"])
def test_a_note_that_came_with_a_forged_checkpoint_is_no_note(
    mirror: Mirror, cache: Path, monkeypatch: pytest.MonkeyPatch, claimed: str
) -> None:
    file = offer(monkeypatch, mirror, "sam_vit_b", saved(STATE))
    forged = cache / file
    cache.mkdir(parents=True)
    other = saved({**STATE, "a": -STATE["a"]})
    assert len(other) == len(mirror.files[file])
    forged.write_bytes(other)
    digest = hashlib.sha256(mirror.files[file] if claimed == "published" else other).hexdigest()
    stat = forged.stat()
    facts = {"sha256": digest, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "ctime_ns": stat.st_ctime_ns}
    note = {"kind": "digest", "file": file, **facts, "mac": "0" * 64}
    (cache / f"{file}.checked").write_text(json.dumps(note))
    copy = cache / f"{forged.stem}.{digest[:16]}.safetensors"  # of the checkpoint, it says
    copy.write_bytes(b"forged")
    (cache / f"{copy.name}.checked").write_text(json.dumps({**note, "file": copy.name, "size": 6}))
    assert not finding("sam_vit_b").verified and not finding("sam_vit_b").converted
    for way in (weights.path, weights.verify, weights.pull, build.cached_state):
        with pytest.raises(WeightsError, match=r"not [0-9a-f]{64} as published"):
            way("sam_vit_b")


def test_without_a_published_digest_the_first_is_pinned(
    mirror: Mirror, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = offer(monkeypatch, mirror, "detic", saved({"model": STATE}), published=False)
    assert finding("detic").digest == "none" and finding("detic").size is None
    with caplog.at_level(logging.WARNING):
        weights.pull("detic")
    assert "no digest is published for Detic_LI21k" in caplog.text
    assert finding("detic").digest == "pinned" and finding("detic").verified
    for command in ("list", "verify"):
        done = CliRunner().invoke(models, [command, *(["detic"] if command == "verify" else [])])
        lines = [line for line in done.output.splitlines() if "not pinned" in line]
        assert len(lines) == 1 and lines[0].startswith("detic"), done.output
    assert [row["name"] for row in stores.weights() if not row["pinned"]] == ["detic"]
    (reason,) = choices._not_pinned(Settings(detector="detic", segmenter="sam_vit_b"))
    assert reason.startswith("weights of detic: not pinned")
    (cache / file).unlink()
    mirror.files[file] = saved({"model": {"a": STATE["a"]}})
    with pytest.raises(WeightsError, match=r"when it was first seen here.*remove .*\.checked"):
        weights.pull("detic")
    (cache / file).unlink()
    mirror.files[file] = b"<!DOCTYPE html> sign in"
    with pytest.raises(DownloadError, match="is not a checkpoint; it starts with b'<!DOCTYPE"):
        weights.pull("detic")
    assert not (cache / file).exists()


def test_detic_brings_the_vocabulary_and_half_a_file_is_fetched_again(
    mirror: Mirror, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, mirror, "detic", saved(STATE))
    offer(monkeypatch, mirror, "lvis", b"names")
    detic = replace(weights.MODELS["detic"], needs=("lvis",))
    monkeypatch.setattr(weights, "MODELS", {**weights.MODELS, "detic": detic})
    cache.mkdir(parents=True)
    (cache / detic.files[0].file).write_bytes(b"half")
    assert weights.find("detic") is None
    weights.pull("detic")
    assert finding("detic").verified and finding("lvis").verified


def test_absent_weights_say_what_to_type(monkeypatch: pytest.MonkeyPatch, mirror: Mirror) -> None:
    for name in weights.names():
        with pytest.raises(ModelNotCachedError, match=f"fgfast models pull {name}$"):
            weights.path(name)
        with pytest.raises(ModelNotCachedError):
            weights.verify(name)
    for variable, name in (
        ("FGFAST_OFFLINE", "sam_vit_l"),
        ("FGFAST_OFFLINE", "clip_text"),
        ("HF_HUB_OFFLINE", "clip_text"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(variable, "1")
            with pytest.raises(OfflineError, match=variable):
                weights.pull(name)
    assert mirror.asked == []
    assert not any(found.path or found.verified for found in weights.status())


def test_a_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FGFAST_CACHE", str(tmp_path / "file"))
    with pytest.raises(DownloadError, match="FGFAST_CACHE"):
        weights.pull("sam_vit_b")


def test_a_full_disk_is_said_and_what_is_there_needs_no_writing(
    mirror: Mirror, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, mirror, "sam_vit_b", saved(STATE))

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", full)
        with pytest.raises(DownloadError, match=r"cannot store SAM ViT-B in .*: No space left on device"):
            weights.pull("sam_vit_b")
    assert [file.suffix for file in cache.iterdir() if file.suffix == ".part"] == []
    assert finding("sam_vit_b").verified and not finding("sam_vit_b").converted
    weights.pull("sam_vit_b")
    monkeypatch.setattr(weights, "_locked", full)
    assert weights.pull("sam_vit_b") == weights.path("sam_vit_b")
    assert len(mirror.asked) == 1


def test_models_of_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = b"weights"
    snapshot = replace(hub.GROUNDING_DINO_TINY, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    model = replace(weights.MODELS["grounding_dino_tiny"], snapshot=snapshot)
    monkeypatch.setattr(weights, "MODELS", {**weights.MODELS, "grounding_dino_tiny": model})
    asked: list[str] = []

    def snapshot_download(repo: str, revision: str, allow_patterns: list[str], cache_dir: Path) -> None:
        asked.append(repo)
        place = cache_dir / "models--IDEA-Research--grounding-dino-tiny" / "snapshots" / revision
        place.mkdir(parents=True)
        for file in allow_patterns:
            (place / file).write_bytes(content)

    fake = ModuleType("huggingface_hub")
    fake.snapshot_download = snapshot_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    place = weights.pull("grounding_dino_tiny")
    assert place == weights.path("grounding_dino_tiny") == weights.find("grounding_dino_tiny")
    assert place.is_relative_to(tmp_path / "hf" / "hub")
    assert weights.pull("grounding_dino_tiny") == place and asked == ["IDEA-Research/grounding-dino-tiny"]
    assert finding("grounding_dino_tiny").verified
    (place / snapshot.weights).write_bytes(b"other")
    assert not finding("grounding_dino_tiny").verified
    with pytest.raises(WeightsError, match="as published"):
        weights.path("grounding_dino_tiny")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"extra 'text'"):
        weights.pull("grounding_dino_base")


# --- reading


def test_every_torch_load_is_weights_only() -> None:
    root = Path(fgfast.__file__).parent
    files = [file for folder in (root, root.parent / "export", root.parent / "bench") for file in folder.rglob("*.py")]
    calls = []
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
                assert "load" not in {name.name for name in node.names}, f"{file}: call it as torch.load"
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "torch.serialization.load"):
                given = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert given.get("weights_only") == "True", f"{file}:{node.lineno}"
                calls.append(file)
    assert calls


@pytest.mark.parametrize("wrapper", ["", "model", "state_dict"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_is_read(tmp_path: Path, wrapper: str, zipped: bool) -> None:
    content = {wrapper: STATE, "iteration": 3} if wrapper else STATE
    (tmp_path / "a.pth").write_bytes(saved(content, _use_new_zipfile_serialization=zipped))
    found = states.load_state(tmp_path / "a.pth")
    assert found.keys() == STATE.keys() and all(torch.equal(found[key], STATE[key]) for key in STATE)


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_numpy_arrays_in_a_checkpoint_are_read(tmp_path: Path, core: str) -> None:
    content = {
        "model": {kind: np.arange(6).reshape(2, 3).astype(kind) for kind in ("float16", "float32", "int64", "bool")},
        "iteration": np.int64(3),
        "__author__": "Detic",
    }
    written = zipfile.ZipFile(io.BytesIO(saved(content)))
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as file:  # as NumPy 1 or 2 names it
        for name in written.namelist():
            data = written.read(name)
            for other in (b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"):
                data = data.replace(other, b"c" + core.encode() + b".multiarray\n")
            file.writestr(name, data)
    assert core.encode() in (tmp_path / "a.pth").read_bytes()
    found = states.load_state(tmp_path / "a.pth")
    assert {key: str(value.dtype) for key, value in found.items()} == {
        "float16": "torch.float16", "float32": "torch.float32", "int64": "torch.int64", "bool": "torch.bool"
    }  # fmt: skip
    assert found["int64"].tolist() == [[0, 1, 2], [3, 4, 5]]


class Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


class EvilEval(Evil):
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"__import__('pathlib').Path({str(self.trace)!r}).touch()",)


@pytest.mark.parametrize("evil", [Evil, EvilEval])
@pytest.mark.parametrize("how", ["zip", "legacy", "pickle", "array", "scalar"])
def test_nothing_in_a_file_is_run(tmp_path: Path, evil: type[Evil], how: str) -> None:
    trace, file = tmp_path / "trace", tmp_path / "a.pth"
    hidden: object = evil(trace)
    if how == "array":
        hidden = np.array([hidden], dtype=object)
    content = {"model": {**STATE, "x": hidden}}
    if how == "pickle":
        file.write_bytes(pickle.dumps(content, protocol=2))
    else:
        file.write_bytes(saved(content, _use_new_zipfile_serialization=how != "legacy"))
    with pytest.raises(WeightsError, match="it was not loaded"):
        states.load_state(file)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "damaged or not a checkpoint"),
        (b"<!DOCTYPE html>", "not loaded"),
        (saved(STATE)[:300], "."),
        (saved(torch.ones(2)), "contains a Tensor"),
        (saved({}), "contains a dict"),
        (saved({"model": {"a": "text"}}), "a is a str; a table of numeric weights"),
        (saved({"a": np.array(["x", None], dtype=object)}), "not loaded|an array of object"),
    ],
)
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=problem):
        states.load_state(tmp_path / "a.pth")
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match="safetensors"):
        states.load_state(tmp_path / "a.safetensors")


class Calls:
    """Becomes a call of a function that torch's weights-only unpickler allows, or NumPy's pickles need."""

    def __init__(self, function: Any, *arguments: Any, state: object = None) -> None:
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


def nested(depth: int) -> bytes:
    """A table whose only key is a tuple, nested so deep that its hash overflows the stack of C."""
    return b"\x80\x02}" + b")" + b"\x85" * depth + b"K\x01s."


def numpy_pickle(dtype_state: tuple[object, ...], dtype: str = "f4") -> Calls:
    """An array whose dtype is changed after it was made: NumPy's own float32, where it is not copied."""
    rebuild = np.zeros(0).__reduce__()[0]
    changed = Calls(np.dtype, dtype, False, False, state=dtype_state)
    return Calls(rebuild, np.ndarray, (0,), b"b", state=(1, (2,), changed, False, bytes(8)))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"a": Calls(bytearray, 1 << 40)}, "would run (__builtin__|builtins).bytearray"),
        ({"a": Calls(torch.Tensor, 1 << 40)}, "would run torch"),
        (
            {"a": Calls(torch._utils._rebuild_meta_tensor_no_storage, torch.float32, (1 << 40,), (1,), False)},
            "would run",
        ),
        ({"a": torch.zeros(1).expand(1 << 40)}, "would take 4,398,046,511,104 bytes"),
        ({f"t{n}": shared for shared in [torch.zeros(1 << 20)] for n in range(9)}, "would take"),
        ({"a": torch.zeros(3, dtype=torch.complex64)}, "a is a tensor of torch.complex64"),
        ({"a": torch.eye(3).to_sparse()}, "would run"),
        ({5: torch.zeros(1)}, "names a weight by a int"),
        ({"a": np.zeros(3, ">f4")}, "holds an array of"),
        ({"a": np.zeros(3, "f4,i4")}, "holds an array of|would run"),
        ({"a": np.array(["x"])}, "holds an array of"),
        ({"a": numpy_pickle((3, ">", None, None, None, -1, -1, 0))}, "holds an array of another type"),
        (
            {"a": numpy_pickle((3, "<", (np.dtype("i4"), (2,)), None, None, -1, -1, 0))},
            "holds an array of another type",
        ),
        ({"a": numpy_pickle((3, "<", None, ("x",), {"x": (np.dtype("i4"), 0)}, 4, 1, 1))}, "of another type"),
        ({"a": numpy_pickle((3, "|", None, None, None, -1, -1, 0), "O")}, "holds an array of O"),
        (Calls(dict), "would run"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_what_takes_memory_or_changes_numpy_is_refused(
    tmp_path: Path, content: object, problem: str, zipped: bool
) -> None:
    (tmp_path / "a.pth").write_bytes(saved(content, _use_new_zipfile_serialization=zipped))
    with pytest.raises(WeightsError, match=problem):
        states.load_state(tmp_path / "a.pth")
    assert np.dtype("float32").isnative and np.ones(2, "float32").sum() == 2


def zipped_table(table: bytes, names: tuple[str, ...] = (), compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in {"a/data.pkl": table, **dict.fromkeys(names, b""), "a/version": b"3\n"}.items():
            file.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (nested(200_000), "nested deeper"),
        (zipped_table(nested(200_000)), "nested deeper"),
        (zipped_table(b"\x80\x02" + b"}" * 2_000_001 + b"."), "holds more"),
        (zipped_table(b"\x80\x02cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\n."), "."),
        (zipped_table(b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x04\x00\x00\x00idna\x86R."), "holds text"),
        (zipped_table(bytes(1 << 20), compression=zipfile.ZIP_DEFLATED), "is compressed"),
        (zipped_table(b"\x80\x02}.", ("b/data.pkl",)), "not a checkpoint"),
        # What torch's reader of archives takes for a/data.pkl, and zipfile for another file, or the reverse.
        (zipped_table(b"\x80\x02}.", ("a/DATA.pkl",)), "not a checkpoint"),
        (zipped_table(b"\x80\x02}.", ("a/versionXb",)).replace(b"versionX", b"version\0"), "not a checkpoint"),
        (zipped_table(b"\x80\x02}.").replace(b"a/data.pkl", b"a/Data.pkl"), "not a checkpoint"),
        (b"PK\x03\x04" + bytes(96) + zipped_table(b"\x80\x02}."), "not a checkpoint"),
        (zipped_table(b"\x80\x02}."), "contains a dict"),
        (zipped_table(b"\x80\x02q."), "not a checkpoint"),
        (zipped_table(b"\x80\x02h\x00."), "not a checkpoint"),
        (zipped_table(b"\x80\x02X\xff\xff\xff\xff"), "ends early"),
        (zipped_table(b"\x80\x02t."), "not a checkpoint"),
        (zipped_table(b"\x80\x02I" + b"9" * 10_000 + b"\n."), "not a checkpoint"),
        (zipped_table(b"\x80\x02}.")[:-1], "its end is missing"),
        (zipped_table(b"\x80\x02}.")[:-12] + b"\xff\xff\xff\x7f" + bytes(8), "lists more files|is damaged"),
        (zipped_table(b"\x80\x02}.")[:-10] + b"\xff\xff\xff\xff" + bytes(6), "lists more files"),
        (b"PK\x03\x04", "its end is missing"),
    ],
)
def test_odd_archives_and_pickles_are_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=problem):
        states.load_state(tmp_path / "a.pth")


def safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def described(dtype: str = "F32", shape: object = (1,), offsets: object = (0, 4)) -> dict[str, object]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


@pytest.mark.parametrize(
    "content",
    [
        safetensors(b"{}", length=1 << 62),
        safetensors(b" " * 100, length=(16 << 20) + 1),
        safetensors(b"[" * 100_000),
        safetensors(described(shape=(1 << 40,)), bytes(4)),
        safetensors(described(shape=(1 << 62, 4)), bytes(4)),
        safetensors(described(shape=(-1,)), bytes(4)),
        safetensors(described(offsets=(0, 1 << 50)), bytes(4)),
        safetensors(described(offsets=(4, 0)), bytes(4)),
        safetensors(described("C64", (1,), (0, 8)), bytes(8)),
        safetensors(described("NONE"), bytes(4)),
        safetensors({"a": None}),
        safetensors({**described(), "b": described()["a"]}, bytes(4)),
        safetensors(described(), bytes(400)),
    ],
)
def test_odd_safetensors_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match=r"a\.safetensors: "):
        states.load_state(tmp_path / "a.safetensors")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_pipe_is_no_checkpoint(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(WeightsError, match="it is a named pipe"):
        states.load_state(tmp_path / name)


def test_a_conversion_keeps_every_bit(tmp_path: Path) -> None:
    whole = torch.arange(12.0)
    state = {
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "half": torch.randn(3).bfloat16(),
        "part": whole[3:5],
        "other_part": whole[4:9],
        "count": torch.tensor(7),
    }
    (tmp_path / "a.pth").write_bytes(saved({"model": state}))
    copy = states.convert(tmp_path / "a.pth")
    found = states.load_state(copy)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) and found[key].dtype == state[key].dtype for key in state)
    assert json.loads((tmp_path / f"{copy.name}.checked").read_text())["sha256"] == digest_of(copy)


def test_keys_and_shapes_are_strict() -> None:
    wanted = {"a": torch.empty(2, 3), "b.weight": torch.empty(4)}
    assert states.check_state(STATE, wanted).keys() == STATE.keys()
    extra = {**STATE, "head.mask": torch.ones(1)}
    assert states.check_state(extra, wanted, r"head\..*").keys() == STATE.keys()
    with pytest.raises(WeightsError, match=r"b\.weight is missing; c is unknown; a is \(3,\), not \(2, 3\)\. It looks"):
        states.check_state({"a": torch.ones(3), "c": torch.ones(1)}, wanted)
    with pytest.raises(WeightsError, match=r"and 3 more\. .*DataParallel"):
        states.check_state({f"module.{i}": torch.ones(1) for i in range(6)}, wanted)


# --- random


def test_random_weights_depend_on_seed_key_and_shape_alone() -> None:
    class Layers(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self, *names: str) -> None:
            super().__init__()
            for name in names:
                self.add_module(name, torch.nn.Linear(30, 20))

    one, two = states.random_state(Layers("p", "q"), 1), states.random_state(Layers("q", "r", "p"), 1)
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not torch.equal(one["p.weight"], one["q.weight"])
    assert not torch.equal(one["p.weight"], states.random_state(Layers("p"), 2)["p.weight"])
    assert one["p.weight"].dtype == torch.float32 and one["p.weight"].std().item() == pytest.approx(30**-0.5, rel=0.1)
    # The same on every machine and with every version.
    assert one["p.weight"][0, :3].tolist() == pytest.approx([-0.31628236, -0.05261881, -0.07052454], abs=1e-7)


def test_a_random_sam_gives_signals_of_order_one() -> None:
    from fgfast.models.sam.segmenter import finish
    from fgfast.models.sam.sessions import sam_in_torch

    model = build_sam(ModelSpec("sam_tiny256", "random:3"))
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    with torch.inference_mode():
        embedding = model.image_encoder(torch.randn(1, 3, 256, 256))
    assert 0.3 < embedding.std().item() < 3
    image = Image(np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8))
    box = np.array([20, 10, 120, 100], np.float32)
    first, again = (
        finish(alone(sam_in_torch(sam), image, box), 120, 160)
        for sam in (model, build_sam(ModelSpec("sam_tiny256", "random:3")))
    )
    assert 0 < first.bits.mean() < 1
    assert np.array_equal(first.bits, again.bits)


def test_a_random_detic_finds_something() -> None:
    from fgfast.models.detic.detector import DeticDetector
    from fgfast.models.detic.sessions import detic_in_torch
    from fgfast.models.vocabulary import load_vocabulary

    model = build_detic(ModelSpec("detic_nano", "random:3", "bf16"))
    names, embeddings = load_vocabulary("bird,car", "random:3")
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    config = replace(model.config, shorter_edge=64, longest_edge=128)
    detector = DeticDetector(detic_in_torch(model), config, names, torch.from_numpy(embeddings))
    found = alone(detector, Image(pixels))
    assert len(found.boxes) > 0
    assert np.isfinite(found.boxes).all()


def test_models_are_built_from_files_and_differences_are_named(tmp_path: Path) -> None:
    drawn = build_sam(ModelSpec("sam_tiny256", "random:3"))
    file = tmp_path / "mine.pth"
    torch.save(drawn.state_dict(), file)
    loaded = build_sam(ModelSpec("sam_tiny256", str(file)))
    assert all(torch.equal(a, b) for a, b in zip(drawn.parameters(), loaded.parameters(), strict=True))
    with pytest.raises(WeightsError, match=r"mine\.pth: of another model: .*\. It looks like a SAM checkpoint, of 64"):
        build_sam(ModelSpec("sam_tiny1024", str(file)))
    with pytest.raises(WeightsError, match="a SAM checkpoint"):
        build_detic(ModelSpec("detic_nano", str(file)))
    detic = build_detic(ModelSpec("detic_nano", "random:1"))
    state = {key: value for key, value in detic.state_dict().items() if "relative_position_index" not in key}
    state["roi_heads.mask_head.predictor.weight"] = torch.ones(1)
    state["roi_heads.box_predictor.0.cls_score.zs_weight"] = torch.ones(1)
    torch.save({"model": state}, file)
    assert torch.equal(next(build_detic(ModelSpec("detic_nano", str(file))).parameters()), next(detic.parameters()))


def test_what_cannot_be_built_is_said() -> None:
    with pytest.raises(UnknownNameError, match="vit_b"):
        build_sam(ModelSpec("sam_vit_x"))
    with pytest.raises(UnknownNameError, match="precision"):
        build_sam(ModelSpec("sam_vit_b", precision="fp7"))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="which TensorRT runs"):
        build_sam(ModelSpec("sam_vit_b", precision="fp8"))
    with pytest.raises(UnknownNameError, match="no model named 'detic_r50'"):
        build_detic(ModelSpec("detic_r50"))
    with pytest.raises(ModelNotCachedError, match="fgfast models pull sam_vit_b"):
        build_sam(ModelSpec("sam_vit_b"))
    with pytest.raises(UsageError, match="no official weights"):
        build_detic(ModelSpec("detic_nano"))
    with pytest.raises(UsageError, match='neither "cached" nor "random:SEED" nor a file'):
        build_sam(ModelSpec("sam_tiny256", "random"))
