"""The speed of models on this machine: measured once and stored in the cache folder."""

from __future__ import annotations

import logging
import timeit
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from fgfast.backends.session import Session, zeros
from fgfast.models.files import measured
from fgfast.runner import SlotModel, compute, filled_slot

log = logging.getLogger("fgfast")

# Timed runs, after an untimed one; the fastest counts.
_ROUNDS = 3
# Seconds of a form that does not work.
_NEVER = 1e9
# Words of the vocabulary when Detic is timed; the size of the vocabulary hardly matters.
_CLASSES = 16


def seconds_of(session: Session, rounds: int = _ROUNDS, batch: int = 1) -> float:
    """Return the seconds of one run of a session on black images; the arithmetic does not depend on their content.

    Args:
        session: to be timed.
        rounds: number of timed runs.
        batch: images per run, where the session takes any number.
    """
    sizes = dict.fromkeys(session.contract.free, 1) | {"classes": _CLASSES, "batch": batch}
    inputs = zeros(session.contract, sizes, session.device)
    if "sizes" in inputs:
        inputs["sizes"] += torch.tensor(inputs["pixels"].shape[1:3], device=session.device)

    def run() -> None:
        session.run(inputs)
        if session.device.type == "cuda":
            torch.cuda.synchronize(session.device)

    return min(timeit.repeat(run, number=1, repeat=rounds + 1)[1:])


def fastest_form(key: str, make: Callable[[str], Session], device: str, batch: int = 1) -> str:
    """Return the fastest form of PyTorch's graph: eager, or compiled and recorded. On the CPU it is eager.

    A form that cannot be compiled is logged and not used.

    Args:
        key: of the stored measurement.
        make: makes the session in one of fgfast.backends.torch.FORMS.
        device: as torch names it.
        batch: images per run.
    """
    if torch.device(device).type != "cuda":
        return "eager"

    def measure(form: str) -> float:
        try:
            session = make(form)
            seconds = seconds_of(session, batch=batch)
            session.close()
        except Exception as error:  # torch's compiler fails in many ways, none of which may end a run
            log.warning("%s cannot be %s here and runs eagerly: %s", key, form, error)
            return _NEVER
        return seconds

    forms = ("eager", "compiled+recorded")
    key = key if batch == 1 else f"{key} x{batch}"
    seconds = {form: remembered(key, device, f"torch {form}", partial(measure, form)) for form in forms}
    return min(forms, key=lambda form: seconds[form] or _NEVER)


def remembered(key: str, device: str, how: str, measure: Callable[[], float] | None) -> float | None:
    """Return seconds as measured on this machine with today's packages; measure them now if they are not stored.

    A failure is not stored, because it may be temporary.

    Args:
        key: of the computation.
        device: that it runs on.
        how: the backend or form that computes it.
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
    if seconds < _NEVER:
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
