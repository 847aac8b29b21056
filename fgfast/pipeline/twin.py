"""A finished or killed run, as it lies in its output folder: keys, images, masks, labels. Nothing is changed.

Everything is found from the output alone: the ledger's meta names the data set, its folder, label list, selection and
background. The ledger may come from anybody; what it names is read through the guards of the rooms below.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fgfast import ops
from fgfast.data_paths import DataPath
from fgfast.datasets import Dataset, layout_named, open_dataset
from fgfast.datasets.layout import locate
from fgfast.errors import OutputRefusedError, UsageError
from fgfast.files import read_regular
from fgfast.io.decode import decode, read_bytes
from fgfast.io.ledger import Ledger
from fgfast.io.output import Output
from fgfast.io.portable_paths import resolved
from fgfast.io.stamps import states
from fgfast.records import STATUSES, Bool, Image, Outcome, Sample, Status

# A run.json is a few kilobytes, and a megabyte where a thousand images have sentences in it.
_MOST_BYTES = 1 << 26


def ledger_in(out: Path) -> Path:
    """Return the path of the ledger of an output.

    Raises:
        OutputRefusedError: there is no folder, or it holds no run.
    """
    path = out / "fgfast" / "ledger.sqlite"
    if not out.is_dir():
        raise OutputRefusedError(f"there is no folder {out.absolute()}")
    if not path.is_file():
        for around in out.absolute().parents:
            if (around / "fgfast" / path.name).is_file():
                raise OutputRefusedError(f"{out.absolute()} is inside an output: give the folder around it, {around}")
    if not path.is_file():
        raise OutputRefusedError(f"{out.absolute()} holds no run of fgfast: there is no {path.relative_to(out)} in it")
    return path


def folder_name(out: Path) -> str:
    """Return the name of an output folder, also where it was given as "." or ".."."""
    name = out.absolute().name
    return name if name not in ("", "..") else out.resolve().name


def check_begun(ledger: Ledger, out: Path) -> None:
    """Raise unless a run was begun in the output of a ledger.

    Raises:
        OutputRefusedError: none was.
    """
    if ledger.meta("fingerprint") is None:
        raise OutputRefusedError(f"{ledger.path} is not a ledger of a run: none was begun in {out.absolute()}")


def output_of(ledger: Ledger, out: Path) -> Output:
    """Return the output of a ledger, which is not opened by this.

    Raises:
        OutputRefusedError: no run of convert was begun in it, or it was being deleted.
    """
    check_begun(ledger, out)
    if kind := (ledger.meta("fingerprint") or {}).get("expansion"):
        run = resolved(str((ledger.meta("source") or {}).get("run", "")), out)
        raise OutputRefusedError(f"{out} is an expansion ({kind}), not a run of convert: give the run, {run}")
    if ledger.meta("being_deleted"):
        raise OutputRefusedError(
            f"the run in {out} was being deleted: finish that with --overwrite, or choose another output"
        )
    return Output(out, str(ledger.meta("folder") or ""))


def facts_in(run_json: Path) -> dict[str, Any]:
    """Return the content of run.json; empty where the run was killed before it wrote one, or where it is no JSON."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = json.loads(read_regular(run_json, _MOST_BYTES))
        return found if isinstance(found, dict) else {}
    return {}


@dataclass(frozen=True)
class Source:
    """The data set that a run was made from, as its ledger names it.

    Attributes:
        dataset: the name of its layout.
        root: its folder.
        labels: the label list; None for the only one.
        follow_links: whether links that lead out of it are followed.
    """

    dataset: str
    root: Path
    labels: str | None
    follow_links: bool

    @classmethod
    def of(cls, ledger: Ledger, out: Path, root: Path | None = None) -> Source:
        """Read it from a ledger; `root` takes the place of its folder, where it has moved.

        Raises:
            OutputRefusedError: the ledger names no data set that is known.
        """
        found: dict[str, Any] = ledger.meta("source") or {}
        name, labels = found.get("dataset"), found.get("labels")
        if not isinstance(name, str) or not (labels is None or isinstance(labels, str)):
            raise OutputRefusedError(f"{ledger.path} does not say which data set the run was made from")
        place = resolved(found.get("root", ""), out)
        if root is not None:  # the folder itself, or its parent, as convert takes it
            place = locate(layout_named(name), root) or root
        return cls(name, place, labels, found.get("follow_links") is True)

    def open(self) -> Dataset:
        """Open the data set.

        Raises:
            UsageError: it is not there, or is another one; the message says how to name its new place.
            DatasetError: its annotations are not understood.
        """
        if not os.path.isdir(self.root):  # noqa: PTH112  # Path.is_dir raises for a name that is too long
            raise UsageError(
                f"the data set of this run is not in {self.root}: give the folder where it is now with --root"
            )
        return open_dataset(self.dataset, self.root, self.labels, follow_links=self.follow_links)


