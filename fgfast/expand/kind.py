"""What a kind of expansion is: it plans for the whole run, and makes the products of one subject at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from fgfast import seeds
from fgfast.errors import OutputRefusedError
from fgfast.expand.run_source import Outcomes
from fgfast.pipeline.twin import Twin
from fgfast.records import Bool, Outcome, Sample, UInt8
from fgfast.setting import Setting
from fgfast.writing import Target

NOTHING: Mapping[str, Any] = MappingProxyType({})


def option(default: Any, help: str, **more: Any) -> Any:
    """Return the field of a kind's options, as fgfast.config describes settings."""
    return field(default=default, metadata={"setting": Setting(help, **more)})


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """What is asked of a kind.

    Attributes:
        twin: the run, open in the parent; a kind must not keep it in its step.
        kind: the name of the kind.
        seed: the seed.
        usable: keys of all samples of the run that have a mask and are not left out (failed, skipped, flagged where
            flagged ones are not wanted), in the data set's order. What needs the whole set is decided among these,
            so that `--limit` changes nothing for the samples that it keeps.
        selected: those of them that get products now.
        outcomes: what the run's ledger says about each sample.
    """

    twin: Twin
    kind: str
    seed: int
    usable: tuple[str, ...]
    selected: tuple[str, ...]
    outcomes: Outcomes

    def outcome(self, key: str) -> Outcome:
        """Return what the run's ledger says about a usable sample: size, mask as run lengths, box. For any thread."""
        found = self.outcomes.of(key)
        if found is None:
            raise OutputRefusedError(f"{self.twin.out} no longer has the image {key}: a run is changing it; try again")
        return found

    def sample(self, key: str) -> Sample:
        """Return a sample of the data set."""
        return self.twin.sample(key)

    def number(self, *names: str) -> int:
        """Return a whole number that depends on the seed, the kind and these names alone."""
        return seeds.number(self.seed, self.kind, *names)


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """One sample with its mask, as a step gets it.

    Attributes:
        sample: the sample: key, label, split, boxes, keypoints, banner rows.
        pixels: (H, W, 3) uint8 RGB, the whole stored image, turned as the run turned it.
        bits: (H, W) bool; True is subject. It may be empty, or cover everything.
        given: what the plan decided for the sample.
        names: which generator this is: seed, kind, key.
    """

    sample: Sample
    pixels: UInt8
    bits: Bool
    given: Mapping[str, Any]
    names: tuple[int, str, str]

    @property
    def key(self) -> str:
        """The sample's key."""
        return self.sample.key

    def generator(self, *more: str) -> np.random.Generator:
        """Return the sample's random numbers; other names give other, independent ones."""
        return seeds.generator(*self.names, *more)


@dataclass(slots=True)
class Product:
    """What a step made of one subject. All that it names was announced in the plan.

    Attributes:
        images: data set's folder -> pixels, (h, w, 3) or (h, w, 4) uint8, encoded in the format of the expansion and
            written under the sample's name in that folder. All of them have the same size.
        offset: (x, y) of their top-left pixel in the stored image.
        files: folder -> content of the sample's file there, whose name ends as announced.
        several: (folder, file name) -> content; such a folder has a folder of files per sample.
        rows: table -> rows, each column -> value. Columns "key", "label" and "split" are added.
        flags: reasons to doubt the product, a few words each; the outcome is then "flagged".
        skipped: why the sample has no product, a sentence; all else is then ignored.
    """

    images: dict[str, UInt8] = field(default_factory=dict)
    offset: tuple[int, int] = (0, 0)
    files: dict[str, bytes] = field(default_factory=dict)
    several: dict[tuple[str, str], bytes] = field(default_factory=dict)
    rows: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    skipped: str = ""


Step = Callable[[Subject], Product]
"""Makes the products of a subject. It is pickled and called by several threads of several processes at once; it
loads at first use, under a lock. Raises SampleError where a sample cannot be used: it fails, the run continues."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the expansion, OUT/tables/NAME.parquet, in the data set's order.

    Attributes:
        name: its name.
        columns: column -> type: "string", "bool", "int32", "int64", "float32", "float64", "binary", or
            "list<TYPE>" of one of these; a value may be None. Key, label and split come before them.
    """

    name: str
    columns: Mapping[str, str]


