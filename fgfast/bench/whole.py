"""`fgfast bench` alone: the machine in a few minutes, and a verdict against the paper's 0.3 s per image."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from fgfast.bench import floors, io, job, ops, pipeline
from fgfast.bench.job import Job
from fgfast.bench.result import Result, Row, envelope, rows_of
from fgfast.bench.text import figure
from fgfast.models.files.checkpoints import import_torch

# Images of each part: on a GPU seconds, on two cores of a server a minute each.
_IO_IMAGES = 300
_IMAGES = {"cpu": 6, "cuda": 400}
_REFERENCES = {"cpu": 1, "cuda": 4}
_ROUNDS = {"cpu": 1, "cuda": 5}


def measure(*, folder: Path, model_weights: str, say: Callable[[str], None]) -> Result:
    """Measure ops, files, models beside their references, and the whole job, each shortly.

    On a GPU the paper's models: SAM ViT-L and Detic. On a CPU SAM ViT-B, for ViT-L takes minutes there.

    Args:
        folder: where to work; says which disk is measured.
        model_weights: "cached", "random:SEED" or a file.
        say: told what is measured now.

    Returns:
        All rows, and the verdict as sentences.

    Raises:
        MissingExtraError: PyTorch is not installed.
        AssertionError: a result is not the reference's.
    """
    import_torch("fgfast bench")
    from fgfast.bench import models
    from fgfast.models.serving.devices import choose_device

    device = choose_device("auto")
    kind = device.partition(":")[0]
    name = "vit_b" if kind == "cpu" else "vit_l"
    what = Job(segmenter=f"sam_{name}", model_weights=model_weights, devices=(device,))
    parts: dict[str, Result] = {}
    say("1 of 6: ops")
    parts["ops"] = ops.measure(rounds=3, short=True)
    say("2 of 6: files, without models")
    parts["io"] = io.measure(images=_IO_IMAGES, rounds=2, workers=None, folder=folder)
    say(f"3 of 6: SAM {name} beside {models.named()}")
    parts["sam"] = models.measure_sam(name, rounds=_ROUNDS[kind], images=1, model_weights=model_weights, device=device)
    say("4 of 6: Detic beside its reference")
    # In a process of its own, which takes the models' memory with it.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        wanted = {"rounds": _ROUNDS[kind], "model_weights": model_weights, "device": device}
        parts["detic"] = alone.submit(_detic, wanted).result()
    say("5 of 6: the whole job without models")
    parts["null"] = pipeline.measure(job.null(), images=_IO_IMAGES, folder=folder)
    say(f"6 of 6: the whole job with Detic and SAM {name}")
    parts["job"] = pipeline.measure(what, images=_IMAGES[kind], folder=folder, references=_REFERENCES[kind])
    return combined(parts, kind, name)


def _detic(wanted: dict[str, Any]) -> Result:
    from fgfast.bench import detic

    return detic.measure(**wanted)


def combined(parts: dict[str, Result], kind: str, name: str) -> Result:
    """One result of all parts.

    Args:
        parts: "job", and which others there are.
        kind: "cpu" or "cuda".
        name: of the SAM in the job.
    """
    titles = {"ops": "ops", "io": "files", "sam": f"SAM {name}", "detic": "Detic", "null": "null models", "job": "job"}
    rows = [
        Row(row.name, row.value, row.unit, row.better, f"{titles[part]}: {row.group}".removesuffix(": "), row.rounds)
        for part in ("job", "null", "sam", "detic", "io", "ops")
        if part in parts
        for row in rows_of(parts[part])
    ]
    notes = dict.fromkeys(note for part in parts.values() for note in part["notes"])
    return envelope(
        "all",
        rows,
        title="What this machine does",
        rounds=1,
        notes=list(notes),
        headline=[f"job: {key}" for key in parts["job"]["headline"]] + ["null models: end to end: rate"],
        verdict=verdict(parts["job"], kind, name),
        plots=parts["job"].get("plots", {}) | {"bars": parts.get("ops", {}).get("plots", {}).get("bars", [])},
    )


def verdict(result: Result, kind: str, name: str) -> list[str]:
    """The whole job against the paper's figure, in sentences.

    Args:
        result: of the whole job.
        kind: of the device, "cpu" or "cuda".
        name: of the SAM.
    """
    rows = {row.key: row.value for row in rows_of(result)}
    seconds = rows["end to end: wall time per image"] / 1e3
    times = seconds / floors.PAPER_SECONDS
    against = f"{figure(1 / times)} times as fast as" if times < 1 else f"{figure(times)} times"
    told = f"{figure(seconds)} s per image from files to files, {against} the paper's {floors.PAPER_SECONDS} s."
    found = [told, "The paper had two RTX 3090, with Detic and SAM ViT-L."]
    floor = rows.get("arithmetic floor: all models: floor")
    if name != "vit_l":
        found.append(f"This was SAM {name}, which has a third of ViT-L's arithmetic: the figures are not of one job.")
    if kind == "cpu" and floor is not None:
        found.append(_of_processors(floor / 1e3, name))
    faster = rows.get("end to end: faster than the reference")
    if faster is not None:
        found.append(f"The references take {figure(faster)} times as long on the same images.")
    if floor is not None:
        found.append(_of_gap(result["gaps"], seconds, floor / 1e3))
    return found


def _of_processors(floor: float, name: str) -> str:
    """Whether a processor could reach the paper's figure, by its arithmetic alone."""
    scaled = floor * floors.gmac_total("vit_l") / floors.gmac_total(name)
    could = "could not" if scaled > floors.PAPER_SECONDS else "could"
    return (
        f"This is a processor: the arithmetic of Detic and ViT-L alone takes it {figure(scaled)} s per image at its "
        f"fastest matrix product, so it {could} reach the paper's figure whatever the program does."
    )


def _of_gap(gaps: Sequence[dict[str, Any]], seconds: float, floor: float) -> str:
    """What is furthest from the floor."""
    largest = gaps[0]
    return (
        f"The arithmetic floor is {figure(floor)} s, {figure(seconds / floor)} times less. The largest gap to it: "
        f"{largest['where']}, {figure(largest['ms'] / 1e3)} s per image."
    )
