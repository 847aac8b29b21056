"""The speed of models on this machine: measured once and stored in the cache folder.

On a GPU each way of computing a model is measured in a process of its own. A graph that cannot be recorded damages its
process, a fault of the device ends it, and what lacks memory leaves less for the next; here all that costs nothing.
"""

from __future__ import annotations

import logging
import subprocess
import time
import timeit
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from fgfast import methods, processes
from fgfast.backends.session import Session, zeros
from fgfast.backends.slots import translated
from fgfast.errors import DeviceFailedError, DeviceMemoryError, GraphError, UsageError
from fgfast.methods import ModelSpec
from fgfast.models.files import measured
from fgfast.models.serving import chosen
from fgfast.models.serving.batches import default_batch
from fgfast.runner import SlotModel, compute, filled_slot

log = logging.getLogger("fgfast")

# Timed runs, after an untimed one; the fastest counts. A run on a GPU takes some tens of milliseconds.
_ROUNDS, _GPU_ROUNDS = 3, 10
# Words of the vocabulary when Detic is timed; the size of the vocabulary hardly matters.
_CLASSES = 16
# Seconds after which a way of computing a model counts as one that does not work: its compiler hangs.
_LONGEST = 1800.0
# Characters of an error's message that are stored.
_TEXT = 300
# What a way of computing a model may fail with. Anything else is a fault of the program, and is raised.
_FAILURES = (
    *(RuntimeError, MemoryError, OSError, subprocess.SubprocessError),
    *(GraphError, DeviceMemoryError, DeviceFailedError),
)
_LIBRARIES = ("torch", "triton", "onnxruntime", "tensorrt")


@dataclass(frozen=True, slots=True)
class Trial:
    """One way of computing a model, tried on this machine.

    Attributes:
        seconds: per image, in full batches.
        ready: seconds of the first batch, in which graphs are compiled and recorded, without loading the weights.
        failed: why it cannot be used; empty where it can.
        passing: whether the failure may pass: another program held the memory.
        chosen: what the model chose in the process that timed it, see fgfast.models.serving.chosen.
    """

    seconds: float = 0.0
    ready: float = 0.0
    failed: str = ""
    passing: bool = False
    chosen: str = ""


def seconds_of(session: Session, rounds: int = _ROUNDS, batch: int = 1) -> float:
    """Return the seconds of one run of a session on black images; the arithmetic does not depend on their content.

    Args:
        session: to be timed.
        rounds: number of timed runs.
        batch: images per run, where the session takes any number.
    """
    return min(timeit.repeat(_run_of(session, batch), number=1, repeat=rounds + 1)[1:])


def images_of(session: Session, batch: int = 1) -> int:
    """Return the images per run of a session: `batch`, unless its shapes are fixed."""
    images = session.contract.inputs[0].shape[0]
    return images if isinstance(images, int) else batch


def _run_of(session: Session, batch: int) -> Callable[[], None]:
    sizes = dict.fromkeys(session.contract.free, 1) | {"classes": _CLASSES, "batch": batch}
    inputs = zeros(session.contract, sizes, session.device)
    if "sizes" in inputs:
        inputs["sizes"] += torch.tensor(inputs["pixels"].shape[1:3], device=session.device)

    def run() -> None:
        session.run(inputs)
        if session.device.type == "cuda":
            torch.cuda.synchronize(session.device)

    return run


def tried(spec: ModelSpec, how: str, *, twice: bool = False, measure: bool = True, again: bool = False) -> Trial | None:
    """Return how fast a model is on a GPU, computed in one way; it is measured where that is not stored.

    Args:
        spec: of the model; in PyTorch with the form of its graph.
        how: the way in words, which are part of the key.
        twice: whether to measure in two processes, and take the second: it finds what the first compiled, as every
            process that follows does.
        measure: whether to measure what is not stored.
        again: whether to measure once more what failed and may pass.

    Returns:
        The trial, in seconds of a mean image (see `share`); None if it is not stored and `measure` is False.

    Raises:
        UsageError: the model cannot be loaded in PyTorch.
    """
    batch = spec.batch or default_batch(spec.device)
    variant = methods.method(spec.name).variant
    which = ", ".join(filter(None, (how, str(methods.resolve(variant)(spec)) if variant else "")))
    key = measured.key_of(f"{spec.name} {spec.precision} in batches of {batch}, {which}", spec.device)
    stored = measured.recall(key)
    known = Trial(**stored) if isinstance(stored, dict) and stored.keys() == asdict(Trial()).keys() else None
    if known is not None and not (measure and again and known.passing):
        return _of_mean_image(spec, known)
    if not measure:
        return None
    log.warning("measuring %s in %s, once for this machine", spec.name, how)
    trial = apart(spec)
    if twice and not trial.failed:
        trial = apart(spec)
    if trial.failed:
        log.warning("%s cannot run in %s here: %s", spec.name, how, trial.failed)
    measured.remember(key, asdict(trial))
    return _of_mean_image(spec, trial)


