"""Exports models: traces each graph, compares it with PyTorch, writes its manifest; a graph that differs is deleted."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import onnx
import torch

import fgfast
from fgfast.backends.manifest import Manifest
from fgfast.backends.onnxruntime import OnnxRuntimeSession
from fgfast.errors import UsageError, runtime_command
from fgfast.export import leftovers, trace, widen
from fgfast.export.exportable import Common, family_of, graphs_of
from fgfast.export.part import Part
from fgfast.export.quantise_sample import CalibrationSample
from fgfast.machine import machine
from fgfast.methods import QUANTISED, ModelSpec, Precision, plain_precision
from fgfast.models.files import graph_files
from fgfast.models.serving import devices
from fgfast.models.serving.batches import GPU_BATCH
from fgfast.models.serving.devices import choose_device
from fgfast.records import Size
from fgfast.terminal import say
from fgfast.tolerances import Tolerance
from fgfast.transfer import digest_of
from fgfast.writing import Target, locked, make_folder, remove, rename, scratch_folder, write_file

# Names in LVIS v1, Detic's largest vocabulary of its own.
LVIS_WORDS = 1203

OnMessage = Callable[[str], None]


def choose_precision(precision: str) -> Precision:
    """Replace "auto" by a GPU's native half precision, else by fp32, in which ONNX Runtime is fast on a CPU."""
    if precision in QUANTISED:
        return cast(Precision, precision)  # ONNX files of it are written on any machine
    device = choose_device("auto")
    if precision == "auto" and device == "cpu":
        return "fp32"
    return devices.choose_precision(precision, device)[0]


def export(
    spec: ModelSpec,
    *,
    canvases: Sequence[Size] | Common = (),
    graphs: Sequence[str] = (),
    backend: str = "onnx",
    words: int | None = None,
    out: Path | None = None,
    sample: CalibrationSample | None = None,
    on_message: OnMessage = say,
) -> list[Path]:
    """Write a model's graphs as ONNX, each compared with PyTorch.

    Args:
        spec: of one of exportable.EXPORTABLE; its batch is the number of images per call. Where it is None, that is 1
            for "onnx", and the batch of a run on a GPU for "tensorrt".
        canvases: of a detector, in pixels; empty takes the two that hold every image, "common" those of common
            photographs as well.
        graphs: names of fgfast.graphs to write; empty takes those that `fgfast convert` loads.
        backend: "onnx", or "tensorrt" to build the engines for the first GPU, too.
        words: the most words of a vocabulary that Detic's heads take; None takes any number for "onnx", and as many as
            LVIS has for "tensorrt".
        out: the folder of all graphs; None takes the cache, where `fgfast convert` looks for them.
        sample: of the user's data set, which a quantised encoder needs; None for any other graph.
        on_message: called with a line about each step.

    Returns:
        The ONNX files and the engines.

    Raises:
        UnknownNameError: the model is unknown, or has no such graph.
        UsageError: the model, the sample or the GPU does not go with the precision.
        ParityError: a graph differs from PyTorch; it was deleted.
        GraphError: a graph is not valid.
        The errors of build_sam and build_detic.
    """
    wanted = graphs_of(spec.name, graphs, backend)
    if backend == "tensorrt":
        check_tensorrt(spec.precision)
        words = words or LVIS_WORDS
    spec = replace(spec, batch=spec.batch or (GPU_BATCH if backend == "tensorrt" else 1))
    identity = graph_files.identity(spec.name, spec.weights)
    folder = graph_files.folder(spec.name, identity, spec.precision, out)
    make_folder(Target(folder))
    written = []
    for part in parts(spec, canvases, wanted, words=words, sample=sample):
        path = _write(part, folder, spec, identity, on_message)
        written.append(path)
        if part.quantisation is not None:
            leftovers.remove_other_scales(folder, part.quantisation.digest, on_message)
        if backend == "tensorrt":
            written.append(_engine(part, path, on_message))
    leftovers.remove_old_weights(folder)
    return written


def check_tensorrt(precision: str = "fp32") -> None:
    """Raise UsageError unless an engine of a precision can be built on this machine."""
    if importlib.util.find_spec("tensorrt") is None:
        raise UsageError(f"TensorRT is not installed: {runtime_command(gpu=True)}; --backend onnx works without it")
    if not torch.cuda.is_available():
        raise UsageError(
            "TensorRT builds an engine on the GPU that will run it, and this machine has none: --backend onnx"
        )
    if precision in QUANTISED:
        devices.check_quantised(precision, ["cuda:0"])


def parts(
    spec: ModelSpec,
    canvases: Sequence[Size] | Common,
    graphs: Sequence[str],
    *,
    words: int | None = None,
    sample: CalibrationSample | None = None,
) -> Iterator[Part]:
    """Build the graphs of a model one by one; `graphs` comes from graphs_of, and for the rest see `export`."""
    family = family_of(spec.name)
    check_sample(spec, graphs, sample is not None)
    if family == "sam":
        if canvases:
            raise UsageError(f"{spec.name} takes images of one size: leave --canvas out")
        from fgfast.export import quantise, sam

        if sample is not None:
            yield from quantise.parts(spec, graphs, sample)
        else:
            yield from sam.parts(replace(spec, precision=plain_precision(spec.precision)), graphs)
    elif family == "detic":
        from fgfast.export import detic

        yield from detic.parts(spec, canvases, graphs, words)
    else:
        from fgfast.export import grounding_dino

        yield from grounding_dino.parts(spec, canvases)


