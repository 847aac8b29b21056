"""The run that an expansion is made from: which of its samples can be used, and what the ledger says about each."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from fgfast.io.ledger import Ledger
from fgfast.pipeline.twin import Twin
from fgfast.records import Outcome, Sample, sample_digest

FLAGGED = ("use", "skip")


class Outcomes:
    """The outcomes of a run, by key; for any number of threads, each of which reads the ledger itself.

    Args:
        path: the run's ledger, which is not locked: a review may be writing to it.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._local = path, threading.local()

    def of(self, key: str) -> Outcome | None:
        """Return the outcome of a sample as it is now; None where it has none.

        Raises:
            OutputRefusedError: the ledger is damaged.
        """
        ledger: Ledger | None = getattr(self._local, "ledger", None)
        if ledger is None:
            ledger = self._local.ledger = Ledger(self._path, write=False)
        return ledger.outcome_of(key)


class Usable:
    """The samples of a run that have a mask.

    Attributes:
        keys: their keys, in the data set's order.
        passed_over: what the others are ("failed", "skipped", ...) -> how many.
        changed: keys of samples about which the data set says something else than when the run was made.
        waiting: keys of samples that the run has not converted yet, or is making again.
        digest: SHA-256 of what the run's ledger says about `keys`, in hexadecimal.
    """

    def __init__(self, twin: Twin, flagged: str) -> None:
        """Read the ledger.

        Args:
            twin: the run.
            flagged: "use", or "skip" to pass over flagged samples.

        Raises:
            UsageError: the data set is not there.
            OutputRefusedError: the ledger is damaged.
        """
        samples = {sample.key: sample for sample in twin.dataset.samples}
        counted: Counter[str] = Counter()
        digest = hashlib.sha256()
        usable: dict[str, None] = {}
        changed: list[str] = []
        for outcome in twin.entries():
            sample = samples.pop(outcome.key, None)
            if (why := _passed_over(outcome, sample, flagged)) is not None:
                counted[why] += 1
            elif sample is not None and outcome.annotation != sample_digest(sample) and not _of_masks(twin):
                changed.append(outcome.key)
            else:
                usable[outcome.key] = None
                for part in _facts(outcome):
                    digest.update(len(part).to_bytes(8, "little") + part)
        self.waiting = frozenset(samples.keys() & twin.labels().keys())
        if self.waiting:
            counted["not converted yet"] += len(self.waiting)
        self.keys = tuple(sample.key for sample in twin.dataset.samples if sample.key in usable)
        self.passed_over, self.changed = dict(counted), tuple(changed)
        self.digest = digest.hexdigest()

    def sentences(self) -> list[str]:
        """Return what was passed over, a sentence each."""
        said = [f"{count:,} of the run's images are {why}: passed over" for why, count in self.passed_over.items()]
        if self.changed:
            some = ", ".join(self.changed[:3]) + (", ..." if len(self.changed) > 3 else "")
            said.append(
                f"{len(self.changed):,} images have other annotations than in the run ({some}): passed over; convert "
                "again to use them"
            )
        return said


def mask_digest(outcome: Outcome, sample: Sample, given: bytes) -> bytes:
    """Return a digest, 16 bytes, of what the products of a sample depend on besides the options.

    Args:
        outcome: its outcome in the run.
        sample: the sample.
        given: what was decided for it, as text.
    """
    digest = hashlib.sha256()
    for part in (*_facts(outcome), sample_digest(sample), given):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()[:16]


def _passed_over(outcome: Outcome, sample: Sample | None, flagged: str) -> str | None:
    """Return why a sample cannot be used, in a word or two; None where it can."""
    if outcome.twin is None or outcome.rle is None or outcome.size is None:
        return outcome.status
    if sample is None:
        return "gone from the data set"
    return "flagged" if flagged == "skip" and outcome.status == "flagged" else None


def _of_masks(twin: Twin) -> bool:
    """Whether the run took annotated masks, whose digest the data set alone does not have."""
    return bool(twin.settings.get("segmenter") == "annotations")


def _facts(outcome: Outcome) -> Iterator[bytes]:
    """Yield what products depend on: the mask, the image's content, the reasons to doubt the mask."""
    yield outcome.key.encode("utf-8", "surrogateescape")
    yield outcome.rle or b""
    yield outcome.source.sha256 if outcome.source else b""
    yield "\0".join((outcome.status, *outcome.reasons)).encode("utf-8", "surrogateescape")
