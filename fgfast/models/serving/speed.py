"""Which way of computing a model is fastest on this machine: measured once, remembered in the cache folder."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

import fgfast
from fgfast import ops
from fgfast.backends.session import Session, zeros
from fgfast.machine import available_cores, processor_name
from fgfast.records import Float32, Image
from fgfast.transfer import cache_folder

log = logging.getLogger("fgfast")

# Runs that are timed, after one that is not; the fastest counts.
_ROUNDS = 3
_PACKAGES = ("torch", "onnxruntime", "onnxruntime-gpu", "tensorrt")
# Seconds of what cannot be done.
_NEVER = 1e9
# Words of the vocabulary when Detic is timed: a few, or LVIS, hardly matter.
_CLASSES = 16


def seconds_of(session: Session, rounds: int = _ROUNDS, batch: int = 1) -> float:
    """Seconds of one run of a session on empty images; the arithmetic does not depend on what they show.

    Args:
        session: that runs.
        rounds: timed runs.
        batch: images, where any number goes.
    """
    sizes = dict.fromkeys(session.contract.free, 1) | {"classes": _CLASSES, "batch": batch}
    inputs = zeros(session.contract, sizes, session.device)
    if "sizes" in inputs:
        inputs["sizes"] += torch.tensor(inputs["pixels"].shape[1:3], device=session.device)
    times = []
    for turn in range(rounds + 1):
        start = time.perf_counter()
        session.run(inputs)
        if session.device.type == "cuda":
            torch.cuda.synchronize(session.device)
        if turn:
            times.append(time.perf_counter() - start)
    return min(times)


def fastest_form(key: str, make: Callable[[str], Session], device: str, batch: int = 1) -> str:
    """How PyTorch's graph runs fastest: as it stands, or compiled and recorded. On the CPU as it stands.

    What cannot be compiled here is said and not used.

    Args:
        key: what is measured, for the memory.
        make: the session in one of fgfast.backends.torch.FORMS.
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
            log.warning("%s cannot be %s here, it runs eager: %s", key, form, error)
            return _NEVER
        return seconds

    forms = ("eager", "compiled+recorded")
    key = key if batch == 1 else f"{key} x{batch}"
    seconds = {form: remembered(key, device, f"torch {form}", partial(measure, form)) for form in forms}
    return min(forms, key=lambda form: seconds[form] or _NEVER)


def remembered(key: str, device: str, how: str, measure: Callable[[], float] | None) -> float | None:
    """Seconds of what was measured on this machine with today's packages; measured now if it never was.

    What failed is not remembered: it may have been the moment's.

    Args:
        key: what is computed.
        device: where.
        how: by what.
        measure: does it; None leaves it.

    Returns:
        Seconds; None where it is not known and not to be measured.
    """
    name, known = _key(key, device, how), _read()
    if name not in known and measure is not None:
        log.warning("measuring %s in %s, once for this machine", key, how)
        seconds = measure()
        known = {**_read(), name: seconds}  # another process may have measured something else meanwhile
        if seconds < _NEVER:
            _write(known)
    return known.get(name)


def _key(what: str, device: str, how: str) -> str:
    """What a time depends on, in one line."""
    where = processor_name() + f" x{available_cores()}"
    if torch.device(device).type == "cuda":
        where = torch.cuda.get_device_name(torch.device(device))
    versions = [f"fgfast {fgfast.__version__} {ops.implementation()}"]
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{package} {importlib.metadata.version(package)}")
    return f"{what} {how} | {where} | {', '.join(versions)}"


def _file() -> Path:
    return cache_folder() / "speed.json"


def _read() -> dict[str, float]:
    try:
        content = json.loads(_file().read_text())
        return {str(key): float(value) for key, value in content.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _write(known: Mapping[str, float]) -> None:
    file = _file()
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(known, indent=1))
        os.replace(part, file)


def seconds_a_image(model: Any, image: Image, *boxes: Float32, rounds: int = _ROUNDS) -> float:
    """Seconds per image of a model on slots (see fgfast.models.serving.batches) in full batches.

    Args:
        model: the model.
        image: what it is given, again and again.
        boxes: a box (4,) float32 in its pixels for a segmenter; nothing for a detector.
        rounds: timed batches, after one that is not; the fastest counts.
    """
    bucket = model.bucket(image)
    slot, rows = model.slot(bucket), model.rows(bucket)
    for row in range(rows):
        model.fill(slot, row, image, *boxes)
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        model.launch(slot, rows)
        model.wait(slot)
        times.append(time.perf_counter() - start)
    return min(times[1:]) / rows
