"""From an ONNX file to a TensorRT engine for this machine's GPU, compared with PyTorch before anything uses it.

An engine is stored beside its ONNX file. When it has passed the parity check, its manifest is written, and a note that
it was built here by this user; an engine without them, or with another hash, is never loaded
(fgfast.backends.tensorrt_engine.trusted) but built again. The code is written for TensorRT 10 and 11.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fgfast.backends import tensorrt_engine as files
from fgfast.backends.manifest import Manifest
from fgfast.backends.tensorrt import TensorRtSession
from fgfast.errors import GraphError, OutputFailedError, RecordingFailedError
from fgfast.export.check import Run
from fgfast.export.tensorrt_build import build
from fgfast.models.files.graph_files import Exported
from fgfast.writing import Target, locked, remove, rename, write_file

log = logging.getLogger("fgfast")

# Takes what runs the engine, and how it does so, for the names of the cases: Part.parity.
Parity = Callable[[Run, str], list[dict[str, Any]]]


def engine(graph: Path, manifest: Manifest, parity: Parity, device: str | torch.device = "cuda:0") -> Path:
    """Return the engine of a graph for one GPU; build it, and check it, where there is none that can be trusted.

    Engines of other versions of TensorRT or of the graph, for the same GPU, are removed when the new one has passed.
    Engines for other GPUs are kept, because machines may share the folder.

    Args:
        graph: the ONNX file.
        manifest: of the ONNX file; it names the engine, whose manifest is made from it.
        parity: compares the engine with PyTorch, on inputs within SPANS.
        device: the GPU.

    Returns:
        The path of the engine.

    Raises:
        GraphError: the ONNX file is not the manifest's, or TensorRT does not take it; the message has all errors of
            its parser.
        ParityError: the engine differs from PyTorch; it was deleted.
        RecordingFailedError: the engine agrees and is stored, but cannot be recorded; this process must end.
    """
    Exported(graph, manifest).verify()
    path = files.engine_path(graph, manifest, device)
    with locked(Target(path.parent, f"{graph.stem}.engine.lock")):
        try:
            files.trusted(path, manifest.contract, device)
            return path
        except GraphError as why:
            log.debug("building %s: %s", path.name, why)
        _place(build(graph, manifest.contract, device), path, manifest, parity, device)
        for old in path.parent.glob(f"{files.engine_prefix(graph, device)}*.engine"):
            if old != path:
                log.info("removing %s, which is out of date", old.name)
                files.remove(old)
    return path


def _place(content: bytes, path: Path, manifest: Manifest, parity: Parity, device: str | torch.device) -> None:
    """Write an engine that passes the parity check, and its manifest; one that fails leaves nothing behind."""
    part = Target(path.parent, f".fgfast-{os.getpid()}-{path.name}.part")
    try:
        write_file(part, content, sync=False)
        digest = hashlib.sha256(content).hexdigest()
        measured, failure = _check(TensorRtSession(part.path, manifest.contract, device, digest), parity)
        versions = {"tensorrt": files.version(), "gpu": files.gpu_name(device)}
        passed = replace(
            manifest,
            code={**manifest.code, **versions},
            files={path.name: digest},
            measured=[*manifest.measured, *measured],
        )
        # Manifest and note come last: only an engine with both is used.
        files.remove(path)
        rename(part, Target.file(path))
        write_file(Target.file(files.manifest_of(path)), passed.to_json().encode())
        files.record(path, manifest.contract, device, digest)
    except OSError as error:
        raise OutputFailedError(f"cannot write {path}: {error.strerror or error}; make room there") from error
    finally:
        remove(part)
    if failure is not None:
        raise failure


def _check(session: TensorRtSession, parity: Parity) -> tuple[list[dict[str, Any]], RecordingFailedError | None]:
    """Compare an engine with PyTorch; where its shapes are fixed, also recorded, as it will run later.

    Returns:
        The differences; and what a recording raised, after which nothing may use the GPU.
    """

    def run(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = session.run({name: tensor.to(session.device) for name, tensor in inputs.items()})
        return {name: tensor.cpu() for name, tensor in found.items()}

    how = f", TensorRT {files.version()}"
    try:
        measured = parity(run, how)
        if not session.contract.free:
            session.prepare()
        if session.recorded:
            measured = [*measured, *parity(run, f"{how}, recorded")]
    except RecordingFailedError as error:
        return measured, error
    except BaseException:
        session.close()
        raise
    session.close()
    return measured, None
