"""The result of every bench: rows in one envelope, which one table and one comparison serve.

A result is a dict of plain values: "bench", "title", "notes" (sentences), "rounds", "rows", the fields of the bench
itself, and the stamp: commit, machine, versions. "plots", if a bench has it, is for the trace and the figure: it is
neither printed nor saved.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from fgfast.bench.stamp import stamp
from fgfast.machine import available_cores
from fgfast.writing import Target, write_file

Better = Literal["higher", "lower", ""]
Result = dict[str, Any]

# The significant digits of a stored figure; noise is never below a thousandth.
_DIGITS = 5
# The root of a clone, or the folder that holds the installed package.
_ROOT = Path(__file__).resolve().parents[2]
# The load per core above which other processes disturb a measurement: one process on two cores.
_QUIET = 0.5
# The placeholder of the rows while the rest is formatted.
_HERE = "the rows"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure.

    Attributes:
        name: what was measured.
        value: the figure; the median of several rounds.
        unit: its unit, "" for a plain number.
        better: the better direction; "" for facts that have none, such as a count.
        group: the group of rows; with the name it identifies the row.
        rounds: the figure of each round, if there were several; the noise follows from them.
    """

    name: str
    value: float
    unit: str = ""
    better: Better = ""
    group: str = ""
    rounds: tuple[float, ...] = ()

    @classmethod
    def of(cls, name: str, rounds: Iterable[float], unit: str, better: Better, group: str = "") -> Row:
        """Make the row of the median of rounds."""
        values = tuple(rounds)
        return cls(name, statistics.median(values), unit, better, group, values)

    @property
    def key(self) -> str:
        """What identifies the row among all of a result."""
        return f"{self.group}: {self.name}" if self.group else self.name

    @property
    def spread(self) -> float | None:
        """Half the range of the rounds as a fraction of the figure; None if it is unknown."""
        if len(self.rounds) < 2 or not self.value:
            return None
        return (max(self.rounds) - min(self.rounds)) / 2 / abs(self.value)

    def plain(self) -> dict[str, Any]:
        """The row as plain values."""
        found: dict[str, Any] = {"group": self.group} if self.group else {}
        found |= {"name": self.name, "value": _rounded(self.value), "unit": self.unit, "better": self.better}
        return found | ({"rounds": [_rounded(value) for value in self.rounds]} if len(self.rounds) > 1 else {})


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def envelope(
    bench: str,
    rows: Sequence[Row],
    *,
    title: str,
    rounds: int,
    notes: Sequence[str] = (),
    headline: Sequence[str] = (),
    **more: Any,
) -> Result:
    """Make a result.

    Args:
        bench: the name of the bench.
        rows: the figures.
        title: the heading for people.
        rounds: how often everything was timed.
        notes: what a reader of the figures must know, in sentences.
        headline: keys of the rows that matter most; keys without a row are left out.
        more: fields of the bench itself.
    """
    keys = [row.key for row in rows]
    assert len(set(keys)) == len(keys), f"two rows of one name: {sorted(k for k in keys if keys.count(k) > 1)}"
    found: Result = {"bench": bench, "title": title, **more, "rounds": rounds, "notes": list(notes)}
    found["headline"] = [key for key in headline if key in keys]
    groups = list(dict.fromkeys(row.group for row in rows))
    rows = sorted(rows, key=lambda row: groups.index(row.group))
    return found | {"rows": [row.plain() for row in rows], **stamp()}


def busy() -> str:
    """Return a warning if other processes use the machine now, otherwise ""."""
    load, cores = psutil.getloadavg()[0], available_cores()
    if load <= _QUIET * cores:
        return ""
    return (
        f"The machine was busy before the bench began, load {load:.1f} on {cores} cores: times are too long, above all "
        "those of several threads, which wait for one another. Measure again when nothing else runs."
    )


def rows_of(result: Mapping[str, Any]) -> list[Row]:
    """Return the rows of a result."""
    return [
        Row(r["name"], r["value"], r["unit"], r["better"], r.get("group", ""), tuple(r.get("rounds", ())))
        for r in result["rows"]
    ]


def name_of(result: Mapping[str, Any]) -> str:
    """Return the name of a result, also used in file names; results of one name can be compared."""
    bench = str(result["bench"])
    return f"sam_{result['model']}" if bench == "sam" else bench


def text_of(result: Mapping[str, Any]) -> str:
    """Return the result as JSON, with a line per row and without "plots"."""
    rows = ",\n    ".join(json.dumps(row) for row in result["rows"])
    plain = {name: value for name, value in result.items() if name != "plots"} | {"rows": _HERE}
    return json.dumps(plain, indent=2).replace(json.dumps(_HERE), f"[\n    {rows}\n  ]", 1)


def save(result: Mapping[str, Any], root: Path = _ROOT) -> Path:
    """Write the result into bench/results of the source tree, or into the current folder if `root` is no source tree.

    Returns:
        The file, which is named after the bench and the commit.
    """
    folder = root / "bench" / "results" if (root / "pyproject.toml").is_file() else Path.cwd()
    file = folder / f"{name_of(result)}-{str(result['commit']).rstrip('+')}.json"
    write_file(Target.file(file), f"{text_of(result)}\n".encode())
    return file
