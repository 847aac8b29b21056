"""The end of a run: the files about the whole twin, and the results of the run."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fgfast.datasets.layout import ImagePlacement
from fgfast.io import coco, listing
from fgfast.io.decisions import Decision, decided_in
from fgfast.io.earlier_run import whole_files
from fgfast.io.ledger_paths import in_folders
from fgfast.io.output import Output
from fgfast.io.provenance import add_run, write_run_json
from fgfast.io.report import write_page
from fgfast.io.stamps import described, states
from fgfast.io.summary import Summary
from fgfast.io.warned import captured
from fgfast.pipeline.flagging import flag_doubtful
from fgfast.pipeline.plan import Plan
from fgfast.pipeline.rate import remember_rate
from fgfast.pipeline.resume import Changes, Found
from fgfast.records import Sample, Status
from fgfast.writing import delete_files


@dataclass(frozen=True)
class Report:
    """The results of a run.

    Attributes:
        out: the output folder.
        twin: the folder of the twin inside it.
        html: the report for people.
        load: the line of Python that loads the twin with the usual loader; empty for a twin without images.
        total: number of selected samples, and of those that earlier runs with other selections finished.
        counts: status -> number of samples; they add up to `total` unless the run was stopped.
        flags: reason -> number of images flagged with it.
        failures: reason -> number of samples that failed with it.
        resumed: number of samples that earlier runs had finished.
        changes: what differs from the earlier run in the same output.
        seconds: wall-clock time from the first image to the last ledger entry, without the files about the whole twin
            (annotation files, COCO file, report).
        stopped: whether the run was stopped before the end.
        warnings: what makes many of the masks doubtful, one sentence each.
    """

    out: Path
    twin: Path
    html: Path
    load: str
    total: int
    counts: dict[Status, int]
    flags: dict[str, int]
    failures: dict[str, int]
    resumed: int
    seconds: float
    stopped: bool
    warnings: tuple[str, ...] = ()
    changes: Changes = field(default_factory=Changes)

    @property
    def rate(self) -> float:
        """Samples per second in this run."""
        return (sum(self.counts.values()) - self.resumed) / self.seconds if self.seconds > 0 else 0.0


def finish(plan: Plan, output: Output, found: Found, seconds: float, stopped: bool, cpu_threads: int) -> Report:
    """Write the files about the whole twin: annotation files, COCO, Parquet, run.json, report."""
    ledger, dataset = output.ledger, plan.dataset
    resumed = len(found.finished) - len(found.changes.decided)
    samples = {s.key: s for s in dataset.samples if s.key in found.selected or s.key in found.finished}
    decided = decided_here(output)
    flag_doubtful(ledger, decided.keys())
    seen, placed = describe(plan, output, samples)
    annotation_files = dataset.write_annotations(output.target(output.twin), placed)
    delete_earlier(output, {*annotation_files, *output.about_the_run}, (output.twin.name, output.ours.name))
    report = Report(
        out=output.out,
        twin=output.twin,
        html=output.report,
        load=dataset.load_line(output.twin, placed) if placed else "",
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
    remember_rate(plan, sum(report.counts.values()) - len(found.finished), seconds)
    runs = add_run(ledger, sum(report.counts.values()) - resumed, seconds)
    facts = write_run_json(
        output.target(output.run_json),
        title=plan.dataset.folder if plan.dataset.name == "folder" else plan.dataset.name,
        fingerprint=plan.fingerprint,
        reasons=[plan.paths.text(reason) for reason in plan.reasons],
        warnings=[plan.paths.text(warning) for warning in plan.warnings],
        source=plan.describe(),
        cpu_threads=cpu_threads,
        result={
            "total": report.total,
            "counts": report.counts,
            "load": plan.paths.text(report.load),
            **runs,
            **_decided(found.changes),
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
            decided=decided,
        )
    whole = sorted(path for path in {*annotation_files, *output.about_the_run} if path.is_file())
    about = {path.relative_to(output.out).as_posix(): described(path) for path in whole}
    ledger.set_meta({"whole_files": about, "clean": True, "lists_stale": False})
    return report


def decided_here(output: Output) -> dict[str, Decision]:
    """Return key -> decision in force, of those that hold in the twin: made about the image that it was made from."""
    found = {}
    for key, decision in decided_in(output.ours).items():
        row = output.ledger.outcome_of(key)
        if row is not None and (row.source.sha256 if row.source else b"") == decision.source:
            found[key] = decision
    return found


def _decided(changes: Changes) -> dict[str, object]:
    """Return, for run.json, the samples whose decisions or packed masks were not applied, where there are any."""
    lists = {"decisions_not_applied": changes.undecided, "not_from_the_pack": changes.unpacked}
    return {name: list(keys) for name, keys in lists.items() if keys}


def delete_earlier(output: Output, written: set[Path], folders: Sequence[str] | None) -> None:
    """Delete the files about the whole output that an earlier run wrote and this one did not.

    They lie in these folders; None means anywhere in the output. A file that is not as recorded is left alone: the
    ledger may be anybody's, and the file somebody else's.
    """
    earlier = [
        (path, output.out / path, stamp)
        for path, stamp in whole_files(output.ledger)
        if output.out / path not in written and (folders is None or in_folders(path, folders))
    ]
    delete_files(output.out, [path for path, state in states(earlier, read=True) if state == "same"])


def describe(plan: Plan, output: Output, samples: dict[str, Sample]) -> tuple[Summary, dict[str, ImagePlacement]]:
    """Write COCO, Parquet and the lists in one pass over the ledger; return its summary, and the images' placements."""
    seen, placed = Summary(samples), {}
    labels = output.ledger.labels()
    with contextlib.ExitStack() as files:
        about = labels, plan.dataset.classes, plan.dataset.name
        add = [files.enter_context(coco.instances(output.target(output.instances), *about))]
        add.append(files.enter_context(coco.instances(output.target(output.originals), *about, frame="original")))
        if plan.settings.masks == "rle":
            add.append(files.enter_context(coco.parquet(output.target(output.parquet))))
        listed = files.enter_context(listing.listings(output.target(output.ours)))
        for o in output.ledger.outcomes():
            seen.add(o)
            listed(o)
            if o.twin is not None:
                assert o.size is not None and o.twin_size is not None
                placed[o.key] = ImagePlacement(o.twin, o.offset, o.twin_size, o.size)
                for write in add:
                    write(o)
    return seen, placed
