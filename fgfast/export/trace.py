"""From a module of fgfast.models to an ONNX file that passes its contract, ONNX's checker and the TensorRT lint."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import onnx_ir
import onnx_ir.passes.common
import onnxscript.optimizer
import torch
from onnxscript import rewriter
from torch import Tensor, nn

from fgfast.errors import GraphError
from fgfast.export.lint import lint
from fgfast.export.translations import TRANSLATIONS
from fgfast.graphs import Contract, Port
from fgfast.writing import Target, remove

# The first opset in which attention is a single operator, as GELU (20) and LayerNormalization (17) are.
OPSET = 23
# Initializers of this size and above are stored beside the graph. Weights are that large; indices and biases of windows
# are not, so the graphs of several canvases can share one file of weights.
_OUTSIDE_BYTES = 1 << 16
# Constants of up to this many elements are computed (the exporter stops at 8192, below the decoder's reordered
# weights); of equal constants with up to _SAME elements (indices of windows) one is kept.
_FOLDED, _SAME = 1 << 18, 1 << 14
# ONNX's element types by the names of fgfast.graphs.Port.
_ELEMENT = {
    "uint8": onnx.TensorProto.UINT8,
    "int64": onnx.TensorProto.INT64,
    "float32": onnx.TensorProto.FLOAT,
    "float16": onnx.TensorProto.FLOAT16,
    "bfloat16": onnx.TensorProto.BFLOAT16,
    "bool": onnx.TensorProto.BOOL,
}


def trace(graph: nn.Module, contract: Contract, example: tuple[Tensor, ...], path: Path) -> Path:
    """Write a graph as ONNX.

    Args:
        graph: takes the contract's inputs in its order, returns its outputs in its order.
        contract: gives names and shapes; sizes that may vary become dimensions of that name.
        example: inputs of the right shapes; sizes that may vary must be above 1 and differ from one another.
        path: of the file; its weights are written beside it, into the same name with ".data".

    Returns:
        The path of the file with the weights, which is not written where all weights are small.

    Raises:
        GraphError: the graph cannot be traced, or the file breaks the contract, ONNX's rules or TensorRT's.
    """
    data = write(graph, contract, example, path)
    inspect(path, contract)
    return data


def write(graph: nn.Module, contract: Contract, example: tuple[Tensor, ...], path: Path) -> Path:
    """Write a graph as ONNX without checking the file; see `trace`."""
    if len(example) != len(contract.inputs):
        raise GraphError(f"{contract.graph} takes {len(contract.inputs)} inputs; the example has {len(example)}")
    contract.bind({p.name: (dtype_name(x), tuple(x.shape)) for p, x in zip(contract.inputs, example, strict=True)})
    try:
        with _quiet(), torch.inference_mode(mode=False), torch.no_grad():
            program = torch.onnx.export(
                graph.eval(),
                example,
                dynamo=True,
                opset_version=OPSET,
                input_names=[port.name for port in contract.inputs],
                output_names=[port.name for port in contract.outputs],
                dynamic_shapes=_dynamic(contract),
                custom_translation_table=dict(TRANSLATIONS),
                optimize=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        cause = str(error.__cause__ or error).splitlines()[0]
        raise GraphError(f"{contract.graph} cannot be traced: {cause}") from error
    if program is None:
        raise GraphError(f"torch returned no graph for {contract.graph}")
    with _quiet():
        _finish(program.model)
    data = path.with_suffix(path.suffix + ".data")
    remove(Target.file(data))
    onnx_ir.save(program.model, path, external_data=data.name, size_threshold_bytes=_OUTSIDE_BYTES)
    if data.is_file() and not data.stat().st_size:
        remove(Target.file(data))
    return data


def inspect(path: Path, contract: Contract) -> None:
    """Check a file against its contract, onnx.checker with shape inference, and the TensorRT lint.

    Raises:
        GraphError: the file fails one of them; the message says where.
    """
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GraphError(f"{path.name} is not a valid graph: {error}") from error
    model = onnx.load_model(str(path), load_external_data=False)
    for ports, values in ((contract.inputs, model.graph.input), (contract.outputs, model.graph.output)):
        if [p.name for p in ports] != [v.name for v in values]:
            raise GraphError(f"{path.name} has {[v.name for v in values]}, and must have {[p.name for p in ports]}")
        for port, value in zip(ports, values, strict=True):
            _check_port(path.name, port, value)
    breaches = lint(model)
    if breaches:
        first = "\n  ".join(f"{b.operator} {b.node}: {b.message}" for b in breaches[:5])
        raise GraphError(f"{path.name} would not build with TensorRT, for {len(breaches)} reasons:\n  {first}")


def dtype_name(tensor: Tensor) -> str:
    """ "float32" for torch.float32."""
    return str(tensor.dtype).removeprefix("torch.")


def _check_port(file: str, port: Port, value: onnx.ValueInfoProto) -> None:
    kind = value.type.tensor_type
    shape = tuple(d.dim_param or d.dim_value for d in kind.shape.dim)
    if kind.elem_type != _ELEMENT[port.dtype] or shape != port.shape:
        found = onnx.TensorProto.DataType.Name(kind.elem_type)
        raise GraphError(f"{file}: {port.name} is {found} {shape}, and must be {port.dtype} {port.shape}")


def _finish(model: onnx_ir.Model) -> None:
    """Optimise the graph as the exporter does, in a third of its time, and further; set the softmax to float32.

    The exporter's own optimiser computes fewer constants and leaves repeated ones. One of its rules (SlicesSplit) finds
    nothing in these graphs and takes time that grows with the square of their size; it is left out.

    By default ONNX's Attention computes the softmax in the precision of its inputs. PyTorch and all fused kernels
    compute it in float32, and so must whatever runs the graph.
    """
    common = onnx_ir.passes.common
    common.InlinePass()(model)
    rules = [rule for rule in rewriter._DEFAULT_REWRITE_RULES if rule.name != "SlicesSplit"]
    for _ in range(2):
        onnxscript.optimizer.fold_constants(model, input_size_limit=_FOLDED, output_size_limit=_FOLDED)
        rewriter.RewritePass(rules)(model)
        common.RemoveUnusedNodesPass()(model)
    for last in (
        common.RemoveUnusedFunctionsPass(),
        common.RemoveUnusedOpsetsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(size_limit=_SAME),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    ):
        last(model)
    for node in model.graph:
        query = node.inputs[0] if node.op_type == "Attention" else None
        if query is not None and query.dtype != onnx_ir.DataType.FLOAT:
            node.attributes.add(onnx_ir.AttrInt64("softmax_precision", onnx.TensorProto.FLOAT))


def _dynamic(contract: Contract) -> tuple[dict[int, Any], ...] | None:
    if not contract.free:
        return None
    dims = {name: torch.export.Dim(name, min=1, max=1 << 16) for name in contract.free}
    return tuple({n: dims[d] for n, d in enumerate(p.shape) if isinstance(d, str)} for p in contract.inputs)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the progress and the warnings of the exporter, which do not concern the user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
