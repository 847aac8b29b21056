"""The other engines that `fgfast bench models --peers` measures in the same run: OpenVINO, ONNX Runtime, transformers.

Each is a contender of its own: an engine, the graph that it runs, a precision. "Plain" graphs are exports of the
reference's own modules as anybody would make them; "own" graphs are those of `fgfast export`. All get the same weights.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from fgfast.errors import UsageError

Graph = Literal["plain", "own", ""]
HOW = 'pip install ".[cpu,peers]"'


@dataclass(frozen=True, slots=True)
class Peer:
    """A contender.

    Attributes:
        name: of its rows.
        package: the import name of its engine.
        precision: "fp32" or "bf16".
        graph: what it runs; "" where the engine has the model itself.
        pinned: whether numerically sensitive nodes stay in float32, see openvino_pins.py.
        needs: other packages, import names.
    """

    name: str
    package: str
    precision: str
    graph: Graph
    pinned: bool = False
    needs: tuple[str, ...] = ()


_PLAIN, _OWN = ("segment_anything",), ("onnx", "onnxscript")
SAM_PEERS = (
    Peer("OpenVINO fp32", "openvino", "fp32", "plain", needs=_PLAIN),
    Peer("OpenVINO bf16, sensitive nodes in fp32", "openvino", "bf16", "plain", pinned=True, needs=_PLAIN),
    Peer("OpenVINO bf16", "openvino", "bf16", "plain", needs=_PLAIN),
    Peer("ONNX Runtime fp32", "onnxruntime", "fp32", "plain", needs=_PLAIN),
    Peer("transformers fp32", "transformers", "fp32", ""),
    Peer("OpenVINO fp32, graph of fgfast export", "openvino", "fp32", "own", needs=_OWN),
    Peer(
        "OpenVINO bf16, sensitive nodes in fp32, graph of fgfast export",
        "openvino",
        "bf16",
        "own",
        pinned=True,
        needs=_OWN,
    ),
    Peer("OpenVINO bf16, graph of fgfast export", "openvino", "bf16", "own", needs=_OWN),
    Peer("ONNX Runtime fp32, graph of fgfast export", "onnxruntime", "fp32", "own", needs=_OWN),
)
"""SAM's peers. They run its image encoder; resizing, decoder (0.4 % of the arithmetic) and mask are fgfast's."""
DETIC_PEERS = (
    Peer("OpenVINO fp32", "openvino", "fp32", "plain", needs=_OWN),
    Peer("OpenVINO bf16, sensitive nodes in fp32", "openvino", "bf16", "plain", pinned=True, needs=_OWN),
    Peer("OpenVINO bf16", "openvino", "bf16", "plain", needs=_OWN),
    Peer("ONNX Runtime fp32", "onnxruntime", "fp32", "plain", needs=_OWN),
    Peer("OpenVINO fp32, graph of fgfast export", "openvino", "fp32", "own", needs=_OWN),
    Peer(
        "OpenVINO bf16, sensitive nodes in fp32, graph of fgfast export",
        "openvino",
        "bf16",
        "own",
        pinned=True,
        needs=_OWN,
    ),
    Peer("OpenVINO bf16, graph of fgfast export", "openvino", "bf16", "own", needs=_OWN),
    Peer("ONNX Runtime fp32, graph of fgfast export", "onnxruntime", "fp32", "own", needs=_OWN),
)
"""Detic's peers. They run all but resizing and the selection of detections, which are fgfast's."""


def installed(peers: Sequence[Peer]) -> list[Peer]:
    """Return those that can be measured here."""
    return [peer for peer in peers if not _lacking(peer)]


def notes(peers: Sequence[Peer]) -> Iterator[str]:
    """Yield which of them are not measured, and how they would be."""
    lacking = dict.fromkeys(package for peer in peers for package in _lacking(peer))
    if lacking:
        absent = ", ".join(peer.name for peer in peers if _lacking(peer))
        yield f"Not measured, for want of {', '.join(lacking)}: {absent}. {HOW} installs what is missing."


def check_device(device: str) -> None:
    """Raise UsageError unless the peers can be measured on a device."""
    if device != "cpu":
        raise UsageError(f"--peers compares engines on the CPU, and the device is {device}: add --device cpu")


def _lacking(peer: Peer) -> list[str]:
    return [package for package in (peer.package, *peer.needs) if importlib.util.find_spec(package) is None]


def versions(peers: Sequence[Peer]) -> dict[str, str]:
    """Return the versions of the engines, by name."""
    packages = {peer.package for peer in peers}
    return {package: importlib.metadata.version(package) for package in sorted(packages)}
