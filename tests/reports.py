"""A report of outcomes, without a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fgfast.io.report import write_page
from fgfast.io.summary import GALLERY, Summary
from fgfast.records import STATUSES, Outcome, Sample, Status
from fgfast.writing import Target


def summary_of(outcomes: Iterable[Outcome], samples: Mapping[str, Sample], gallery: int = GALLERY) -> Summary:
    """Read a stream of outcomes once."""
    summary = Summary(samples, gallery)
    for outcome in outcomes:
        summary.add(outcome)
    return summary


def write_report(
    path: Path,
    *,
    outcomes: Callable[[Sequence[Status]], Iterator[Outcome]],
    samples: Mapping[str, Sample],
    gallery: int = GALLERY,
    **more: Any,
) -> None:
    """Summarise what `outcomes` yields for the given statuses, and write its page."""
    write_page(Target.file(path), summary_of(outcomes(STATUSES), samples, gallery), samples=samples, **more)