def share(spec: ModelSpec) -> float:
    """Return the work of a mean image as a share of the work that is timed, on the largest canvas.

    Forms and backends differ in their canvases: a form that is faster on the largest one may be slower on photographs.
    """
    name = methods.method(spec.name).share
    return float(methods.resolve(name)(spec)) if name else 1.0


def _of_mean_image(spec: ModelSpec, trial: Trial) -> Trial:
    return trial if trial.failed else replace(trial, seconds=trial.seconds * share(spec))


def apart(spec: ModelSpec, timed: str = "") -> Trial:
    """Try a way of computing a model in a process of its own; the errors are those of `trial`.

    Args:
        spec: of the model, with its batch, backend and form.
        timed: dotted name of the function that gives the session to be timed; the method's by default.
    """
    spec = replace(spec, batch=spec.batch or default_batch(spec.device), images=None)
    with processes.Child() as child:
        try:
            found: Trial = child.call(
                f"{__name__}:trial", timed or methods.method(spec.name).timed, spec, seconds=_LONGEST
            )
        except processes.ChildError as error:
            return Trial(failed=str(error))
    return found


def trial(timed: str, spec: ModelSpec) -> Trial:
    """Load a model in this process, and time it.

    Raises:
        UsageError: the model cannot be loaded in PyTorch.
        Exception: a fault of the program.
    """
    logging.getLogger("fgfast").addHandler(logging.NullHandler())  # the calling process logs what failed
    batch = spec.batch or 1
    try:
        with translated(spec.device):
            session = methods.resolve(timed)(spec)
            run, start = _run_of(session, batch), time.perf_counter()
            run()
            ready = time.perf_counter() - start
            seconds = seconds_of(session, _GPU_ROUNDS if session.device.type == "cuda" else _ROUNDS, batch)
    except Exception as error:
        if not _is_failure(error, spec):
            raise
        failed = " ".join(str(error).split())[:_TEXT] or type(error).__name__
        return Trial(failed=failed, passing=isinstance(error, DeviceMemoryError))
    return Trial(seconds / images_of(session, batch), ready, chosen="; ".join(chosen.sentences()))


def _is_failure(error: Exception, spec: ModelSpec) -> bool:
    """Whether an error says that a way of computing a model does not work, instead of that the program is wrong."""
    if isinstance(error, UsageError):  # an exported graph, or a provider that does not start
        return spec.backend != "torch"
    return isinstance(error, _FAILURES) or type(error).__module__.partition(".")[0] in _LIBRARIES


def remembered(key: str, device: str, how: str, measure: Callable[[], float] | None) -> float | None:
    """Return seconds as measured on this machine with today's packages; measure them now if they are not stored.

    Args:
        key: of the computation.
        device: that it runs on.
        how: the backend that computes it.
        measure: returns the seconds; None does not measure.

    Returns:
        Seconds; None if they are not stored and `measure` is None.
    """
    name = measured.key_of(f"{key} {how}", device)
    known = measured.recall(name)
    if isinstance(known, float):
        return known
    if measure is None:
        return None
    log.warning("measuring %s in %s, once for this machine", key, how)
    seconds = float(measure())
    measured.remember(name, seconds)
    return seconds


def seconds_per_image(model: SlotModel, inputs: tuple[Any, ...], rounds: int = _ROUNDS) -> float:
    """Return the seconds per image of a model on slots, in full batches.

    Args:
        model: to be timed.
        inputs: of every row.
        rounds: timed batches, after an untimed one; the fastest counts.
    """
    rows = model.rows(model.bucket(*inputs))
    slot = filled_slot(model, [inputs] * rows)
    return min(timeit.repeat(lambda: compute(model, slot, rows), number=1, repeat=rounds + 1)[1:]) / rows
