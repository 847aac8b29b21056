"""Graphs in OpenVINO on the CPU, as contenders of `fgfast bench models --peers`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fgfast.backends.session import described
from fgfast.errors import GraphError
from fgfast.graphs import Contract

_PRECISION = {"fp32": "f32", "bf16": "bf16"}


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
