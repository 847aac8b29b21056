"""Measures the whole job, from files to files: cost of stages, load of devices, distance from the floor.

The references do the same job on the same images, one image after the other; results are compared before anything is
quoted. The costs of the stages follow from the events of fgfast's runner.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from fgfast.bench import account, events, job, reference, roofline
from fgfast.bench.job import Images, Job, Ran
from fgfast.bench.result import Result, Row, envelope
from fgfast.bench.roofline import Roof
from fgfast.methods import Precision, plain_precision
from fgfast.writing import scratch_folder

# The approximate bytes that an image moves besides the weights: SAM's square and its embeddings, Detic's canvas and its
# pyramid.
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
    """Run a job and measure what it costs.

    Args:
        what: the job; `job.null()` has no models.
        images: the number of images.
        folder: the folder to work in; its disk is measured.
        rounds: runs of the job; medians are quoted, and "plots" belong to the last run.
        references: the number of images that the references process before the job; 0 leaves the references out.

    Returns:
        Rows of the whole job, of each stage, of each device, of the floor and of the reference.

    Raises:
        AssertionError: float32 differs from the reference, or an image failed.
    """
    with scratch_folder("fgfast-bench-", folder) as scratch:
        source = job.make_images(scratch / "source", images)
        theirs, notes = _references(what, source, min(references, images), scratch)
        runs = [job.run(what, source, scratch / "out") for _ in range(rounds)]
        ran = runs[-1]
        against = reference.compare(theirs, ran, ran.plan.settings.precision == "fp32") if theirs else []
        against += _against(theirs, runs) if theirs else []
    rows = account.end_to_end(runs) + account.of_devices(runs) + account.of_stages(runs)
    roofs = roofs_of(what, ran)
    models = account.spent(ran, what, roofs, source.sizes) if roofs else []
    rows += account.of_floor(ran, models, roofs) + against
    plots: dict[str, Any] = {"events": ran.events}
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
        choices=[*ran.plan.reasons, *ran.messages],
        gaps=[gap._asdict() for gap in account.gaps(ran, models)] if models else [],
        plots=plots,
    )


def roofs_of(what: Job, ran: Ran) -> list[Roof]:
    """Measure the peak performance of each device that computed models; of a quantised run, in its plain precision."""
    batches = [cost.items / cost.pieces for cost in events.costs(ran.events) if cost.device]
    batch = max(1, round(statistics.fmean(batches))) if batches else 1
    precision = plain_precision(cast(Precision, ran.plan.settings.precision))
    return [roofline.measure(what.models, device, precision, batch) for device in account.devices(ran)]


def _references(what: Job, source: Images, count: int, scratch: Path) -> tuple[list[reference.Answer], list[str]]:
    """Run the references on the first images; return their answers, and notes about them."""
    if not count or not what.models:
        return [], []
    if why := reference.lacking(what):
        return [], [f"Without reference: {why}."]
    from fgfast.models.serving.devices import choose_device

    device = what.devices[0] if what.devices else choose_device("auto")
    answers, named = reference.answers(what, source, count, scratch / "reference", device)
    return answers, [f"Reference: {named}; float32, one image after the other, not durable."]


def _against(theirs: Sequence[reference.Answer], runs: Sequence[Ran]) -> list[Row]:
    """Return the rows that compare the reference's wall time per image with fgfast's."""
    seconds = [answer.seconds for answer in theirs]
    ratios = [statistics.median(seconds) * run.rate for run in runs]
    return [
        Row.of("wall time per image, reference", [1e3 * s for s in seconds], "ms", "lower", "end to end"),
        Row.of("faster than the reference", ratios, "times", "higher", "end to end"),
    ]


def _bytes(own: account.Spent, roof: Roof) -> float:
    """Return the least bytes that a model moves per image: its weights once per batch, its inputs and outputs."""
    return roofline.parameters(own.model) * (4 if roof.precision == "fp32" else 2) / own.batch + _BYTES


def _notes(what: Job, ran: Ran) -> list[str]:
    found = []
    if what.models and what.model_weights.startswith("random"):
        found.append(f"The weights are random ({what.model_weights}); the arithmetic does not depend on them.")
    if what.models and not events.has_models(ran.events):
        found.append("No event was the forward of a model: devices and floors could not be measured.")
    first, last = events.span(ran.events)
    found.append(
        f"The rate is {ran.report.total} images over the {last - first:.1f} s from the first event to the last; the "
        "models are loaded before, and the report is written after."
    )
    return found
