"""From an ONNX file to a TensorRT engine for this machine's GPU, compared with PyTorch before anything uses it.

An engine lies beside its ONNX file. Its manifest is written when it has passed the parity check; an engine without a
manifest, or with another hash, is never loaded (fgfast.backends.tensorrt_engine.trusted) but built again. The code is
written for TensorRT 10 and 11.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor

from fgfast.backends import tensorrt_engine as files
from fgfast.backends.manifest import Manifest
from fgfast.backends.tensorrt import TensorRtSession
from fgfast.backends.tensorrt_engine import SPANS, Span
from fgfast.errors import GraphError, OutputFailedError
from fgfast.export import check
from fgfast.export.tensorrt_build import Progress, build
from fgfast.graphs import Contract
from fgfast.io.write import write_file
from fgfast.models.files.graph_files import Exported
from fgfast.tolerances import Tolerance

log = logging.getLogger("fgfast")


def engine(
    graph: Path,
    contract: Contract,
    manifest: Manifest,
    reference: check.Run,
    cases: check.Cases,
    tolerances: Mapping[str, Tolerance],
    device: str | torch.device = "cuda:0",
    *,
    compare: check.Compare = check.compare,
    spans: Mapping[str, Span] = SPANS,
    memory: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """The engine of a graph for one GPU: the one that exists, or else a new one that has passed the parity check.

    Engines of other versions of TensorRT or of the graph, for the same GPU, are removed when the new one has passed.
    Engines for other GPUs are kept, because machines may share the folder.

    Args:
        graph: the ONNX file.
        contract: of the graph.
        manifest: of the ONNX file; it names the engine, whose manifest is made from it.
        reference: runs PyTorch; see fgfast.export.check.compare.
        cases: (name, inputs), on the CPU; within the spans.
        tolerances: rows of fgfast.tolerances.
        device: the GPU.
        compare: compares outputs within their tolerances.
        spans: of the free sizes.
        memory: bytes of GPU memory that a layer may use while it works; None takes half of what is free.
        progress: called during the build, which takes minutes, perhaps from another thread.

    Returns:
        The path of the engine.

    Raises:
        GraphError: the ONNX file is not the manifest's, or TensorRT does not take it; the message has all errors of
            its parser.
        ParityError: the engine computes something else than PyTorch; it was deleted.
    """
    if manifest.contract != contract:
        raise GraphError(f"the manifest of {graph} has another contract; export the model again")
    Exported(graph, manifest).verify()
    path = files.engine_path(graph, manifest, device, spans)
    with FileLock(path.with_name(f"{graph.stem}.engine.lock")):
        try:
            files.trusted(path, contract)
            return path
        except GraphError as why:
            log.debug("building %s: %s", path.name, why)
        content = build(graph, contract, device, spans=spans, memory=memory, progress=progress)
        parity = partial(_check, reference=reference, cases=cases, tolerances=tolerances, compare=compare)
        _place(content, path, manifest, device, parity)
        for old in path.parent.glob(f"{files.engine_prefix(graph, device)}*.engine"):
            if old != path:
                log.info("removing %s, which is out of date", old.name)
                check.delete(old, files.manifest_of(old))
    return path


def _place(
    content: bytes,
    path: Path,
    manifest: Manifest,
    device: str | torch.device,
    parity: Callable[[TensorRtSession], list[dict[str, Any]]],
) -> None:
    """Write an engine that passes the check `parity`, and its manifest; an engine that fails leaves nothing behind."""
    part = path.with_name(f".fgfast-{os.getpid()}-{path.name}.part")
    try:
        part.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        measured = parity(TensorRtSession(part, manifest.contract, device, digest))
        versions = {"tensorrt": files.version(), "gpu": files.gpu_name(device)}
        passed = replace(
            manifest,
            code={**manifest.code, **versions},
            files={path.name: digest},
            measured=[*manifest.measured, *measured],
        )
        # The manifest comes last: only an engine with a manifest is used.
        files.manifest_of(path).unlink(missing_ok=True)
        os.replace(part, path)
        write_file(files.manifest_of(path), passed.to_json().encode())
    except OSError as error:
        raise OutputFailedError(f"cannot write {path}: {error.strerror or error}; make room there") from error
    finally:
        check.delete(part)


def _check(
    session: TensorRtSession,
    reference: check.Run,
    cases: check.Cases,
    tolerances: Mapping[str, Tolerance],
    compare: check.Compare,
) -> list[dict[str, Any]]:
    """Compare an engine with PyTorch on every case; it runs as it will later, recorded where shapes are fixed."""

    def run(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = session.run({name: tensor.to(session.device) for name, tensor in inputs.items()})
        return {name: tensor.cpu() for name, tensor in found.items()}

    try:
        if not session.contract.free:
            session.prepare()
        how = f"TensorRT {files.version()}{', recorded' if session.recorded else ''}"
        named = ((f"{name}, {how}", inputs) for name, inputs in cases)
        return compare(session.contract, run, reference, named, tolerances)
    finally:
        session.close()