def check_sample(spec: ModelSpec, graphs: Sequence[str], given: bool) -> None:
    """Raise UsageError unless a sample of images is given where, and only where, an encoder is quantised.

    Args:
        spec: of the model.
        graphs: from graphs_of.
        given: whether there is a sample.
    """
    if spec.precision not in QUANTISED:
        if given:
            raise UsageError(
                f"a calibration has no effect with {spec.precision}: use --precision fp8, or omit --calibrate"
            )
    elif family_of(spec.name) != "sam":
        raise UsageError(
            f"{spec.precision} quantises SAM's image encoder, and a run with it computes {spec.name} in fp16: fgfast "
            f"export {spec.name} --precision fp16"
        )
    elif not given and "sam_image_encoder" in graphs:
        raise UsageError(f"--precision {spec.precision} needs images to find its scales on: --calibrate DATASET")


def _engine(part: Part, path: Path, on_message: OnMessage) -> Path:
    """Build the TensorRT engine of an ONNX file for the first GPU, and compare it with PyTorch."""
    from fgfast.export import tensorrt

    on_message(f"{path.name}: TensorRT builds the engine, which takes minutes")
    built = tensorrt.engine(path, Manifest.read(path.with_suffix(".json")), part.parity)
    on_message(f"{built}: agrees with PyTorch")
    return built


def _write(part: Part, folder: Path, spec: ModelSpec, identity: str, on_message: OnMessage) -> Path:
    """Trace one graph, compare it with PyTorch, and move it to its place."""
    contract = part.contract
    final = folder / graph_files.file_name(contract)
    with scratch_folder(f".{final.stem}.", folder, ".part") as work:
        start = time.perf_counter()
        path = work / final.name
        _trace(part, path)
        traced = time.perf_counter() - start
        megabytes = sum(file.stat().st_size for file in work.iterdir()) / 1e6
        on_message(f"{final.name}: written in {traced:.0f} s, {megabytes:,.0f} MB; comparing it with PyTorch")
        measured = _compare(part, path, spec.precision)
        quantisation = part.quantisation.facts(measured) if part.quantisation is not None else {}
        data = _name_weights(path)
        manifest = Manifest(
            contract=contract,
            model=spec.name,
            weights=identity,
            precision=spec.precision,
            opset=trace.OPSET,
            code=_versions(),
            files={file.name: digest_of(file) for file in (path, *data)},
            tolerances={p.name: _limits(part.tolerances[p.kind]) for p in contract.outputs},
            measured=[*measured, {"export_seconds": round(traced, 1), "machine": machine()}],
            quantisation=quantisation,
        )
        manifest.write(work / "manifest.json")
        with locked(Target(folder, ".lock")):
            for file in data:
                rename(Target.file(file), Target(folder, file.name))
            remove(Target.file(final.with_suffix(".json")))
            rename(Target.file(path), Target.file(final))
            # The manifest comes last: only a graph with a manifest is used.
            rename(Target(work, "manifest.json"), Target.file(final.with_suffix(".json")))
        on_message(f"{final}: agrees with PyTorch; {_agreement(measured, quantisation)}")
    return final


def _trace(part: Part, path: Path) -> None:
    """Write a part's graph as ONNX, quantised where it is to be."""
    if part.quantisation is None:
        trace.trace(part.graph, part.contract, part.example, path)
        return
    with scratch_folder("plain.", path.parent) as folder:
        plain = folder / path.name
        trace.trace(part.graph, part.contract, part.example, plain)
        part.quantisation.insert(plain, path)
    trace.inspect(path, part.contract)


def _agreement(measured: Sequence[Mapping[str, Any]], quantisation: Mapping[str, Any]) -> str:
    if quantisation:
        iou, held_out = quantisation["iou"], quantisation["held_out"]
        return f"masks of {held_out} held-out images: mean IoU {iou['mean']:.4f}, least {iou['least']:.4f}"
    return "largest differences: " + ", ".join(f"{name} {value:.1g}" for name, value in _worst(measured).items())


def _compare(part: Part, path: Path, precision: str) -> list[dict[str, Any]]:
    """Run the file in ONNX Runtime on the CPU and compare it with the reference."""
    if precision == "bf16":
        # ONNX Runtime has no bfloat16 on the CPU: the same roundings are carried out in float32.
        path = widen.widen(path, path.with_name("widened.onnx"))
    session = OnnxRuntimeSession(path, part.contract)
    try:
        return part.parity(session.run)
    finally:
        session.close()


def _name_weights(path: Path) -> list[Path]:
    """Name the file of weights after its digest, so that the graphs of several canvases share one file."""
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
        rename(Target(path.parent, old), Target(path.parent, new))
        files.append(path.with_name(new))
    write_file(Target.file(path), model.SerializeToString(), sync=False)
    return files


def _worst(measured: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Output -> its largest difference over all cases."""
    worst: dict[str, float] = {}
    for record in measured:
        worst[record["output"]] = max(worst.get(record["output"], 0.0), record["largest"])
    return worst


def _limits(tolerance: Tolerance) -> dict[str, float]:
    """A tolerance as JSON, which has no infinity."""
    return {name: value for name, value in (("largest", tolerance.largest), ("rms", tolerance.rms)) if value < 1e9}


def _versions() -> dict[str, str]:
    """The versions of fgfast and of the packages that write graphs."""
    packages = {name: importlib.metadata.version(name) for name in ("torch", "onnx", "onnxscript")}
    return {"fgfast": fgfast.__version__, **packages}
