"""Engines: how they are built, named, trusted and run, against a fake of TensorRT."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

import unit.fake_tensorrt as fake  # noqa: E402

from fgfast.backends import tensorrt as backend  # noqa: E402
from fgfast.backends import tensorrt_engine as files  # noqa: E402
from fgfast.backends.manifest import Manifest  # noqa: E402
from fgfast.backends.tensorrt_engine import Span  # noqa: E402
from fgfast.doctor import two_layers  # noqa: E402
from fgfast.errors import GraphError, MissingExtraError, ParityError, RecordingFailedError, UsageError  # noqa: E402
from fgfast.export import tensorrt as export  # noqa: E402
from fgfast.export import tensorrt_build  # noqa: E402
from fgfast.export.check import Run, compare  # noqa: E402
from fgfast.graphs import Contract, Port  # noqa: E402
from fgfast.tolerances import Tolerance  # noqa: E402
from fgfast.transfer import digest_of  # noqa: E402

TOLERANCES = {"numbers": Tolerance(1e-4, 1e-4, "sums of 64 float32 numbers")}


class House:
    """A graph in a folder, and the ways to an engine of it."""

    def __init__(self, folder: Path, rows: int | str = "batch") -> None:
        made: tuple[Path, Contract] = two_layers.write(folder, rows)
        self.graph, self.contract = made
        self.inputs = {"x": torch.randn(3, 64, generator=torch.Generator().manual_seed(0))}

    def reference(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        w, b = (torch.from_numpy(n) for n in two_layers.parameters())
        return {"y": torch.relu(inputs["x"] @ w + b)}

    def parity(self, run: Run, how: str) -> list[dict[str, Any]]:
        return compare(self.contract, run, self.reference, [(f"random{how}", self.inputs)], TOLERANCES)

    def manifest(self) -> Manifest:
        digests = {file.name: digest_of(file) for file in (self.graph, *self.graph.parent.glob("*.data"))}
        return Manifest(self.contract, "two_layers", "random:0", "fp32", 20, {"fgfast": "0"}, digests)

    def engine(self) -> Path:
        return export.engine(self.graph, self.manifest(), self.parity)

    def session(self, path: Path) -> backend.TensorRtSession:
        return backend.TensorRtSession(path, self.contract)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGFAST_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def _same(found: Any, wanted: Any) -> bool:
    return bool(torch.allclose(found, wanted, atol=1e-4))


def _calls(trt: Any, name: str) -> list[Any]:
    return [arguments for call, arguments in trt.calls if call == name]


@pytest.mark.parametrize(("version", "flags"), [("10.0.1", 1 << 1), ("10.16.1.11", 1 << 1), ("11.4.0.106", 0)])
def test_networks_are_strongly_typed(house: House, monkeypatch: pytest.MonkeyPatch, version: str, flags: int) -> None:
    trt: Any = fake.make(version)
    fake.install(monkeypatch, trt)
    assert house.engine().is_file()
    assert _calls(trt, "create_network") == [flags]
    assert _calls(trt, "clear_flag") == [trt.BuilderFlag.TF32]
    assert _calls(trt, "memory") == [4 << 30]
    assert _calls(trt, "plugins") == [""]


def test_free_sizes_become_a_profile(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    trt: Any = fake.make()
    fake.install(monkeypatch, trt)
    house.engine()
    (config,) = _calls(trt, "build")
    assert [profile.shapes for profile in config.profiles] == [{"x": ((1, 64), (4, 64), (8, 64))}]


def test_a_free_size_without_a_span_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch, fake.make())
    with pytest.raises(GraphError, match="no span is given for the sizes \\['rows'\\]"):
        House(tmp_path, "rows").engine()


def test_fixed_shapes_need_no_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trt: Any = fake.make()
    fake.install(monkeypatch, trt)
    House(tmp_path, rows=3).engine()
    assert not _calls(trt, "build")[0].profiles


def test_attention_without_a_fused_kernel_may_be_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trt: Any = fake.make()
    fake.install(monkeypatch, trt)
    shape = [1, 2, 4, 8]
    names = ("q", "k", "v", "y")
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in names]
    nodes = [onnx.helper.make_node("Attention", ["q", "k", "v"], ["a"]), onnx.helper.make_node("Relu", ["a"], ["y"])]
    graph = onnx.helper.make_graph(nodes, "attention", values[:3], values[3:])
    file = tmp_path / "attention.onnx"
    onnx.save_model(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)]), str(file))
    ports = [Port(name, "float32", tuple(shape), "") for name in names]
    tensorrt_build.build(file, Contract("attention", tuple(ports[:3]), tuple(ports[3:])))
    ((attention, relu),) = _calls(trt, "layers")
    assert attention.attention.decomposable
    assert type(relu) is fake.ILayer


def test_timings_are_kept_for_the_next_build(house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trt: Any = fake.make()
    fake.install(monkeypatch, trt)
    files.manifest_of(house.engine()).unlink()
    house.engine()
    assert _calls(trt, "timings") == [b"", b"measured;"]
    (file,) = (tmp_path / "cache" / "graphs").glob("timings-*.cache")
    assert "fake-gpu-sm90-trt10.16" in file.name
    file.write_bytes(b"damaged")
    tensorrt_build.build(house.graph, house.contract)
    assert _calls(trt, "timings")[-1] == b"" and file.read_bytes() == b"measured;"
    file.with_name(f"{file.name}.built").unlink()  # a stranger's: no reader of TensorRT sees it
    tensorrt_build.build(house.graph, house.contract)
    assert _calls(trt, "timings")[-1] == b""


def test_an_engine_is_built_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    trt: Any = fake.make()
    fake.install(monkeypatch, trt)
    assert house.engine() == house.engine()
    assert len(_calls(trt, "build")) == 1


def test_another_version_or_graph_is_built_anew_and_the_old_engine_goes(
    house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake.install(monkeypatch, fake.make("10.16.1.11"))
    first = house.engine()
    fake.install(monkeypatch, fake.make("11.4.0.106"))
    second = house.engine()
    assert second.is_file() and not first.exists() and not files.manifest_of(first).exists()
    model = onnx.load(str(house.graph))
    model.doc_string = "changed"
    onnx.save(model, str(house.graph))
    third = house.engine()
    assert third.is_file() and not second.exists()
    monkeypatch.setattr(files, "SPANS", {"batch": Span(1, 2, 3)})
    assert files.engine_path(house.graph, house.manifest()) != third
    assert len(list(tmp_path.glob("*.engine"))) == 1


def test_rewording_the_contract_keeps_the_engine(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    trt: Any = fake.make()
    fake.install(monkeypatch, trt)
    first = house.engine()
    ports = tuple(replace(port, meaning="reworded") for port in house.contract.inputs)
    house.contract = replace(house.contract, inputs=ports)
    assert house.engine() == first and len(_calls(trt, "build")) == 1
    house.contract = replace(house.contract, version=2)
    assert house.engine() != first and len(_calls(trt, "build")) == 2


def test_another_gpu_has_an_engine_of_its_own(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch, fake.make(), name="NVIDIA H200")
    first = house.engine()
    fake.install(monkeypatch, fake.make(), name="NVIDIA A100-SXM4-80GB")
    second = house.engine()
    assert "nvidia-a100-sxm4-80gb-sm90" in second.name
    assert first.is_file() and second.is_file()


def test_weights_beside_the_graph_are_part_of_its_name(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch, fake.make())
    model = onnx.load(str(house.graph))
    onnx.save(model, str(house.graph), save_as_external_data=True, location="w.data", size_threshold=0)
    first = house.engine()
    data = house.graph.with_name("w.data")
    data.write_bytes(data.read_bytes() + b" ")
    assert house.engine() != first and not first.exists()


def test_a_graph_that_is_not_its_manifests_is_not_built(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    trt: Any = fake.make()
    fake.install(monkeypatch, trt)
    manifest = Manifest(house.contract, "two_layers", "random:0", "fp32", 20, {}, {house.graph.name: "0" * 64})
    with pytest.raises(GraphError, match="is not the file that was checked"):
        export.engine(house.graph, manifest, house.parity)
    assert not trt.calls


def test_an_engine_that_was_changed_is_not_loaded(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    trt: Any = fake.make()
    fake.install(monkeypatch, trt)
    path = house.engine()
    good = path.read_bytes()
    path.write_bytes(good + b" ")
    trt.calls.clear()
    with pytest.raises(GraphError, match="it was changed"):
        house.session(path)
    assert not _calls(trt, "deserialize")
    assert house.engine().read_bytes() == good and len(_calls(trt, "build")) == 1


def test_an_engine_from_elsewhere_is_not_loaded(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    trt: Any = fake.make()
    fake.install(monkeypatch, trt)
    path = house.engine()
    files.manifest_of(path).unlink()
    trt.calls.clear()
    with pytest.raises(GraphError, match=r"\.json is missing, so the engine was not built here"):
        house.session(path)
    assert not _calls(trt, "deserialize")


@pytest.mark.parametrize("forged", ["no note", "changed note", "of another engine", "of another key", "of another GPU"])
def test_an_engine_that_comes_with_its_manifest_is_built_again(
    house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, forged: str
) -> None:
    """What a stranger's archive of a cache holds: an engine, its manifest, and any note but one of this user's."""
    trt: Any = fake.make()
    fake.install(monkeypatch, trt)
    path = house.engine()
    note, good = files.note_of(path), path.read_bytes()
    assert note.stat().st_mode & 0o777 == 0o600 or sys.platform == "win32"
    if forged == "no note":
        note.unlink()
    elif forged == "changed note":
        note.write_text(json.dumps({**json.loads(note.read_text()), "sha256": "0" * 64}))
    elif forged == "of another engine":
        other = path.with_name(f"other-{path.name}")
        other.write_bytes(good)
        files.record(other, house.contract, "cuda:0", digest_of(other))
        note.write_bytes(files.note_of(other).read_bytes())
    elif forged == "of another key":
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))
    else:
        with monkeypatch.context() as patch:
            patch.setattr(files, "gpu_name", lambda device: "another")
            files.record(path, house.contract, "cuda:0", digest_of(path))
    trt.calls.clear()
    with pytest.raises(GraphError, match=r"is not known to be built here .* build it again from its ONNX file"):
        house.session(path)
    assert not _calls(trt, "deserialize")
    assert house.engine() == path and len(_calls(trt, "build")) == 1
    house.session(path).close()


def test_an_engine_that_was_copied_with_its_folder_is_kept(
    house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A restored backup of this user's: the same bytes, other times."""
    trt: Any = fake.make()
    fake.install(monkeypatch, trt)
    path = house.engine()
    moved = Path(shutil.copytree(tmp_path, tmp_path.with_name("restored"))) / path.name
    house.session(moved).close()
    assert len(_calls(trt, "build")) == 1


