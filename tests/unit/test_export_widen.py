"""Widened graphs round exactly where half-precision ones do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fgfast.errors import GraphError

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from fgfast.backends.onnxruntime import OnnxRuntimeSession  # noqa: E402
from fgfast.export.widen import widen  # noqa: E402
from fgfast.graphs import Contract, Port  # noqa: E402

FLOAT, HALF = onnx.TensorProto.FLOAT, {"bfloat16": onnx.TensorProto.BFLOAT16, "float16": onnx.TensorProto.FLOAT16}


def node(*given: Any, **attributes: Any) -> Any:
    return onnx.helper.make_node(*given, **attributes)


def write(path: Path, nodes: list[Any], inputs: Any, outputs: Any, constants: Any = ()) -> Path:
    infos = [[onnx.helper.make_tensor_value_info(*value) for value in values] for values in (inputs, outputs)]
    graph = onnx.helper.make_graph(nodes, "toy", *infos, constants)
    opset = onnx.helper.make_opsetid("", 23)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10), path)
    onnx.checker.check_model(str(path), full_check=True)
    return path


@pytest.mark.parametrize("name", HALF)
def test_roundings(name: str, tmp_path: Path) -> None:
    """(a + a * w) in half, from float32 and back: every step is rounded, to the bit as PyTorch does."""
    half, dtype = HALF[name], getattr(torch, name)
    weight = torch.linspace(0.1, 3, 64).to(dtype)
    constant = onnx.helper.make_tensor("w", half, [64], weight.float().numpy())
    nodes = [
        node("Cast", ["x"], ["a"], to=half),
        node("Mul", ["a", "w"], ["p"]),
        node("Reshape", ["p", "shape"], ["r"]),
        node("Reshape", ["r", "flat"], ["s"]),
        node("Add", ["a", "s"], ["sum"]),
        node("Cast", ["sum"], ["y"], to=FLOAT),
    ]
    sizes = {"shape": [8, 8], "flat": [64]}
    shapes = [onnx.helper.make_tensor(n, onnx.TensorProto.INT64, [len(s)], s) for n, s in sizes.items()]
    path = write(tmp_path / "toy.onnx", nodes, [("x", FLOAT, [64])], [("y", FLOAT, [64])], [constant, *shapes])
    wide = widen(path, tmp_path / "wide.onnx")
    model = onnx.load_model(wide)
    onnx.checker.check_model(str(wide), full_check=True)
    types = {v.type.tensor_type.elem_type for v in onnx.shape_inference.infer_shapes(model).graph.value_info}
    assert [n.op_type for n in model.graph.node if n.op_type != "Cast"] == ["Mul", "Reshape", "Reshape", "Add"]
    assert types - {onnx.TensorProto.INT64} == {FLOAT, half}
    contract = Contract("toy", (Port("x", "float32", (64,), ""),), (Port("y", "float32", (64,), ""),))
    x = torch.randn(64, generator=torch.Generator().manual_seed(1))
    ours = OnnxRuntimeSession(wide, contract).run({"x": x})["y"]
    a = x.to(dtype)
    assert torch.equal(ours, (a + a * weight).float())
    assert not torch.equal(ours, a.float() + a.float() * weight.float()), "without roundings it would be another"


@pytest.mark.parametrize("name", HALF)
def test_inputs_and_outputs_keep_their_types(name: str, tmp_path: Path) -> None:
    """Also of an output that others read, and of one that is an input passed on by a mover."""
    half, dtype = HALF[name], getattr(torch, name)
    nodes = [
        node("Mul", ["x", "x"], ["y"]),
        node("Add", ["y", "x"], ["z"]),
        node("Transpose", ["x"], ["t"], perm=[1, 0]),
    ]
    ports = [("y", half, [4, 4]), ("z", half, [4, 4]), ("t", half, [4, 4])]
    path = write(tmp_path / "toy.onnx", nodes, [("x", half, [4, 4])], ports)
    wide = widen(path, tmp_path / "wide.onnx")
    onnx.checker.check_model(str(wide), full_check=True)
    contract = Contract(
        "toy", (Port("x", name, (4, 4), ""),), tuple(Port(n, name, (4, 4), "") for n in ("y", "z", "t"))
    )
    x = torch.randn(4, 4, generator=torch.Generator().manual_seed(2)).to(dtype)
    ours = OnnxRuntimeSession(wide, contract).run({"x": x})
    for found, wanted in ((ours["y"], x * x), (ours["z"], x * x + x), (ours["t"], x.T)):
        assert found.dtype == dtype
        assert torch.equal(found, wanted)


def test_products_accumulate_in_float32(tmp_path: Path) -> None:
    """Summed in bfloat16, 512 ones would stop at 256."""
    half = HALF["bfloat16"]
    nodes = [
        node("Cast", ["x"], ["a"], to=half),
        node("MatMul", ["a", "a"], ["p"]),
        node("Cast", ["p"], ["y"], to=FLOAT),
    ]
    path = write(tmp_path / "toy.onnx", nodes, [("x", FLOAT, [512, 512])], [("y", FLOAT, [512, 512])])
    contract = Contract("toy", (Port("x", "float32", (512, 512), ""),), (Port("y", "float32", (512, 512), ""),))
    session = OnnxRuntimeSession(widen(path, tmp_path / "wide.onnx"), contract)
    assert (session.run({"x": torch.ones(512, 512)})["y"] == 512).all()


def test_constants_in_attributes(tmp_path: Path) -> None:
    half = HALF["bfloat16"]
    third = onnx.helper.make_tensor("value", half, [1], [1 / 3])
    nodes = [
        node("ConstantOfShape", ["n"], ["c"], value=third),
        node("CastLike", ["x", "c"], ["a"]),
        node("Add", ["a", "c"], ["s"]),
        node("Cast", ["s"], ["y"], to=FLOAT),
    ]
    size = onnx.helper.make_tensor("n", onnx.TensorProto.INT64, [1], [3])
    path = write(tmp_path / "toy.onnx", nodes, [("x", FLOAT, [3])], [("y", FLOAT, [3])], [size])
    contract = Contract("toy", (Port("x", "float32", (3,), ""),), (Port("y", "float32", (3,), ""),))
    x = torch.tensor([0.1, 1.7, -30.3])
    ours = OnnxRuntimeSession(widen(path, tmp_path / "wide.onnx"), contract).run({"x": x})["y"]
    assert torch.equal(ours, (x.bfloat16() + torch.full((3,), 1 / 3).bfloat16()).float())


def test_softmax_in_half_is_refused(tmp_path: Path) -> None:
    half, shape = HALF["float16"], [1, 1, 4, 8]
    for n, attributes in enumerate(({}, {"softmax_precision": half})):
        nodes = [node("Attention", ["x", "x", "x"], ["y"], **attributes)]
        path = write(tmp_path / f"{n}.onnx", nodes, [("x", half, shape)], [("y", half, shape)])
        with pytest.raises(GraphError, match=r"Attention .*rounds to half precision within"):
            widen(path, tmp_path / "wide.onnx")
    nodes = [node("Attention", ["x", "x", "x"], ["y"], softmax_precision=FLOAT)]
    path = write(tmp_path / "float.onnx", nodes, [("x", half, shape)], [("y", half, shape)])
    wide = widen(path, tmp_path / "wide.onnx")
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(3)).half()
    contract = Contract("toy", (Port("x", "float16", (1, 1, 4, 8), ""),), (Port("y", "float16", (1, 1, 4, 8), ""),))
    ours = OnnxRuntimeSession(wide, contract).run({"x": x})["y"]
    exact = torch.nn.functional.scaled_dot_product_attention(x.float(), x.float(), x.float())
    assert (ours - exact).abs().max() <= exact.abs().max() * 2**-11


def test_control_flow_is_refused(tmp_path: Path) -> None:
    half = HALF["float16"]
    branch = onnx.helper.make_graph(
        [node("Identity", ["x"], ["b"])], "branch", [], [onnx.helper.make_tensor_value_info("b", half, [2])]
    )
    nodes = [node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)]
    inputs = [("x", half, [2]), ("c", onnx.TensorProto.BOOL, [])]
    path = write(tmp_path / "toy.onnx", nodes, inputs, [("y", half, [2])])
    with pytest.raises(GraphError, match="control flow"):
        widen(path, tmp_path / "wide.onnx")
