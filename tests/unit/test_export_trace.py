"""Export: a graph that breaks its contract is refused, and so is one that TensorRT would not take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fgfast.errors import GraphError
from fgfast.graphs import Contract, Port

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from fgfast.export.trace import inspect, trace  # noqa: E402


class Doubled(torch.nn.Module):  # type: ignore[misc,name-defined]
    def forward(self, x: Any) -> Any:
        return x * 2


class Two(torch.nn.Module):  # type: ignore[misc,name-defined]
    """Takes two rows."""

    def forward(self, x: Any) -> Any:
        return x + torch.ones(2, 3)


class Branching(torch.nn.Module):  # type: ignore[misc,name-defined]
    def forward(self, x: Any) -> Any:
        return x if x.sum() > 0 else -x


class Attended(torch.nn.Module):  # type: ignore[misc,name-defined]
    def forward(self, x: Any) -> Any:
        return torch.nn.functional.scaled_dot_product_attention(x, x, x)


def contract(dtype: str = "float32", shape: tuple[int | str, ...] = ("rows", 3), **out: Any) -> Contract:
    """One input `x`; the output `y` is alike but for what is given."""
    output = {"dtype": dtype, "shape": shape, **out}
    return Contract("toy", (Port("x", dtype, shape, ""),), (Port("y", **output, meaning="", kind="features"),))


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "toy.onnx"
    trace(Doubled(), contract(), (torch.zeros(2, 3),), path)
    model = onnx.load_model(path)
    (x,), (y,) = model.graph.input, model.graph.output
    for value, name in ((x, "x"), (y, "y")):
        assert value.name == name
        assert [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] == ["rows", 3]
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 23)]
    assert [path.name for path in tmp_path.iterdir()] == ["toy.onnx"], "small weights stay within"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (contract(shape=("rows", 4)), "x is float32 .2, 3., must be float32"),
        (contract(dtype="float16"), "must be float16"),
    ],
)
def test_inputs_that_the_contract_forbids(wrong: Contract, message: str, tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=message):
        trace(Doubled(), wrong, (torch.zeros(2, 3),), tmp_path / "toy.onnx")
    with pytest.raises(GraphError, match="takes 1 inputs; the example has 2"):
        trace(Doubled(), wrong, (torch.zeros(2, 3), torch.zeros(2)), tmp_path / "toy.onnx")


def test_outputs_that_the_contract_forbids(tmp_path: Path) -> None:
    path = tmp_path / "toy.onnx"
    trace(Doubled(), contract(), (torch.zeros(2, 3),), path)
    ports = contract().inputs
    for wrong, message in (
        (Port("y", "float16", ("rows", 3), ""), r"y is FLOAT \('rows', 3\), and must be float16"),
        (Port("y", "float32", ("rows", 4), ""), r"must be float32 \('rows', 4\)"),
        (Port("y", "float32", ("lines", 3), ""), r"must be float32 \('lines', 3\)"),
        (Port("z", "float32", ("rows", 3), ""), r"has \['y'\], and must have \['z'\]"),
    ):
        with pytest.raises(GraphError, match=message):
            inspect(path, Contract("toy", ports, (wrong,)))


def test_a_size_that_is_fixed_in_truth(tmp_path: Path) -> None:
    """A graph that works for two rows only does not get a contract that leaves them open: torch fixes them silently."""
    with pytest.raises(GraphError, match=r"x is FLOAT \(2, 3\), and must be float32 \('rows', 3\)"):
        trace(Two(), contract(), (torch.zeros(2, 3),), tmp_path / "toy.onnx")


def test_a_graph_that_depends_on_data(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="toy cannot be traced: "):
        trace(Branching(), contract(), (torch.zeros(2, 3),), tmp_path / "toy.onnx")


def test_what_tensorrt_does_not_take(tmp_path: Path) -> None:
    path = tmp_path / "toy.onnx"
    node = onnx.helper.make_node("Cast", ["x"], ["d"], to=onnx.TensorProto.DOUBLE)
    back = onnx.helper.make_node("Cast", ["d"], ["y"], to=onnx.TensorProto.FLOAT)
    x, y = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["rows", 3]) for n in "xy")
    graph = onnx.helper.make_graph([node, back], "toy", [x], [y])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)], ir_version=10), path)
    with pytest.raises(GraphError, match="would not build with TensorRT"):
        inspect(path, contract())


def test_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "toy.onnx"
    trace(Doubled(), contract(), (torch.zeros(2, 3),), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(GraphError, match="is not a valid graph"):
        inspect(path, contract())


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_softmax_is_float32(dtype: str, tmp_path: Path) -> None:
    path, shape = tmp_path / "toy.onnx", (1, 2, 4, 8)
    trace(Attended(), contract(dtype, shape), (torch.zeros(shape, dtype=getattr(torch, dtype)),), path)
    (node,) = onnx.load_model(path).graph.node
    precision = {a.name: a.i for a in node.attribute}.get("softmax_precision")
    assert (node.op_type, precision) == ("Attention", None if dtype == "float32" else onnx.TensorProto.FLOAT)
