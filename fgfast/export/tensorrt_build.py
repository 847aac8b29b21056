"""Builds a TensorRT engine: parser, shapes, memory, timings. fgfast.export.tensorrt checks it."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import torch

from fgfast import keyed_notes
from fgfast.backends import onnx_contents
from fgfast.backends import tensorrt_engine as files
from fgfast.backends.tensorrt_engine import SPANS, Span
from fgfast.errors import GraphError, OutputFailedError
from fgfast.graphs import Contract
from fgfast.keyed_notes import Stamp
from fgfast.transfer import cache_folder
from fgfast.writing import Target, write_file

log = logging.getLogger("fgfast")

_KIND = "timings"
# The fraction of the free GPU memory that one layer may use while it works.
_WORKSPACE_SHARE = 0.5


def build(graph: Path, contract: Contract, device: str | torch.device = "cuda:0") -> bytes:
    """Build the serialized engine of an ONNX file, without a parity check.

    Args:
        graph: the ONNX file.
        contract: of the graph; its free sizes may vary within SPANS.
        device: the GPU.

    Raises:
        GraphError: TensorRT does not take the file, or cannot build it; the message has TensorRT's reasons.
    """
    trt, gpu = files.load(), files.gpu_of(device)
    logger = files.messages(trt)
    logger.errors.clear()
    with torch.cuda.device(gpu):
        builder = trt.Builder(logger)
        # From TensorRT 11 on every network is strongly typed, and the flag is deprecated.
        flag = trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED if files.major(trt) < 11 else None
        network = builder.create_network(0 if flag is None else 1 << int(flag))
        _parse(trt, network, logger, graph)
        _allow_split_attention(trt, network)
        config = builder.create_builder_config()
        # TensorFloat-32 has three digits fewer than float32, and is on by default.
        config.clear_flag(trt.BuilderFlag.TF32)
        limit = int(torch.cuda.mem_get_info(gpu)[0] * _WORKSPACE_SHARE)
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, limit)
        if contract.free:
            config.add_optimization_profile(_profile(builder, contract))
        timings = cache_folder() / "graphs" / f"timings-{files.gpu_name(gpu)}-trt{trt.__version__}.cache"
        _attach_timings(config, timings)
        content = builder.build_serialized_network(network, config)
        if content is None:
            raise GraphError(
                f"TensorRT {trt.__version__} cannot build {graph.name} with {limit / 2**30:.1f} GiB of workspace: "
                f"{logger.take()}. Free GPU memory, or use another backend"
            )
        _keep_timings(config, timings)
    return bytes(content)


def _parse(trt: Any, network: Any, logger: Any, graph: Path) -> None:
    """Parse the ONNX file; its weights may be stored beside it."""
    onnx_contents.check(graph)
    parser = trt.OnnxParser(network, logger)
    if parser.parse_from_file(str(graph)):
        return
    errors = []
    for n in range(parser.num_errors):
        error = parser.get_error(n)
        errors.append(f"{error.node_operator()} {error.node_name()!r}: {error.desc()}")
    raise GraphError(
        f"TensorRT {trt.__version__} does not take {graph.name}, {len(errors)} errors:\n  "
        + "\n  ".join(errors or [logger.take()])
        + "\nUse another backend, or another version of TensorRT"
    )


def _allow_split_attention(trt: Any, network: Any) -> None:
    """Let TensorRT split an Attention for which it has no fused kernel (float32, odd head sizes).

    By default it refuses such an Attention, which is a layer of its own since 10.14. `get_layer` returns an ILayer
    whatever the layer's type; assigning its class is how the bindings cast.
    """
    kind = getattr(trt.LayerType, "ATTENTION_INPUT", None)
    for number in range(network.num_layers if kind is not None else 0):
        layer = network.get_layer(number)
        if layer.type == kind:
            layer.__class__ = trt.IAttentionInputLayer
            layer.attention.decomposable = True


def _profile(builder: Any, contract: Contract) -> Any:
    """The profile of the shapes that the engine is built for."""
    missing = [name for name in contract.free if name not in SPANS]
    if missing:
        raise GraphError(f"{contract.graph}: no span is given for the sizes {missing}, only for {sorted(SPANS)}")
    profile = builder.create_optimization_profile()
    for port in contract.inputs:
        low, usual, high = (
            tuple(SPANS[d][n] if isinstance(d, str) else d for d in port.shape) for n in range(len(Span._fields))
        )
        profile.set_shape(port.name, low, usual, high)
    return profile


def _attach_timings(config: Any, file: Path) -> None:
    """Load the times of kernels in earlier builds, which makes this build faster; replace a damaged file.

    TensorRT's reader of them is not made for hostile files, so only those count that this user's builds wrote.
    """
    try:
        content = file.read_bytes()
    except OSError:
        content = b""
    if keyed_notes.read(_note_of(file), _KIND, file).get("sha256") != hashlib.sha256(content).hexdigest():
        content = b""
    timings = config.create_timing_cache(content)
    if timings is None or not config.set_timing_cache(timings, False):
        log.info("%s is damaged or from another machine; TensorRT measures again", file)
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _keep_timings(config: Any, file: Path) -> None:
    timings = config.get_timing_cache()
    if timings is None:
        return
    content = bytes(timings.serialize())
    try:
        write_file(Target.file(file), content)
        digest = hashlib.sha256(content).hexdigest()
        keyed_notes.write(_note_of(file), _KIND, file, Stamp.of(file), {"sha256": digest})
    except (OutputFailedError, OSError) as error:
        log.warning("%s", error)


def _note_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.built")
