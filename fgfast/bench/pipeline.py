"""The whole job, from files to files: what each stage costs, how busy the devices are, how far from the floor.

Beside it, on the same images, the references one image after the other; results are compared before anything is
quoted. Stages are told apart by the events of fgfast's runner.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fgfast.bench import account, floors, job, reference
from fgfast.bench import events as told
from fgfast.bench.floors import Roof
from fgfast.bench.job import Images, Job, Ran
from fgfast.bench.result import Result, Row, envelope

# Bytes per image moves besides the weights: SAM's square and its embeddings, Detic's canvas and its pyramid, roughly.
_BYTES = 8e6
_HEADLINE = (
    "end to end: rate",
    "end to end: wall time per image",
    "end to end: time outside the models' forward",
    "end to end: faster than the reference",
    "arithmetic floor: wall time / floor",
    "end to end: peak memory, all processes",
)


def measure(what: Job, *, images: int, folder: Path, rounds: int = 1, references: int = 2) -> Result:
    """Run a job and tell what it cost.

    Args:
        what: the job; `job.null()` for one without models.
        images: how many.
        folder: where to work; says which disk is measured.
        rounds: runs of the job; medians are quoted, plots are of the last one.
        references: so many of the images are done by the references too, first; 0 leaves them out.

    Returns:
        Rows end to end, of each stage, of each device, of the floor, of the reference.

    Raises:
        AssertionError: float32 is not what the reference computes, or an image failed.
    """
    with tempfile.TemporaryDirectory(prefix="fgfast-bench-", dir=folder) as scratch:
        source = job.make_images(Path(scratch) / "source", images)
        theirs, notes = _references(what, source, min(references, images), Path(scratch))
        runs = [job.run(what, source, Path(scratch) / "out") for _ in range(rounds)]
        ran = runs[-1]
        same = reference.compare(theirs, ran, ran.plan.settings.precision == "fp32") if theirs else []
    rows = account.end_to_end(runs) + account.of_devices(runs) + account.of_stages(runs)
    roofs = roofs_of(what, ran)
    models = account.spent(ran, what, roofs, source.sizes) if roofs else []
    rows += account.of_floor(ran, models, roofs) + same + _against(theirs, runs)
    plots = account.plots(ran)
    if models:
        plots["roofline"] = account.roofline(models, roofs, {own.model: _bytes(own, roofs[0]) for own in models})
    return envelope(
        "pipeline" if what.models else "pipeline-null",
        rows,
        title=f"From files to files: {what.title}",
        rounds=rounds,
        notes=notes + _notes(what, ran),
        headline=_HEADLINE,
        images=images,
        image=source.about,
        choices=[*ran.plan.reasons, *ran.said],
        gaps=[gap._asdict() for gap in account.gaps(ran, models)] if models else [],
        plots=plots,
    )


def roofs_of(what: Job, ran: Ran) -> list[Roof]:
    """What each device that computed models gives at most, measured now."""
    batches = [cost.items / cost.pieces for cost in told.costs(ran.events) if cost.device]
    batch = max(1, round(statistics.fmean(batches))) if batches else 1
    precision = ran.plan.settings.precision
    return [floors.measure(what.models, device, precision, batch) for device in account.devices(ran)]


def _references(what: Job, source: Images, count: int, scratch: Path) -> tuple[list[reference.Answer], list[str]]:
    """What the references make of the first images, and what is to be said about it."""
    if not count or not what.models:
        return [], []
    if why := reference.lacking(what):
        return [], [f"Without reference: {why}."]
    answers, named = reference.answers(what, source, count, scratch / "reference", _device(what))
    return answers, [f"Reference: {named}; float32, one image after the other, not durable."]


def _device(what: Job) -> str:
    """Where the reference computes: on the job's first device."""
    from fgfast.models.serving.devices import choose_device

    return what.devices[0] if what.devices else choose_device("auto")


def _against(theirs: Sequence[reference.Answer], runs: Sequence[Ran]) -> list[Row]:
    """Wall time per image of the reference beside ours."""
    if not theirs:
        return []
    seconds = [answer.seconds for answer in theirs]
    ratios = [statistics.median(seconds) * run.rate for run in runs]
    return [
        Row.of("wall time per image, reference", [1e3 * s for s in seconds], "ms", "lower", "end to end"),
        Row.of("faster than the reference", ratios, "times", "higher", "end to end"),
    ]


def _bytes(own: account.Spent, roof: Roof) -> float:
    """Bytes per image of a model moves at least: its weights once a batch, and what goes in and out."""
    return floors.parameters(own.model) * (4 if roof.precision == "fp32" else 2) / own.batch + _BYTES


def _notes(what: Job, ran: Ran) -> list[str]:
    found = []
    if what.models and what.model_weights.startswith("random"):
        found.append(f"Weights {what.model_weights}: made up. The arithmetic does not depend on them.")
    if what.models and not told.has_models(ran.events):
        found.append("No event was a model's forward: devices and floors could not be measured.")
    first, last = told.span(ran.events)
    found.append(
        f"Rate: {ran.report.total} images over the {last - first:.1f} s from the first event to the last; models "
        "are loaded before, the report is written after."
    )
    return found