class Twin(contextlib.AbstractContextManager["Twin"]):
    """What a run left; a context manager, for the thread that opens it.

    Attributes:
        out: the output folder.
        output: its paths; `output.ledger` is open for reading.
        settings: the run's fingerprint: its settings and choices.
        source: the data set that it was made from.
    """

    def __init__(self, out: Path, root: Path | None = None) -> None:
        """Open the output.

        Args:
            out: the output folder; nobody needs to hold its lock, and a run may be writing to it.
            root: the data set's folder, where it has moved since.

        Raises:
            OutputRefusedError: it holds no run, or its ledger is not one that fgfast wrote.
        """
        self.out = out
        with contextlib.ExitStack() as held:
            ledger = held.enter_context(Ledger(ledger_in(out), write=False))
            self.output = output_of(ledger, out)
            self.settings: dict[str, Any] = ledger.meta("fingerprint")
            self.source = Source.of(ledger, out, root)
            self.output.ledger = ledger
            self._held = held.pop_all()

    @classmethod
    def open(cls, out: Path, root: Path | None = None) -> Twin:
        """Open the output; see `Twin`."""
        return cls(out, root)

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the ledger."""
        self._held.close()

    @cached_property
    def run(self) -> dict[str, Any]:
        """The content of run.json; see `facts_in`."""
        return facts_in(self.output.run_json)

    @property
    def title(self) -> str:
        """The data set's name, for people."""
        return self.output.twin.name if self.source.dataset == "folder" else self.source.dataset

    @cached_property
    def dataset(self) -> Dataset:
        """The data set, opened at first use.

        Raises:
            UsageError: it is not there; the message names --root.
            DatasetError: its annotations are not understood.
        """
        return self.source.open()

    @cached_property
    def turn_exif(self) -> bool:
        """Whether the EXIF orientation is applied to its images."""
        return layout_named(self.source.dataset).turn_exif

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes that its samples have, in alphabetical order; the data set need not be there."""
        return tuple(sorted(set(self.labels().values())))

    def labels(self) -> dict[str, str]:
        """Return key -> class name of every registered sample."""
        return self.output.ledger.labels()

    def splits(self) -> dict[str, str]:
        """Return key -> split of every registered sample."""
        return self.output.ledger.splits()

    def entries(self, statuses: Sequence[Status] = STATUSES) -> Iterator[Outcome]:
        """Yield the outcomes with one of these statuses, in the data set's order."""
        return self.output.ledger.outcomes(statuses)

    def outcome(self, number: int) -> Outcome | None:
        """Return the outcome of the sample with this number, or None."""
        return self.output.ledger.outcome(number)

    @cached_property
    def _samples(self) -> dict[str, Sample]:
        return {sample.key: sample for sample in self.dataset.samples}

    def sample(self, key: str) -> Sample:
        """Return a sample.

        Raises:
            UsageError: the data set is not there, or no longer has it.
        """
        if key not in self._samples:
            raise UsageError(f"{self.dataset.root} no longer has the image {key}")
        return self._samples[key]

    def path(self, key: str) -> DataPath:
        """Return the path of an image's file in the data set, which need not be opened for it."""
        return DataPath(str(self.source.root), follow=self.source.follow_links) / key

    def image(self, key: str) -> Image:
        """Read the stored image of a sample, turned as the run turned it.

        Raises:
            SampleError: its file is missing, or cannot be decoded.
        """
        return decode(read_bytes(self.path(key)), key, self.turn_exif)

    def mask(self, outcome: Outcome) -> Bool:
        """Return the mask, (H, W) bool, at the size of the stored image.

        Raises:
            ValueError: the outcome has no mask, or its string is damaged.
        """
        if outcome.rle is None or outcome.size is None:
            raise ValueError(f"{outcome.key} has no mask")
        return ops.rle_decode(outcome.rle, *outcome.size)

    def result(self, outcome: Outcome) -> DataPath | None:
        """Return the path of the written image; None where there is none."""
        return None if outcome.twin is None else DataPath(str(self.output.twin)) / outcome.twin

    def source_same(self, outcome: Outcome) -> bool:
        """Whether the image's file still has the content that the run read."""
        if outcome.source is None:
            return False
        checked = [(outcome.key, self.path(outcome.key), outcome.source)]
        return all(state == "same" for _, state in states(iter(checked), read=True))
