"""The plan of an expansion: run, kind, what is decided for the whole, names; made before anything is written."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import fgfast
from fgfast.config import Selection
from fgfast.datasets.layout import Dataset
from fgfast.errors import OutputRefusedError, UnknownNameError, UsageError
from fgfast.expand import tables
from fgfast.expand.chosen import chosen
from fgfast.expand.kind import Kind, Planned, Request
from fgfast.expand.names import Names
from fgfast.expand.options import check_options, plain, without_paths
from fgfast.expand.run_source import FLAGGED, Usable, mask_digest
from fgfast.expand.table import kind as kind_named
from fgfast.expand.table import resolve
from fgfast.io.encode import FORMAT_SUFFIXES
from fgfast.io.output import Output
from fgfast.io.portable_paths import PortablePaths
from fgfast.models.grabcut import opencv_version
from fgfast.pipeline.twin import Twin, folder_name
from fgfast.records import Outcome, Sample

FORMATS = ("same", *FORMAT_SUFFIXES)


@dataclass(frozen=True, slots=True)
class How:
    """How an expansion is made, whatever its kind.

    Attributes:
        seed: of everything that is drawn at random.
        flagged: "use", or "skip" to pass over samples that the run flagged.
        format: of images, "same" (as each name says), "png", "jpeg" or "webp".
        quality: of JPEG and WebP, 1..100.
    """

    seed: int = 0
    flagged: str = "use"
    format: str = "same"
    quality: int = 95

    def __post_init__(self) -> None:
        for name, value, known in (("flagged", self.flagged, FLAGGED), ("format", self.format, FORMATS)):
            if value not in known:
                raise UnknownNameError(name, value, known)
        if not 1 <= self.quality <= 100:
            raise UsageError(f"quality must be a whole number from 1 to 100, not {self.quality}")

    def for_kind(self, planned: Planned) -> How:
        """Return it with what the kind demands of the images.

        Raises:
            UsageError: the images have transparency, and the format cannot.
        """
        if planned.transparent and self.format == "jpeg":
            raise UsageError("images with transparency cannot be JPEG: choose --format png or webp")
        png = (planned.transparent or planned.lossless) and self.format == "same"
        return replace(self, format="png" if png else self.format, quality=planned.quality or self.quality)


@dataclass(frozen=True)
class ExpandPlan(contextlib.AbstractContextManager["ExpandPlan"]):
    """The plan of an expansion; a context manager, which holds the run open for reading.

    Attributes:
        twin: the run.
        kind: the kind.
        options: the kind's options.
        request: what was asked of the kind.
        planned: what the kind planned.
        usable: what the run offers.
        names: the names of all files.
        selection: the requested selection.
        positions: positions of the selected samples in the data set's order, those without a product among them.
        excluded: keys of the samples that the selection leaves out by name.
        out: the output folder.
        how: seed, format and the like.
        fingerprint: everything that changes the result, besides the masks; see `digest`.
        reasons: one sentence per choice.
    """

    twin: Twin
    kind: Kind
    options: Any
    request: Request
    planned: Planned
    usable: Usable
    names: Names
    selection: Selection
    positions: tuple[int, ...]
    excluded: frozenset[str]
    out: Path
    how: How
    fingerprint: dict[str, Any]
    reasons: tuple[str, ...]

    def __exit__(self, *exc: object) -> None:
        self.twin.close()

    @property
    def dataset(self) -> Dataset:
        """The data set of the run."""
        return self.twin.dataset

    @property
    def selected(self) -> tuple[Sample, ...]:
        """The selected samples, in the data set's order."""
        return tuple(self.dataset.samples[n] for n in self.positions)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes results doubtful."""
        return self.planned.warnings

    @property
    def paths(self) -> PortablePaths:
        """How the files of the output name what is outside it."""
        return PortablePaths(self.out, Path(self.dataset.root))

    @property
    def folder(self) -> str:
        """The folder of the output whose images the report shows."""
        shown = self.planned.shown or (self.names.top[0] if self.names.top else tables.FOLDER)
        return (self.planned.sets[0] if self.planned.sets else shown).partition("/")[0]

    def output(self) -> Output:
        """Return the output, which this does not open."""
        return Output(self.out, self.folder, [name for name in (*self.names.top, tables.FOLDER) if name != self.folder])

    def shown(self, key: str) -> str:
        """Return the path, below `folder`, of the image of a sample that the report shows; it need not exist."""
        planned, names = self.planned, self.names
        if planned.sets:
            path = names.image(planned.sets[0], key)
        elif planned.shown in planned.files:
            path = names.file(planned.shown, key)
        elif planned.shown:
            folder, _, name = planned.shown.partition("/")
            path = names.several(folder, key, name)
        elif planned.files:
            path = names.file(next(iter(planned.files)), key)
        else:
            return key
        return path.removeprefix(f"{self.folder}/")

    def digest(self, sample: Sample, outcome: Outcome | None = None, given: Mapping[str, Any] | None = None) -> bytes:
        """Return the digest of what the products of a sample depend on besides the fingerprint.

        Args:
            sample: the sample.
            outcome: its outcome in the run, where it is at hand.
            given: what the kind decided for it, where that is at hand.
        """
        outcome = outcome or self.request.outcome(sample.key)
        if sample.key in self.planned.unused:
            return mask_digest(outcome, sample, self.planned.unused[sample.key].encode())
        given = self.planned.given(sample.key) if given is None else given
        return mask_digest(outcome, sample, json.dumps(dict(given), sort_keys=True).encode())

    def describe(self) -> dict[str, Any]:
        """What the expansion is made from, as plain values."""
        path, source = self.paths.path, self.twin.source
        return {
            "expansion": self.kind.name,
            "run": path(str(self.twin.out)),
            "run_sha256": self.usable.digest,
            "dataset": source.dataset,
            "root": path(str(source.root)),
            "labels": source.labels,
            "follow_links": source.follow_links,
            "seed": self.how.seed,
            "flagged": self.how.flagged,
            "options": {name: without_paths(value, path) for name, value in plain(self.options).items()},
            "selection": {**asdict(self.selection), "exclude": [path(file) for file in self.selection.exclude]},
        }


def make_plan(
    run: str | Path,
    kind: str,
    out: str | Path | None = None,
    *,
    options: Any = None,
    how: How | None = None,
    root: str | Path | None = None,
    selection: Selection | None = None,
) -> ExpandPlan:
    """Open a run, and let a kind plan its expansion; nothing is written.

    Args:
        run: the output folder of a run of convert.
        kind: the kind's name.
        out: the output folder; default RUN_KIND in the current folder.
        options: the kind's options; default those without a value given.
        how: seed, format and the like.
        root: the data set's folder, where it has moved since the run.
        selection: the samples; default all of the run's.

    Raises:
        UsageError: the request cannot be carried out as given.
        OutputRefusedError: RUN holds no run, or the output folder must not be written to.
        DatasetError: an annotation file is malformed.
        MissingExtraError: the kind needs a package that is not installed.
    """
    entry = kind_named(kind)
    given = options if options is not None else resolve(entry.options)()
    check_options(given)
    place = Path(run)
    twin = Twin(place, None if root is None else Path(root))
    try:
        return _made(twin, entry, given, out, selection or Selection(), how or How())
    except BaseException:
        twin.close()
        raise


def _made(
    twin: Twin,
    kind: Kind,
    options: Any,
    out: str | Path | None,
    selection: Selection,
    how: How,
) -> ExpandPlan:
    usable = Usable(twin, how.flagged)
    if not usable.keys:
        raise UsageError(
            f"{twin.out} has no image with a mask to use: {'; '.join(usable.sentences()) or 'it is empty'}"
        )
    request, positions, excluded = chosen(twin, kind, how.seed, selection, usable)
    planned: Planned = resolve(kind.plan)(request, options)
    how = how.for_kind(planned)
    names = Names(
        [sample.key for sample in twin.dataset.samples],
        planned.sets,
        planned.files,
        planned.folders,
        format=how.format,
        keep_names=twin.dataset.fixed_names and not planned.transparent,
        below=planned.below,
    )
    plan = ExpandPlan(
        twin=twin,
        kind=kind,
        options=options,
        request=request,
        planned=planned,
        usable=usable,
        names=names,
        selection=selection,
        positions=positions,
        excluded=excluded,
        out=Path(out) if out is not None else Path(f"{folder_name(twin.out)}_{kind.name}"),
        how=how,
        fingerprint=_fingerprint(twin, kind, options, planned, how),
        reasons=(*usable.sentences(), *planned.reasons, *_unused(planned)),
    )
    _check_place(plan, given=out is not None)
    return plan


def _fingerprint(twin: Twin, kind: Kind, options: Any, planned: Planned, how: How) -> dict[str, Any]:
    result = {f.name for f in fields(options) if f.metadata["setting"].result}
    return {
        "fgfast": fgfast.__version__,
        "opencv": opencv_version(),
        "expansion": kind.name,
        "dataset": twin.source.dataset,
        "labels": twin.source.labels,
        "seed": how.seed,
        "format": how.format,
        "quality": how.quality,
        **{n: without_paths(value, lambda p: Path(p).name) for n, value in plain(options).items() if n in result},
        **planned.fingerprint,
    }


def _unused(planned: Planned) -> list[str]:
    """Return how many samples get no product, by reason."""
    return [f"{count:,} without a product: {why}" for why, count in Counter(planned.unused.values()).most_common(5)]


def _check_place(plan: ExpandPlan, given: bool) -> None:
    """Refuse an output that must not be written to."""
    if not given and plan.out.is_symlink():
        raise OutputRefusedError(f"{plan.out} is a link, which could lead anywhere: give it with --out if it is yours")
    out, run = plan.out.resolve(), plan.twin.out.resolve()
    if out == run or run in out.parents or out in run.parents:
        raise OutputRefusedError(f"the output {out} is inside the run {run}, or contains it: choose another folder")
    plan.output().check(Path(plan.dataset.root))
