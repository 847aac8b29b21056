"""Keeps the numerically sensitive nodes of a graph in float32 while OpenVINO computes in bf16.

In bf16 OpenVINO rounds every tensor between two operators to 8 bits. fgfast keeps in float32 the residual stream, the
norms, the arithmetic on boxes and scores, and the last layer of each prediction. `pin` marks the same in OpenVINO's own
format of graphs; the other products remain in bf16.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path
from typing import Any

from fgfast.errors import GraphError
from fgfast.writing import Target, write_file

# The attribute that keeps OpenVINO's CPU plugin from converting a node (its rt_info/disable_precision_conversion.hpp):
# from any type to these. 2026.4 asks for float16, whatever the half precision; of bf16 alone it takes no notice.
_KEEP = {"name": "DisablePrecisionConversion", "version": "0", "value": "dynamic:bf16,f16"}
# What only moves or repeats the values of a constant.
_MOVES = frozenset(("Convert", "Reshape", "Unsqueeze", "Squeeze", "Transpose", "Broadcast"))
# Between the scores of attention and their softmax: sums of relative positions or masks, and changes of shape.
_SCORES, _FAR = frozenset(("Add", "Reshape", "Unsqueeze", "Squeeze")), 6
# What chooses boxes by their scores, and what multiplies: the arithmetic of boxes lies between the two.
_CHOOSERS = frozenset(("TopK", "NonMaxSuppression"))
_PRODUCTS = frozenset(("MatMul", "Convolution", "GroupConvolution", "ScaledDotProductAttention"))
_SOURCES = frozenset(("Const", "Parameter"))


def pin(path: Path, target: Path) -> int:
    """Write a graph whose sensitive nodes stay in float32 when OpenVINO computes in bf16.

    A norm of an image or of four axes is taken apart when the graph is compiled and loses its mark; see docs/bench.md.

    Args:
        path: NAME.xml, with NAME.bin beside it.
        target: of the new file, whose NAME.bin the caller provides.

    Returns:
        The number of nodes that were marked.

    Raises:
        GraphError: there is no residual sum.
    """
    tree = ElementTree.parse(path)
    graph = _Graph(tree.getroot())
    chosen = {name for name in graph.kinds if graph.is_residual(name)}
    if not chosen:
        raise GraphError(f"{path.name} has no sum of two computed tensors to keep in float32")
    chosen |= graph.norms() | graph.boxes()
    for name in chosen:
        _mark(graph.layers[name])
    write_file(Target.file(target), ElementTree.tostring(tree.getroot()), sync=False)
    return len(chosen)


class _Graph:
    """The layers of a graph by their ids, with the makers of their inputs and the readers of their outputs."""

    def __init__(self, root: ElementTree.Element) -> None:
        self.layers = {layer.get("id", ""): layer for layer in root.iterfind("layers/layer")}
        self.kinds = {name: layer.get("type", "") for name, layer in self.layers.items()}
        self.makers: dict[str, list[str]] = defaultdict(list)
        self.readers: dict[str, list[str]] = defaultdict(list)
        for edge in root.iterfind("edges/edge"):
            source, reader = edge.get("from-layer", ""), edge.get("to-layer", "")
            self.makers[reader].append(source)
            self.readers[source].append(reader)

    def is_constant(self, name: str) -> bool:
        """Return whether a layer only holds or moves a constant."""
        while self.kinds[name] in _MOVES and self.makers[name]:
            name = self.makers[name][0]
        return self.kinds[name] == "Const"

    def is_residual(self, name: str) -> bool:
        """Return whether a layer adds two computed tensors of float32 that are not scores of attention."""
        port = self.layers[name].find("output/port")
        is_float = port is not None and port.get("precision") == "FP32"
        is_sum = self.kinds[name] == "Add" and is_float and not any(map(self.is_constant, self.makers[name]))
        return is_sum and not self._is_score(name)

    def _is_score(self, name: str, far: int = _FAR) -> bool:
        after = self.readers[name]
        if any(self.kinds[reader].lower() == "softmax" for reader in after):
            return True
        return far > 0 and any(self._is_score(reader, far - 1) for reader in after if self.kinds[reader] in _SCORES)

    def norms(self) -> set[str]:
        """Return the norms, and the products and sums with their scales and offsets."""
        found = set()
        for norm in (name for name, kind in self.kinds.items() if kind == "MVN"):
            scales = [reader for reader in self.readers[norm] if self.kinds[reader] == "Multiply"]
            offsets = [reader for scale in scales for reader in self.readers[scale] if self.kinds[reader] == "Add"]
            found |= {norm, *scales, *offsets}
        return found

    def boxes(self) -> set[str]:
        """Return what computes and chooses boxes and scores, from the last layer of each prediction on."""
        choosers = {name for name, kind in self.kinds.items() if kind in _CHOOSERS}
        if not choosers:
            return set()
        results = {name for name, kind in self.kinds.items() if kind == "Result"}
        before = self._reached(choosers | results, self.makers)
        layers = {maker for name in before for maker in self.makers[name] if self._is_product(maker)}
        after = self._reached(choosers, self.readers)
        return {name for name in before | layers | after if self.kinds[name] not in _SOURCES and name not in results}

    def _reached(self, start: set[str], along: dict[str, list[str]]) -> set[str]:
        """Return what can be reached from some layers without passing a product."""
        found, waiting = set(start), list(start)
        while waiting:
            new = {name for name in along[waiting.pop()] if name not in found and not self._is_product(name)}
            found |= new
            waiting += new
        return found

    def _is_product(self, name: str) -> bool:
        return self.kinds[name] in _PRODUCTS


def _mark(layer: Any) -> None:
    """Add the attribute to a layer's own, which come after its data."""
    own = layer.find("rt_info")
    if own is None:
        own = ElementTree.Element("rt_info")
        layer.insert(1 if layer.find("data") is not None else 0, own)
    ElementTree.SubElement(own, "attribute", _KEEP)