def test_an_engine_of_another_version_or_contract_is_not_loaded(
    house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake.install(monkeypatch, fake.make("10.16.1.11"))
    path = house.engine()
    _, other = two_layers.write(tmp_path, 3)
    with pytest.raises(GraphError, match="another contract"):
        backend.TensorRtSession(path, other)
    fake.install(monkeypatch, fake.make("10.15.1.29"))
    with pytest.raises(GraphError, match=r"built with TensorRT 10\.16\.1\.11; this is 10\.15\.1\.29"):
        house.session(path)


def test_the_manifest_says_what_the_engine_is(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch, fake.make())
    path = house.engine()
    manifest = Manifest.read(files.manifest_of(path))
    assert list(manifest.files) == [path.name]
    assert manifest.code["tensorrt"] == "10.16.1.11" and manifest.code["gpu"] == "fake-gpu-sm90"
    assert manifest.measured[0]["output"] == "y" and manifest.weights == "random:0"


def test_all_parser_errors_are_in_the_message(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch, fake.make(fault="parse"))
    with pytest.raises(GraphError) as error:
        house.engine()
    message = str(error.value)
    assert "2 errors" in message and "Mystery 'node_7'" in message and "Riddle 'node_9': no importer" in message


@pytest.mark.parametrize(
    ("fault", "message"),
    [("build", "cannot build .* no implementation"), ("deserialize", "magic tag"), ("run", "cannot run")],
)
def test_tensorrts_reason_is_in_the_message(
    house: House, monkeypatch: pytest.MonkeyPatch, fault: str, message: str, tmp_path: Path
) -> None:
    fake.install(monkeypatch, fake.make(fault=fault))
    with pytest.raises(GraphError, match=message):
        house.engine()
    assert not [*tmp_path.glob("*.engine"), *tmp_path.glob("*.json"), *tmp_path.glob("*.part")]


def test_an_engine_that_computes_something_else_is_deleted(
    house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake.install(monkeypatch, fake.make(fault="numbers"))
    with pytest.raises(ParityError, match="y is off by 1 "):
        house.engine()
    assert not [*tmp_path.glob("*.engine"), *tmp_path.glob("*.json"), *tmp_path.glob(".*.part")]


def test_inputs_and_outputs_are_bound_where_they_lie(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    trt: Any = fake.make()
    caller = fake.install(monkeypatch, trt).current
    session = house.session(house.engine())
    trt.calls.clear()
    found = session.run(house.inputs)
    assert _same(found["y"], house.reference(house.inputs)["y"])
    assert _calls(trt, "shape") == [("x", (3, 64))]
    assert dict(_calls(trt, "address")) == {"x": house.inputs["x"].data_ptr(), "y": found["y"].data_ptr()}
    ours = session._stream
    assert _calls(trt, "execute") == [ours.cuda_stream] and ours is not caller
    assert ours.waited[-1] is caller and caller.waited[-1] is ours
    # The same sizes again: only addresses are set. What was returned before stays.
    again = session.run({"x": house.inputs["x"] * 2})
    assert len(_calls(trt, "shape")) == 1
    assert again["y"].data_ptr() != found["y"].data_ptr()
    assert _same(found["y"], house.reference(house.inputs)["y"])
    given = fake.fake_cuda.Stream()
    session.run(house.inputs, given)
    assert ours.waited[-1] is given and given.waited[-1] is ours


def test_what_is_not_aligned_is_copied(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    trt: Any = fake.make()
    fake.install(monkeypatch, trt)
    session = house.session(house.engine())
    monkeypatch.setattr(backend, "_ALIGNMENT", 1 << 62)
    assert _same(session.run(house.inputs)["y"], house.reference(house.inputs)["y"])
    assert dict(_calls(trt, "address")[-2:])["x"] != house.inputs["x"].data_ptr()


def test_sizes_outside_the_profile_are_an_error(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch, fake.make())
    session = house.session(house.engine())
    with pytest.raises(GraphError, match=r"x has shape \(9, 64\), but the engine was built for \(1, 64\) to \(8, 64\)"):
        session.run({"x": torch.zeros(9, 64)})
    assert session.run(house.inputs)["y"].shape == (3, 32)


def test_inputs_elsewhere_are_an_error(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch, fake.make())
    session = house.session(house.engine())
    with pytest.raises(GraphError, match="x is on meta but must be on cpu"):
        session.run({"x": torch.zeros(3, 64, device="meta")})


def test_fixed_shapes_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trt: Any = fake.make()
    fake.install(monkeypatch, trt)
    house = House(tmp_path, rows=3)
    session = house.session(house.engine())
    session.prepare()
    assert session.recorded
    trt.calls.clear()
    first = session.run(house.inputs)
    second = session.run({"x": house.inputs["x"] + 1})
    assert not _calls(trt, "address")
    assert _same(first["y"], house.reference(house.inputs)["y"])
    assert _same(second["y"], house.reference({"x": house.inputs["x"] + 1})["y"])


def test_a_failed_recording_ends_the_process_and_the_next_one_runs_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trt: Any = fake.make()
    cuda = fake.install(monkeypatch, trt)
    house = House(tmp_path, rows=3)
    path = house.engine()
    trt.capture = False
    with pytest.raises(RecordingFailedError, match=r"two_layers in TensorRT \(engine .* cannot be recorded"):
        house.session(path).prepare()
    assert cuda.current is cuda.default and not cuda.recordings
    tried = cuda.recorded
    # The process that replaces this one.
    session = house.session(path)
    session.prepare()
    assert "runs without a CUDA graph" in caplog.text and not session.recorded and cuda.recorded == tried
    assert _same(session.run(house.inputs)["y"], house.reference(house.inputs)["y"])


def test_an_engine_that_cannot_be_recorded_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trt: Any = fake.make()
    fake.install(monkeypatch, trt, capture=False)
    house = House(tmp_path, rows=3)
    with pytest.raises(RecordingFailedError, match="or the same command again, runs it without"):
        house.engine()
    path = house.engine()
    assert len(_calls(trt, "build")) == 1
    house.session(path).prepare()


def test_a_recorded_engine_is_compared_recorded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch, fake.make())
    house = House(tmp_path, rows=3)
    cases = [one["case"] for one in Manifest.read(files.manifest_of(house.engine())).measured]
    assert cases == ["random, TensorRT 10.16.1.11", "random, TensorRT 10.16.1.11, recorded"]


def test_free_shapes_are_prepared_for_given_sizes(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch, fake.make())
    session = house.session(house.engine())
    session.prepare({"batch": 3})
    assert not session.recorded
    with pytest.raises(GraphError, match="batch"):
        session.prepare()


def test_a_closed_session_raises(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch, fake.make())
    session = house.session(house.engine())
    session.close()
    session.close()
    with pytest.raises(GraphError, match="closed"):
        session.run(house.inputs)


def test_without_tensorrt_the_error_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingExtraError, match="gpu"):
        files.load()


def test_an_old_tensorrt_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch, fake.make("8.6.1"))
    with pytest.raises(GraphError, match=r"8\.6\.1 is too old"):
        files.load()


def test_without_a_gpu_nothing_is_tried(house: House) -> None:
    with pytest.raises(UsageError, match="not on cpu"):
        files.gpu_of("cpu")


def test_a_manifest_that_is_none_is_an_error(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch, fake.make())
    path = house.engine()
    files.manifest_of(path).write_text(json.dumps({"files": {}}))
    with pytest.raises(GraphError, match="is not the manifest"):
        house.session(path)
