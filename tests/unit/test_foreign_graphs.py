"""Graphs and their manifests from strangers: operators, named files, odd JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from fgfast.backends import onnx_contents  # noqa: E402
from fgfast.backends.manifest import Manifest  # noqa: E402
from fgfast.backends.onnxruntime import OnnxRuntimeSession  # noqa: E402
from fgfast.doctor import two_layers  # noqa: E402
from fgfast.errors import GraphError  # noqa: E402
from fgfast.graphs import Contract, sam_mask_decoder  # noqa: E402
from fgfast.models.files import graph_files  # noqa: E402


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Contract]:
    path: Path
    path, contract = two_layers.write(tmp_path, 3)
    return path, contract


def test_a_plain_graph_is_run_with_weights_inside_or_beside(made: tuple[Path, Contract]) -> None:
    path, contract = made
    OnnxRuntimeSession(path, contract).close()
    onnx.save(onnx.load(str(path)), str(path), save_as_external_data=True, location="w.bin", size_threshold=0)
    OnnxRuntimeSession(path, contract).close()
    (path.parent / "w.bin").rename(path.parent / "elsewhere")
    (path.parent / "w.bin").symlink_to(path.parent / "elsewhere")
    with pytest.raises(GraphError, match=r"w\.bin is a link"):
        OnnxRuntimeSession(path, contract)


def within(node: Any, depth: int) -> Any:
    """The node in a branch of an If, in a branch of an If, ..."""
    for _ in range(depth):
        output = onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None)
        branch = onnx.helper.make_graph([node], "branch", [], [output])
        node = onnx.helper.make_node("If", ["c"], list(node.output), then_branch=branch, else_branch=branch)
    return node


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize(("operator", "domain"), [("EPContext", "com.microsoft"), ("X", "trt.plugins"), ("Add", " ")])
def test_operators_of_other_domains_are_refused(
    made: tuple[Path, Contract], operator: str, domain: str, depth: int
) -> None:
    path, contract = made
    model = onnx.load(str(path))
    model.graph.node.append(within(onnx.helper.make_node(operator, ["x"], ["z"], domain=domain), depth))
    onnx.save(model, str(path))
    with pytest.raises(GraphError, match=f"has an operator of '{domain}'; only those of ONNX itself are run"):
        OnnxRuntimeSession(path, contract)


@pytest.mark.parametrize("where", ["initializer", "sparse", "constant"])
@pytest.mark.parametrize("place", ["../secret", "/etc/passwd", "a/b", "..", "", "C:x", "a\\b", "x" * 300])
def test_weights_elsewhere_are_refused(made: tuple[Path, Contract], place: str, where: str) -> None:
    path, contract = made
    model = onnx.load(str(path))
    outside = onnx.TensorProto(name="o", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value=place)
    if where == "initializer":
        model.graph.initializer.append(outside)
    elif where == "sparse":
        model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=outside, dims=[1]))
    else:
        model.graph.node.append(onnx.helper.make_node("Constant", [], ["z"], value=outside))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(GraphError, match="names a file outside its folder"):
        OnnxRuntimeSession(path, contract)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x3a", b"\x3a\xff\xff\xff\xff\x0f", b"\xff" * 20, b"\x07", b"\x0d\x00", b"\x3a\x02\x0a\x05"],
)
def test_what_is_no_onnx_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(GraphError, match="damaged or not an ONNX file"):
        onnx_contents.check(tmp_path / "a.onnx")


def test_what_is_nested_without_end_is_refused(tmp_path: Path) -> None:
    content = b""
    for _ in range(100):
        for tag in (b"\x32", b"\x2a", b"\x0a"):  # a graph in an attribute of a node
            content = tag + varint(len(content)) + content
    (tmp_path / "a.onnx").write_bytes(b"\x3a" + varint(len(content)) + content)
    with pytest.raises(GraphError, match="nested too deep"):
        onnx_contents.check(tmp_path / "a.onnx")


def varint(number: int) -> bytes:
    text = b""
    while number > 127:
        text, number = text + bytes([number & 127 | 128]), number >> 7
    return text + bytes([number])


def facts() -> dict[str, Any]:
    made = Manifest(sam_mask_decoder(256), "sam", "random:0", "fp32", 20, {"fgfast": "0"}, {"g.onnx": "0" * 64})
    content: dict[str, Any] = json.loads(made.to_json())
    return content


CHANGES: list[Any] = [
    *([], 3, None, "text", {}),
    {"files": {"../x": "0" * 64}},
    {"files": {"/etc/passwd": "0" * 64}},
    {"files": {"..": "0" * 64}},
    {"files": {"a\\b": "0" * 64}},
    {"files": {"g.onnx": "0"}},
    {"files": {"g.onnx": 5}},
    {"files": ["g.onnx"]},
    {"files": {}},
    {"model": None},
    {"model": "\x1b[31m"},
    {"weights": ["sha256"]},
    {"precision": 3},
    {"opset": "20"},
    {"opset": 1e300},
    {"code": {"fgfast": 1}},
    {"code": None},
    {"measured": None},
    {"tolerances": []},
    {"more": 1},
    {"outdated": "x", "contract": None},
    {"contract": []},
    {"contract": {**facts()["contract"], "graph": ["sam_mask_decoder"]}},
    {"contract": {**facts()["contract"], "graph": {}}},
    {"contract": {**facts()["contract"], "version": -1}},
    {"contract": {**facts()["contract"], "version": True}},
    {"contract": {**facts()["contract"], "version": 10**400}},
    {"contract": {**facts()["contract"], "inputs": None}},
    {"contract": {**facts()["contract"], "arguments": []}},
    {"contract": {**facts()["contract"], "arguments": {"side": [[1]]}}},
    {"contract": {**facts()["contract"], "arguments": {"side": 10**30}}},
    *(
        {"contract": {**facts()["contract"], "inputs": [{"name": "x", "dtype": "float32", "shape": [1], **port}]}}
        for port in (
            *({"shape": [-1]}, {"shape": [10**18]}, {"shape": [1 << 20, 1 << 20]}, {"shape": [1] * 100}),
            *({"shape": [1.5]}, {"shape": [None]}, {"shape": [""]}, {"shape": 3}, {"shape": [[1]]}, {"shape": [True]}),
            *({"dtype": "object"}, {"dtype": ">f4"}, {"dtype": ["float32"]}, {"dtype": {}}, {"name": 5}, {"name": ""}),
        )
    ),
]


@pytest.mark.parametrize("change", CHANGES)
def test_odd_manifests_are_refused(tmp_path: Path, change: Any) -> None:
    content = {**facts(), **change} if isinstance(change, dict) and change else change
    (tmp_path / "g.json").write_text(json.dumps(content))
    with pytest.raises(GraphError, match=r"g\.json is not the manifest of a graph .* remove it and export"):
        Manifest.read(tmp_path / "g.json")


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"a":' * 100_000, b"9" * 100_000, b"\xff", b"", b" " * (5 << 20)]
)
def test_odd_json_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "g.json").write_bytes(content)
    with pytest.raises(GraphError, match="is not the manifest of a graph"):
        Manifest.read(tmp_path / "g.json")


def test_arguments_that_a_contract_does_not_take_make_it_outdated(tmp_path: Path) -> None:
    for arguments in ({"side": 0}, {"side": "x"}, {"masks": [1]}, {"other": 1}, {"side": 1 << 32}):
        (tmp_path / "g.json").write_text(
            json.dumps({**facts(), "contract": {**facts()["contract"], "arguments": arguments}})
        )
        assert Manifest.read(tmp_path / "g.json").outdated


def test_a_manifest_of_another_graph_vouches_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "other.bin").write_bytes(b"")
    manifest = Manifest(sam_mask_decoder(256), "m", "random:0", "fp32", 20, {}, {"other.bin": "0" * 64})
    with pytest.raises(GraphError, match="its manifest is that of another graph"):
        graph_files.Exported(tmp_path / "g.onnx", manifest).verify()
