"""Nodes that ONNX Runtime on a GPU would compute on the CPU. The session on a GPU is a fake, the options are real."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="models need the extra models")
onnxruntime = pytest.importorskip("onnxruntime", reason="exported graphs need the extra export")

from fgfast import graphs  # noqa: E402
from fgfast.backends import onnxruntime as backend  # noqa: E402
from fgfast.backends.onnxruntime import OnnxRuntimeSession  # noqa: E402
from fgfast.doctor import two_layers  # noqa: E402
from fgfast.errors import GraphError  # noqa: E402

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
ENTRY = "session.record_ep_graph_assignment_info"


class Session:
    """InferenceSession on a GPU, as far as it is asked: `nodes` are (provider, name, operator)."""

    nodes: tuple[tuple[str, str, str], ...] = ()
    options: Any = None

    def __init__(self, path: str, options: Any, providers: Any) -> None:
        Session.options = options

    def get_providers(self) -> list[str]:
        return [CUDA, CPU]

    def get_provider_graph_assignment_info(self) -> list[Any]:
        assert self.options.get_session_config_entry(ENTRY) == "1", "else ONNX Runtime raises"
        return [
            SimpleNamespace(ep_name=where, get_nodes=lambda n=name, o=op: [SimpleNamespace(name=n, op_type=o)])
            for where, name, op in self.nodes
        ]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: SimpleNamespace(cuda_stream=7))
    monkeypatch.setattr(backend.onnx_contents, "check", lambda path: None)


def opened(*nodes: tuple[str, str, str]) -> OnnxRuntimeSession:
    Session.nodes = nodes
    return OnnxRuntimeSession(Path("detector.onnx"), graphs.sam_mask_decoder(256), "cuda:0")


def test_a_graph_with_nodes_on_the_cpu_is_refused_by_name(gpu: None) -> None:
    with pytest.raises(GraphError, match=r"no kernel on the GPU for nms \(NonMaxSuppression\) of detector.onnx"):
        opened((CUDA, "a", "Conv"), (CPU, "nms", "NonMaxSuppression"))
    many = [(CPU, f"a{n}", "Attention") for n in range(9)]
    with pytest.raises(GraphError, match=r"a0 \(Attention\), .*a4 \(Attention\) and 4 more of"):
        opened(*many)


def test_nodes_that_compute_shapes_may_be_there(gpu: None) -> None:
    opened((CUDA, "a", "Conv"), (CPU, "s", "Shape"), (CPU, "g", "Gather"), (CPU, "c", "Concat"))


def test_an_onnx_runtime_that_does_not_say_is_not_trusted(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Session, "get_provider_graph_assignment_info")
    with pytest.raises(GraphError, match=r"does not say which nodes of detector.onnx"):
        opened()


def test_the_real_onnx_runtime_says_where_nodes_are(tmp_path: Path) -> None:
    path, _ = two_layers.write(tmp_path)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(ENTRY, "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=[CPU])
    found = [
        (part.ep_name, node.op_type)
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
    ]
    assert found
    assert {where for where, _ in found} == {CPU}
    with pytest.raises(GraphError, match=r"no kernel on the GPU for .*\((MatMul|Gemm|FusedGemm|Relu)\)"):
        backend._check_nodes(session, path)
