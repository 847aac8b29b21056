"""The end of an expansion: tables, annotation files, lists, run.json, report."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from fgfast.datasets.layout import ImagePlacement
from fgfast.expand import tables
from fgfast.expand.kind import Ending
from fgfast.expand.plan import ExpandPlan
from fgfast.io import coco, listing
from fgfast.io.ledger import Ledger
from fgfast.io.output import Output
from fgfast.io.provenance import add_run, write_run_json
from fgfast.io.report import write_page
from fgfast.io.stamps import described
from fgfast.io.summary import Summary
from fgfast.io.warned import captured
from fgfast.pipeline.finish import Report, delete_earlier
from fgfast.pipeline.resume import Found
from fgfast.records import Outcome, Sample


def finish(
    plan: ExpandPlan, output: Output, found: Found, seconds: float, stopped: bool, cpu_threads: int, chosen: list[str]
) -> Report:
    """Write the files about the whole expansion; see `fgfast.pipeline.finish`."""
    ledger, dataset = output.ledger, plan.dataset
    resumed = len(found.finished)
    samples = {s.key: s for s in dataset.samples if s.key in found.selected or s.key in found.finished}
    seen, placed = _in_one_pass(plan, output, samples)
    written = [*_annotations(plan, output, placed), *_tables(plan, output)]
    own, sentences = _of_the_kind(plan, output)
    written += own
    delete_earlier(output, {*written, *output.about_the_run}, None)
    report = Report(
        out=output.out,
        twin=output.twin,
        html=output.report,
        load=_load(plan, output, placed),
        total=found.total,
        counts=ledger.counts(),
        flags=dict(seen.reasons["flagged"].most_common()),
        failures=dict(seen.reasons["failed"].most_common()),
        resumed=resumed,
        seconds=seconds,
        stopped=stopped and sum(ledger.counts().values()) < found.total,
        warnings=plan.warnings,
        changes=found.changes,
    )
    text = plan.paths.text
    facts = write_run_json(
        output.target(output.run_json),
        title=f"{plan.twin.title}: {plan.kind.name}",
        fingerprint=plan.fingerprint,
        reasons=[text(reason) for reason in (*plan.reasons, *chosen, *sentences)],
        warnings=[text(warning) for warning in plan.warnings],
        source=plan.describe(),
        cpu_threads=cpu_threads,
        result={
            "total": report.total,
            "counts": report.counts,
            "load": text(report.load),
            **add_run(ledger, sum(report.counts.values()) - resumed, seconds),
        },
    )
    with captured():  # thumbnails are decoded again
        write_page(
            output.target(output.report),
            seen,
            facts=facts,
            total=report.total,
            samples=samples,
            twin=output.twin,
            turn_exif=dataset.turn_exif,
        )
    whole = sorted(path for path in {*written, *output.about_the_run} if path.is_file())
    about = {path.relative_to(output.out).as_posix(): described(path) for path in whole}
    ledger.set_meta({"whole_files": about, "clean": True, "lists_stale": False})
    return report


class _Made:
    """The outcomes of samples with products, in the data set's order; see `fgfast.expand.kind.Made`."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def __iter__(self) -> Iterator[Outcome]:
        return self._ledger.outcomes(("done", "flagged"))

    def __len__(self) -> int:
        counts = self._ledger.counts()
        return counts["done"] + counts["flagged"]


def _in_one_pass(
    plan: ExpandPlan, output: Output, samples: dict[str, Sample]
) -> tuple[Summary, dict[str, ImagePlacement]]:
    """Write the lists and COCO instances in one pass over the ledger.

    Returns:
        The ledger's summary, and the placement of each image in a data set's folder.
    """
    seen, placed = Summary(samples), dict[str, ImagePlacement]()
    with contextlib.ExitStack() as files:
        listed = files.enter_context(listing.listings(output.target(output.ours)))
        add = None
        if plan.planned.sets:
            about = output.ledger.labels(), plan.dataset.classes, plan.dataset.name
            add = files.enter_context(coco.instances(output.target(output.instances), *about))
        for o in output.ledger.outcomes():
            seen.add(o)
            listed(o)
            if o.twin is not None and add is not None:
                assert o.size is not None and o.twin_size is not None
                placed[o.key] = ImagePlacement(plan.names.image_in_set(o.key), o.offset, o.twin_size, o.size)
                add(o)
    return seen, placed


def _annotations(plan: ExpandPlan, output: Output, placed: dict[str, ImagePlacement]) -> list[Path]:
    """Write the source's annotation files for each data set; return them."""
    if not plan.planned.annotated:
        return []
    return [
        path
        for folder in plan.planned.sets
        for path in plan.dataset.write_annotations(output.target(output.out / folder), placed)
    ]


def _tables(plan: ExpandPlan, output: Output) -> list[Path]:
    """Write the tables; return their files."""
    ledger, found = output.ledger, []
    if plan.planned.tables:
        labels, splits = ledger.labels(), ledger.splits()
        for table in plan.planned.tables:
            path = output.out / tables.FOLDER / f"{table.name}.parquet"
            tables.write(output.target(path), ledger, table, labels, splits)
            found.append(path)
    return found


def _of_the_kind(plan: ExpandPlan, output: Output) -> tuple[list[Path], list[str]]:
    """Let the kind write its own files about the whole; return them, and what it found out."""
    if plan.planned.finish is None:
        return [], []
    ledger = output.ledger
    labels, splits = ledger.labels(), ledger.splits()
    by_name = {table.name: table for table in plan.planned.tables}
    ending = Ending(
        target=lambda path: output.target(output.out / path),
        outcomes=_Made(ledger),
        given=plan.planned.given,
        rows=lambda name: partial(tables.plain_rows, ledger, by_name[name])(labels, splits),
    )
    return [output.out / path for path in plan.planned.finish(ending)], ending.found


def _load(plan: ExpandPlan, output: Output, placed: dict[str, ImagePlacement]) -> str:
    """Return the line of Python that loads the result."""
    if plan.planned.load or not placed or not plan.planned.sets:
        places = {"{out}": output.out, "{twin}": output.out / next(iter(plan.planned.sets), "")}
        return re.sub(r"\{(out|twin)\}", lambda found: repr(str(places[found[0]].absolute())), plan.planned.load)
    return plan.dataset.load_line(output.out / plan.planned.sets[0], placed)
