"""Compares a result with an earlier one, row by row: old, new, ratio, and what got worse by more than noise."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fgfast.bench.result import Result, Row, name_of, rows_of
from fgfast.errors import UsageError

# The noise of a row is half the range of its rounds, as a fraction of the figure. For a single round it is unknown and
# taken as this much, by which two runs of one bench on a shared machine easily differ.
_UNKNOWN = 0.1
# The noise is at least this: clocks and caches differ by as much between two starts of a program.
_LEAST = 0.03

Verdict = Literal["worse", "better", ""]


@dataclass(frozen=True, slots=True)
class Change:
    """A row that both results have.

    Attributes:
        row: the new row.
        old: the old figure.
        noise: by how much the two may differ by chance, as a fraction of the old figure.
        verdict: "worse" or "better" where they differ by more than the noise; "" where they do not, and where neither
            direction is better.
    """

    row: Row
    old: float
    noise: float
    verdict: Verdict

    @property
    def ratio(self) -> float:
        """The new figure over the old one; NaN if the old one is 0."""
        return self.row.value / self.old if self.old else float("nan")


@dataclass(frozen=True, slots=True)
class Comparison:
    """The differences between two results.

    Attributes:
        changes: the rows that both have, in the order of the new result.
        only_old, only_new: keys of the rows that only one of the results has.
        differences: other differences in sentences: machine, versions, inputs.
        old: the old result in words.
    """

    changes: tuple[Change, ...]
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]
    differences: tuple[str, ...]
    old: str

    @property
    def worse(self) -> tuple[Change, ...]:
        """The rows that got worse by more than noise."""
        return tuple(change for change in self.changes if change.verdict == "worse")

    def plain(self) -> dict[str, Any]:
        """The comparison as plain values, for JSON."""
        changes = [
            {"row": c.row.key, "old": c.old, "new": c.row.value, "ratio": round(c.ratio, 4), "verdict": c.verdict}
            for c in self.changes
            if c.old
        ]
        return {
            "with": self.old,
            "differences": list(self.differences),
            "rows": changes,
            "only_old": list(self.only_old),
            "only_new": list(self.only_new),
        }


def read(path: Path, name: str, *others: str) -> Result:
    """Read an earlier result to compare with.

    Args:
        path: a file that --json or --save wrote.
        name: the name of the bench that is about to run.
        others: names of further benches whose results will do.

    Raises:
        UsageError: the file is not a result, or it is that of another bench.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        theirs = name_of(found)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no result of fgfast bench ({error}); give a file of --json or --save") from error
    if theirs not in (name, *others):
        raise UsageError(f"{path} is a result of the bench {theirs!r}; give one of {name!r} to compare with")
    if "rows" not in found:
        raise UsageError(f"{path} has no rows to compare with; measure that version again")
    return dict(found)


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> Comparison:
    """Compare two results of one bench."""
    before, after = {row.key: row for row in rows_of(old)}, rows_of(new)
    return Comparison(
        changes=tuple(_change(before[row.key], row) for row in after if row.key in before),
        only_old=tuple(key for key in before if key not in {row.key for row in after}),
        only_new=tuple(row.key for row in after if row.key not in before),
        differences=tuple(differences(old, new)),
        old=f"commit {old.get('commit', 'unknown')}",
    )


def _change(old: Row, new: Row) -> Change:
    noise = max(_LEAST, sum(_UNKNOWN / 2 if row.spread is None else row.spread for row in (old, new)))
    verdict: Verdict = ""
    if new.better and abs(new.value - old.value) > noise * abs(old.value):
        verdict = "better" if (new.value > old.value) == (new.better == "higher") else "worse"
    return Change(new, old.value, noise, verdict)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Describe the differences between the machines, packages and inputs of two results, in sentences."""
    found = []
    for name in ("processor", "cores", "gpus"):
        theirs, ours = (result.get("machine", {}).get(name) for result in (old, new))
        if theirs != ours:
            found.append(f"The machines differ, {name}: {_words(theirs)} then, {_words(ours)} now.")
    then, now = old.get("versions", {}), new.get("versions", {})
    for name in sorted(then.keys() & now.keys()):
        if then[name] != now[name]:
            found.append(f"{name}: {then[name]} then, {now[name]} now.")
    for name in ("images", "image", "model_weights"):
        if name in old and name in new and old[name] != new[name]:
            found.append(f"{name}: {old[name]} then, {new[name]} now.")
    return found


def _words(value: Any) -> str:
    if value is None:
        return "none"
    return "; ".join(value) if isinstance(value, list) else str(value)
