"""The graphs of peers: the files that engines load, and their sessions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fgfast.bench import openvino_pins, openvino_session
from fgfast.bench.peers import Peer
from fgfast.graphs import Contract
from fgfast.writing import Target, rename


def files_for(peers: Sequence[Peer], folder: Path) -> None:
    """Write the graphs of the peers that OpenVINO loads in its own format: those with marks."""
    for graph in {peer.graph for peer in peers if peer.pinned}:
        whole = folder / f"{graph}.xml"
        openvino_session.convert(folder / f"{graph}.onnx", whole)
        openvino_pins.pin(whole, folder / f"{graph}-pinned.xml")
        rename(Target.file(whole.with_suffix(".bin")), Target(folder, f"{graph}-pinned.bin"))


def session_of(peer: Peer, folder: Path, contract: Contract) -> Any:
    """Load the graph of a peer in OpenVINO or ONNX Runtime, with as many threads as PyTorch uses."""
    threads = torch.get_num_threads()
    if peer.package == "openvino":
        file = folder / (f"{peer.graph}-pinned.xml" if peer.pinned else f"{peer.graph}.onnx")
        return openvino_session.OpenVinoSession(file, contract, peer.precision, threads)
    from fgfast.backends.onnxruntime import OnnxRuntimeSession

    return OnnxRuntimeSession(folder / f"{peer.graph}.onnx", contract, threads=threads)