class Made(Protocol):
    """The outcomes of all samples with products, read from the ledger each time: a million of them have gigabytes."""

    def __iter__(self) -> Iterator[Outcome]: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Ending:
    """What the end of an expansion knows, once every sample has an outcome.

    Attributes:
        target: relative POSIX path -> the place of that file of the output, to write to.
        outcomes: the outcomes of all samples with products, in the data set's order; `twin` is the path of the image
            in the first data set's folder.
        given: see `Planned.given`.
        rows: name of a table -> its rows, one after the other, with "key", "label" and "split", in the data set's
            order.
        found: sentences about what the kind found out; it adds them, and they stand among the choices of run.json and
            of the report.
    """

    target: Callable[[str], Target]
    outcomes: Made
    given: Callable[[str], Mapping[str, Any]]
    rows: Callable[[str], Iterator[Mapping[str, Any]]]
    found: list[str] = field(default_factory=list)


def no_given(key: str) -> Mapping[str, Any]:
    """Return the decisions about a sample of a kind that decides nothing."""
    return NOTHING


@dataclass(frozen=True)
class Planned:
    """The plan of a kind for a run.

    Attributes:
        step: makes the products.
        fingerprint: what changes the result besides the options and the masks: digests of files, versions of libraries.
        sets: folders of the data sets that are written, relative to the output, at most 2 levels; the first image is
            the one shown in the report. A data set's own loader reads each; empty for a kind without images.
        below: the folder of the source's keys that is left out of the names of images in `sets`, as "images" of CUB's
            keys in Waterbirds, whose lists and loaders name CLASS/FILE; empty where the keys are kept. It also is the
            first folder of every key, so that no two names become one.
        transparent: whether the images have an alpha channel.
        lossless: whether JPEG would spoil the images, as it does thin lines: "same" then means PNG.
        quality: 1..100 of JPEG and WebP, instead of the expansion's own; None leaves that.
        files: folder -> how the name of the sample's only file there ends, as in {"svg": ".svg"}.
        folders: folders with a folder of files per sample.
        shown: the folder of `files`, or folder/name of `several`, that is shown in the report, where there are no
            images: PNG or JPEG.
        tables: the tables.
        given: key -> what was decided for this sample, as plain values that JSON can hold; called once per sample, in
            the parent. A sample whose decisions changed is made again.
        unused: key -> why a selected sample gets no product, a sentence.
        reasons: what was chosen, a sentence each.
        warnings: what makes results doubtful, a sentence each.
        annotated: whether the source's annotation files are written for each of `sets`.
        finish: writes further files about the whole, and returns their paths relative to the output.
        load: the line of Python that loads the result, where it is not the source's. {out} and {twin} stand for the
            output's folder and that of the first data set, as strings of Python.
        workers: most worker processes; None for as many as there are cores.
        threads: threads of each worker process that call the step; more than one is for steps that wait.
        imports: modules that the step imports at first use; workers import them before their first image.
    """

    step: Step
    fingerprint: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    sets: tuple[str, ...] = ()
    below: str = ""
    transparent: bool = False
    lossless: bool = False
    quality: int | None = None
    files: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    folders: tuple[str, ...] = ()
    shown: str = ""
    tables: tuple[Table, ...] = ()
    given: Callable[[str], Mapping[str, Any]] = no_given
    unused: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    annotated: bool = True
    finish: Callable[[Ending], list[str]] | None = None
    load: str = ""
    workers: int | None = None
    threads: int = 1
    imports: tuple[str, ...] = ()


Plan = Callable[[Request, Any], Planned]
"""(request, the kind's options) -> plan; reads no image, writes nothing. Raises UsageError for what cannot be done."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One entry in the table of kinds.

    Attributes:
        name: its name on the command line.
        summary: what it makes, in a phrase.
        options: dotted name of a frozen dataclass of `option`s, "module:Class".
        plan: dotted name of its `Plan`, "module:function".
        needs: the extra of the package that it needs; empty for none.
    """

    name: str
    summary: str
    options: str
    plan: str
    needs: str = ""
