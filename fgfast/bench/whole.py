"""Measures the whole machine in a few minutes, and compares it with the paper's 0.3 s per image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fgfast import processes
from fgfast.bench import io, job, ops, pipeline
from fgfast.bench.job import Job
from fgfast.bench.result import Result, Row, envelope, rows_of
from fgfast.bench.roofline import gmac_of
from fgfast.bench.text import figure
from fgfast.models.files.checkpoints import import_torch

# Seconds per image in the paper (arXiv 2408.01998), on two RTX 3090.
PAPER_SECONDS = 0.3
# The images of each part: seconds on a GPU, a minute per part on two cores of a server.
_IO_IMAGES = 300
_IMAGES = {"cpu": 6, "cuda": 400}
_REFERENCES = {"cpu": 1, "cuda": 4}
_ROUNDS = {"cpu": 1, "cuda": 5}


def measure(*, folder: Path, model_weights: str, on_message: Callable[[str], None]) -> Result:
    """Measure ops, files, models beside their references, and the whole job, each briefly.

    On a GPU the models are those of the paper, SAM ViT-L and Detic. On a CPU, where ViT-L takes minutes, ViT-B takes
    its place.

    Args:
        folder: the folder to work in; its disk is measured.
        model_weights: "cached", "random:SEED" or a file.
        on_message: is called with a line about each part before it is measured.

    Returns:
        All rows, and the verdict as sentences.

    Raises:
        MissingExtraError: PyTorch is not installed.
        AssertionError: a result differs from that of the reference.
    """
    import_torch("fgfast bench")
    from fgfast.bench import models
    from fgfast.models.serving.devices import choose_device

    device = choose_device("auto")
    kind = device.partition(":")[0]
    name = "vit_b" if kind == "cpu" else "vit_l"
    what = Job(segmenter=f"sam_{name}", model_weights=model_weights, devices=(device,))
    parts: dict[str, Result] = {}
    on_message("1 of 6: ops")
    parts["ops"] = ops.measure(rounds=3, short=True)
    on_message("2 of 6: files, without models")
    parts["io"] = io.measure(images=_IO_IMAGES, rounds=2, cpu_threads=None, folder=folder)
    on_message(f"3 of 6: SAM {name} beside {models.named()}")
    parts["sam"] = models.measure_sam(name, rounds=_ROUNDS[kind], images=1, model_weights=model_weights, device=device)
    on_message("4 of 6: Detic beside its reference")
    # A process of its own frees the memory of the models when it ends.
    with processes.Child() as alone:
        parts["detic"] = alone.call(f"{__name__}:_detic", _ROUNDS[kind], model_weights, device)
    on_message("5 of 6: the whole job without models")
    parts["null"] = pipeline.measure(job.null(), images=_IO_IMAGES, folder=folder)
    on_message(f"6 of 6: the whole job with Detic and SAM {name}")
    parts["job"] = pipeline.measure(what, images=_IMAGES[kind], folder=folder, references=_REFERENCES[kind])
    return combined(parts, kind, name)


def _detic(rounds: int, model_weights: str, device: str) -> Result:
    from fgfast.bench import detic

    return detic.measure(rounds=rounds, model_weights=model_weights, device=device)


def combined(parts: dict[str, Result], kind: str, name: str) -> Result:
    """Combine all parts in one result.

    Args:
        parts: the results by name: "job", and any of "null", "sam", "detic", "io", "ops".
        kind: "cpu" or "cuda".
        name: the SAM of the job, "vit_b" or "vit_l".
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
        plots=parts.get("ops", {}).get("plots", {}) | parts["job"].get("plots", {}),
    )


def verdict(result: Result, kind: str, name: str) -> list[str]:
    """Compare the whole job with the paper's figure, in sentences.

    Args:
        result: the result of the whole job.
        kind: the kind of the device, "cpu" or "cuda".
        name: the SAM of the job, "vit_b" or "vit_l".
    """
    rows = {row.key: row.value for row in rows_of(result)}
    seconds = rows["end to end: wall time per image"] / 1e3
    times = seconds / PAPER_SECONDS
    against = f"{figure(1 / times)} times as fast as" if times < 1 else f"{figure(times)} times"
    found = [f"{figure(seconds)} s per image from files to files, {against} the paper's {PAPER_SECONDS} s."]
    found.append("The paper had two RTX 3090, with Detic and SAM ViT-L.")
    floor = rows.get("arithmetic floor: all models: floor")
    if name != "vit_l":
        found.append(f"This was SAM {name}, which has a third of ViT-L's arithmetic: the figures are not of one job.")
    if kind == "cpu" and floor is not None:
        detic = gmac_of("detic")
        paper = floor / 1e3 * (detic + gmac_of("sam_vit_l")) / (detic + gmac_of(f"sam_{name}"))
        could = "could not" if paper > PAPER_SECONDS else "could"
        found.append(
            f"This is a processor: the arithmetic of Detic and ViT-L alone takes it {figure(paper)} s per image at its "
            f"fastest matrix product, so it {could} reach the paper's figure whatever the program does."
        )
    faster = rows.get("end to end: faster than the reference")
    if faster is not None:
        found.append(f"The references take {figure(faster)} times as long on the same images.")
    if floor is not None:
        largest = result["gaps"][0]
        found.append(
            f"The arithmetic floor is {figure(floor / 1e3)} s, {figure(1e3 * seconds / floor)} times less. The largest "
            f"gap to it: {largest['where']}, {figure(largest['ms'] / 1e3)} s per image."
        )
    return found
