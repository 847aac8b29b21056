"""`fgfast export`: trace, check against PyTorch, write down what was found; what does not pass is deleted."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import torch
from filelock import FileLock
from torch import Tensor, nn

import fgfast
from fgfast.backends.onnxruntime import OnnxRuntimeSession
from fgfast.backends.torch import TorchSession
from fgfast.errors import UnknownNameError, UsageError
from fgfast.export import check, sam_decoder, sam_encoder, trace
from fgfast.graphs import Contract, Manifest
from fgfast.machine import machine
from fgfast.methods import Precision
from fgfast.models.files import graph_files
from fgfast.models.grounding_dino.checkpoint import NAMES as GROUNDING_DINOS
from fgfast.models.sam.build import build_sam
from fgfast.models.serving import devices
from fgfast.models.serving.devices import choose_device
from fgfast.tolerances import SAM_BF16, SAM_FP16, SAM_FP32, Tolerance
from fgfast.transfer import digest_of

# Seconds after which the folder of an export that did not end is taken for left behind.
_ABANDONED = 86400.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Part:
    """One graph to be exported.

    Attributes:
        contract: what goes in and comes out.
        graph: what is traced.
        reference: PyTorch in float32, which the exported graph is compared with.
        example: what is traced with.
        cases: what is compared on.
        tolerances: rows of fgfast.tolerances.
        compare: check.compare, or one that knows that outputs may come in another order.
        translations: operators of our own for the exporter.
        opset: of ONNX.
    """

    contract: Contract
    graph: nn.Module
    reference: nn.Module
    example: tuple[Tensor, ...]
    cases: Callable[[], check.Cases]
    tolerances: Mapping[str, Tolerance]
    compare: check.Compare = check.compare
    translations: Mapping[Any, Callable[..., Any]] = field(default_factory=dict)
    opset: int = trace.OPSET


def choose_precision(precision: str) -> Precision:
    """ "auto" becomes bf16 on a GPU that computes it, else fp32, the only one ONNX Runtime is fast in on the CPU."""
    device = choose_device("auto")
    if precision == "auto" and device == "cpu":
        return "fp32"
    return devices.choose_precision(precision, device)[0]


def export(
    model: str,
    *,
    weights: str = "cached",
    precision: Precision = "fp32",
    batch: int = 1,
    canvases: Sequence[tuple[int, int]] = (),
    split: bool = False,
    backend: str = "onnx",
    out: Path | None = None,
    say: Say = print,
) -> list[Path]:
    """Write a model's graphs as ONNX, checked.

    Args:
        model: "sam_vit_b", "sam_vit_l", "sam_vit_h", "detic", "grounding_dino_tiny" or "grounding_dino_base".
        weights: "cached", "random:SEED" or a file.
        precision: of the matrix products.
        batch: images per call.
        canvases: of the detectors, (height, width) in pixels; empty takes those that hold every image.
        split: Detic as two graphs, with non-maximum suppression left to the caller between them.
        backend: "onnx", or "tensorrt" for the engines of the first GPU as well.
        out: the folder all graphs lie in; None takes the cache, where `fgfast convert` looks for them.
        say: told what is going on, a line each.

    Returns:
        The ONNX files.

    Raises:
        ParityError: a graph computes something else than PyTorch; it was deleted.
        GraphError: a graph is not valid.
        as build_sam and build_detic.
    """
    if backend == "tensorrt":
        check_tensorrt()
    identity = graph_files.identity(model, weights)
    where = graph_files.folder(model, identity, precision, out)
    where.mkdir(parents=True, exist_ok=True)
    done = []
    for part in parts(model, weights, precision, batch, canvases, split):
        path = _write(part, where, model, identity, precision, say)
        done.append(path)
        if backend == "tensorrt":
            done.append(_engine(part, path, say))
    _forget_old_weights(where)
    return done


def check_tensorrt() -> None:
    """Raise unless an engine can be built here."""
    if importlib.util.find_spec("tensorrt") is None:
        raise UsageError("TensorRT is not installed: pip install 'fgfast[gpu]'; --backend onnx needs none")
    if not torch.cuda.is_available():
        raise UsageError("TensorRT builds engines on the GPU that will run them; there is none here: --backend onnx")


def _engine(part: Part, path: Path, say: Say) -> Path:
    """The TensorRT engine of an ONNX file, built and compared on the first GPU."""
    from fgfast.export import tensorrt

    say(f"{path.name}: building TensorRT's engine, which takes minutes")
    reference = TorchSession(part.reference, part.contract)
    manifest = Manifest.read(path.with_suffix(".json"))
    built = tensorrt.engine(
        path, part.contract, manifest, reference.run, part.cases(), part.tolerances, compare=part.compare
    )
    say(f"{built}: agrees with PyTorch")
    return built


def parts(
    model: str,
    weights: str,
    precision: Precision,
    batch: int,
    canvases: Sequence[tuple[int, int]],
    split: bool = False,
) -> Iterator[Part]:
    """The graphs of a model; arguments as for `export`."""
    if split and model != "detic":
        raise UsageError(f"{model} has no split form; Detic has")
    if model.startswith("sam_"):
        if canvases:
            raise UsageError(f"{model} has one size of image: leave --canvas out")
        yield from _sam_parts(model, weights, precision, batch)
    elif model == "detic":
        from fgfast.export import detic

        names = ("detic_backbone", "detic_heads") if split else ("detic_detector",)
        yield from detic.parts(weights, precision, batch, canvases, names)
    elif model in GROUNDING_DINOS:
        from fgfast.export import grounding_dino

        yield from grounding_dino.parts(model, weights, precision, batch, canvases)
    else:
        known = ("sam_vit_b", "sam_vit_l", "sam_vit_h", "detic", *GROUNDING_DINOS)
        raise UnknownNameError("model to export", model, known)


def _sam_parts(model: str, weights: str, precision: Precision, batch: int) -> Iterator[Part]:
    name = model.removeprefix("sam_")
    sam = build_sam(name, weights, precision)
    exact = sam if precision == "fp32" else build_sam(name, weights)
    tolerances = {"fp32": SAM_FP32, "fp16": SAM_FP16, "bf16": SAM_BF16}
    contract = sam_encoder.contract(sam, batch)
    yield Part(
        contract,
        sam_encoder.graph(sam),
        sam_encoder.graph(exact) if exact is not sam else _reference_encoder(exact),
        sam_encoder.example(contract),
        lambda: sam_encoder.cases(contract),
        tolerances[precision],
    )
    decoder = sam_decoder.contract(sam)
    yield Part(
        decoder,
        sam_decoder.graph(sam),
        sam_decoder.graph(exact),
        sam_decoder.example(decoder),
        lambda: sam_decoder.cases(decoder),
        SAM_FP32,
    )


def _reference_encoder(sam: Any) -> nn.Module:
    from fgfast.models.sam.graph import ImageEncoderGraph

    return ImageEncoderGraph(sam)


def _write(part: Part, where: Path, model: str, identity: str, precision: str, say: Say) -> Path:
    """Trace, check and put into place one graph."""
    contract = part.contract
    final = where / graph_files.file_name(contract)
    work = where / f".{final.stem}.{os.getpid()}.part"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        start = time.perf_counter()
        path = work / final.name
        trace.trace(part.graph, contract, part.example, path, part.translations, part.opset)
        traced = time.perf_counter() - start
        say(f"{final.name}: written in {traced:.0f} s, {_size(work):,.0f} MB; comparing with PyTorch")
        measured = _check(part, path, precision)
        worst = ", ".join(f"{name} {value:.1g}" for name, value in _worst(measured).items())
        data = _name_weights(path)
        manifest = Manifest(
            contract=contract,
            model=model,
            weights=identity,
            precision=precision,
            opset=part.opset,
            code=_code(),
            files={file.name: digest_of(file) for file in (path, *data)},
            tolerances={p.name: _limits(part.tolerances[p.kind]) for p in contract.outputs},
            measured=[*measured, {"export_seconds": round(traced, 1), "machine": machine()}],
        )
        manifest.write(work / "manifest.json")
        with FileLock(where / ".lock"):
            for file in data:
                os.replace(file, where / file.name)
            final.with_suffix(".json").unlink(missing_ok=True)
            os.replace(path, final)
            # The manifest comes last: a graph is believed when it is there.
            os.replace(work / "manifest.json", final.with_suffix(".json"))
        say(f"{final}: agrees with PyTorch; largest differences: {worst}")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return final


def _check(part: Part, path: Path, precision: str) -> list[dict[str, Any]]:
    """Compare; and in a precision that the CPU computes, time both."""
    runnable = path
    if precision == "bf16":
        # ONNX Runtime has no bfloat16 on the CPU: the same roundings, carried out in float32.
        runnable = path.with_name("widened.onnx")
        from fgfast.export import widen

        widen.widen(path, runnable)
    session = OnnxRuntimeSession(runnable, part.contract)
    reference = TorchSession(part.reference, part.contract)
    try:
        return part.compare(part.contract, session.run, reference.run, part.cases(), part.tolerances)
    finally:
        session.close()
        if runnable != path:
            check.delete(*path.parent.glob("widened.onnx*"))


def _name_weights(path: Path) -> list[Path]:
    """Name the file of weights after what is in it, so that the graphs of several canvases share one."""
    model = onnx.load_model(str(path), load_external_data=False)
    outside = [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    places = {entry.value for t in outside for entry in t.external_data if entry.key == "location"}
    renamed = {place: f"weights-{digest_of(path.with_name(place))[:16]}.bin" for place in places}
    for tensor in outside:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = renamed[entry.value]
    files = []
    for old, new in renamed.items():
        os.replace(path.with_name(old), path.with_name(new))
        files.append(path.with_name(new))
    onnx.save_model(model, str(path))
    return files


def _forget_old_weights(where: Path) -> None:
    """Remove files of weights that no graph in the folder refers to any more, and what killed exports left."""
    with FileLock(where / ".lock"):
        beside = (path.with_suffix(".json") for path in where.glob("*.onnx"))
        manifests = [Manifest.read(path) for path in beside if path.is_file()]
        used = {name for manifest in manifests for name in manifest.files}
        check.delete(*(path for path in where.glob("weights-*.bin") if path.name not in used))
        for work in where.glob(".*.part"):
            if time.time() - work.stat().st_mtime > _ABANDONED:
                shutil.rmtree(work, ignore_errors=True)


def _worst(measured: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    worst: dict[str, float] = {}
    for record in measured:
        if "output" in record:
            worst[record["output"]] = max(worst.get(record["output"], 0.0), record["largest"])
    return worst


def _limits(tolerance: Tolerance) -> dict[str, float]:
    """As JSON takes it, which has no infinity."""
    return {name: value for name, value in (("largest", tolerance.largest), ("rms", tolerance.rms)) if value < 1e9}


def _code() -> dict[str, str]:
    return {
        "fgfast": fgfast.__version__,
        **{name: importlib.metadata.version(name) for name in ("torch", "onnx", "onnxscript")},
    }


def _size(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.iterdir()) / 1e6
