"""Graphs in OpenVINO on the CPU, as contenders of `fgfast bench models --peers`.

In bf16 OpenVINO rounds every tensor between two operators to 8 bits, where fgfast keeps the residual stream and the
norms in float32. `pin` marks the sums of the stream and the norms in OpenVINO's own format of graphs, so that it keeps
them in float32 as well; the products remain in bf16.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fgfast.backends.session import described
from fgfast.errors import GraphError
from fgfast.graphs import Contract
from fgfast.writing import Target, write_file

_PRECISION = {"fp32": "f32", "bf16": "bf16"}
# The attribute that keeps OpenVINO's CPU plugin from converting a node (its rt_info/disable_precision_conversion.hpp):
# from and to any type. Of bf16 alone 2026.4 takes no notice.
_KEEP = {"name": "DisablePrecisionConversion", "version": "0", "value": "dynamic:dynamic"}
# What only moves or repeats the values of a constant.
_MOVES = frozenset(("Convert", "Reshape", "Unsqueeze", "Squeeze", "Transpose", "Broadcast"))
# Between the scores of attention and their softmax: sums of relative positions or masks, and changes of shape.
_SCORES, _FAR = frozenset(("Add", "Reshape", "Unsqueeze", "Squeeze")), 6


class OpenVinoSession:
    """One graph in OpenVINO; see fgfast.backends.session.Session.

    Args:
        path: of an ONNX file, or of OpenVINO's own format.
        contract: of the graph.
        precision: "fp32" or "bf16": OpenVINO computes a graph in float32 in it.
        threads: of the CPU.

    Raises:
        GraphError: OpenVINO cannot load the file.
    """

    backend = "openvino"

    def __init__(self, path: Path, contract: Contract, precision: str, threads: int) -> None:
        import openvino

        self.contract, self.device = contract, torch.device("cpu")
        settings = hints(precision, threads)
        try:
            self._request: Any = openvino.Core().compile_model(str(path), "CPU", settings).create_infer_request()
        except RuntimeError as error:
            raise GraphError(f"OpenVINO cannot load {path.name}: {str(error).strip().splitlines()[-1]}") from error

    def run(self, inputs: Mapping[str, Tensor], stream: torch.cuda.Stream | None = None) -> dict[str, Tensor]:
        """Run once; see Session.run."""
        self.contract.bind(described(inputs))
        arrays = {name: tensor.contiguous().numpy() for name, tensor in inputs.items()}
        self._request.infer(arrays, share_inputs=True)
        # Copied: the next run overwrites OpenVINO's own.
        return {
            port.name: torch.from_numpy(self._request.get_output_tensor(n).data.copy())
            for n, port in enumerate(self.contract.outputs)
        }

    def close(self) -> None:
        """Free the memory; see Session.close."""
        self._request = None


def hints(precision: str, threads: int) -> dict[str, Any]:
    """Return OpenVINO's settings for one image at a time.

    Args:
        precision: "fp32" or "bf16".
        threads: of the CPU.
    """
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": _PRECISION[precision],
        "INFERENCE_NUM_THREADS": threads,
    }


def convert(path: Path, target: Path) -> None:
    """Write an ONNX file in OpenVINO's own format, without rounding the weights.

    Args:
        path: of the ONNX file.
        target: of the new file, NAME.xml; the weights go into NAME.bin beside it.
    """
    import openvino

    openvino.save_model(openvino.Core().read_model(str(path)), str(target), compress_to_fp16=False)


def pin(path: Path, target: Path) -> int:
    """Write a graph whose residual sums and norms stay in float32 when OpenVINO computes in bf16.

    A norm of an image or of four axes is taken apart when the graph is compiled and loses its mark; see docs/bench.md.

    Args:
        path: NAME.xml, with NAME.bin beside it.
        target: of the new file, whose NAME.bin the caller provides.

    Returns:
        The number of nodes that were marked.

    Raises:
        GraphError: there is no such sum.
    """
    tree = ElementTree.parse(path)
    layers = {layer.get("id", ""): layer for layer in tree.getroot().iterfind("layers/layer")}
    makers, readers = defaultdict(list), defaultdict(list)
    for edge in tree.getroot().iterfind("edges/edge"):
        source, reader = edge.get("from-layer", ""), edge.get("to-layer", "")
        makers[reader].append(source)
        readers[source].append(reader)

    def is_constant(name: str) -> bool:
        while layers[name].get("type") in _MOVES and makers[name]:
            name = makers[name][0]
        return layers[name].get("type") == "Const"

    def is_score(name: str, far: int = _FAR) -> bool:
        after = [(reader, str(layers[reader].get("type"))) for reader in readers[name]]
        if any(kind.lower() == "softmax" for _, kind in after):
            return True
        return far > 0 and any(is_score(reader, far - 1) for reader, kind in after if kind in _SCORES)

    def is_residual(name: str) -> bool:
        layer = layers[name]
        is_sum = layer.get("type") == "Add" and _is_float(layer) and not any(map(is_constant, makers[name]))
        return is_sum and not is_score(name)

    chosen = {name for name in layers if is_residual(name)}
    if not chosen:
        raise GraphError(f"{path.name} has no sum of two computed tensors to keep in float32")
    for norm in (name for name, layer in layers.items() if layer.get("type") == "MVN"):
        # Scale and offset follow a norm as a product and a sum.
        scales = [reader for reader in readers[norm] if layers[reader].get("type") == "Multiply"]
        offsets = [reader for scale in scales for reader in readers[scale] if layers[reader].get("type") == "Add"]
        chosen |= {norm, *scales, *offsets}
    for name in chosen:
        _mark(layers[name])
    write_file(Target.file(target), ElementTree.tostring(tree.getroot()), sync=False)
    return len(chosen)


def _is_float(layer: ElementTree.Element) -> bool:
    port = layer.find("output/port")
    return port is not None and port.get("precision") == "FP32"


def _mark(layer: ElementTree.Element) -> None:
    """Add the attribute to a layer's own, which come after its data."""
    own = layer.find("rt_info")
    if own is None:
        own = ElementTree.Element("rt_info")
        layer.insert(1 if layer.find("data") is not None else 0, own)
    ElementTree.SubElement(own, "attribute", _KEEP)
