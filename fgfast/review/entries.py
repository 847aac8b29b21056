"""The entries that are listed, as columns in memory: sorted, filtered and counted without the ledger.

A million of them take some 150 MB, nearly all of it keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fgfast.errors import UnknownNameError, UsageError
from fgfast.io.ledger_columns import Columns
from fgfast.records import STATUSES, Bool, Status, UInt8

Ints = NDArray[np.int64]
Order = Literal["doubt", "key", "class"]
Decided = Literal["", "yes", "no", "later"]
ORDERS: tuple[str, ...] = get_args(Order)
DECIDED: tuple[str, ...] = get_args(Decided)

BINS = 20
"""Bars of the histogram of doubt: five for each power of ten, from 0.0001 to 1."""
# Doubts are small probabilities: most are below 0.01. Smaller ones than this are no longer told apart.
_LEAST_DOUBT = 1e-4
# Bits of a number that holds the flags of an entry.
_MOST_FLAGS = 64


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked for; an empty text filters nothing.

    Attributes:
        order: most doubtful first, by key, or by class and then doubt.
        flag: name of a flag that the entry has.
        cause: cause of the decision on it.
        label: class; None for any.
        split: split; None for any.
        status: status.
        decided: whether a person decided, or put it off.
        text: part of the key; case does not matter.
    """

    order: str = "doubt"
    flag: str = ""
    cause: str = ""
    label: str | None = None
    split: str | None = None
    status: str = ""
    decided: str = ""
    text: str = ""

    def __post_init__(self) -> None:
        for kind, value, allowed in (
            ("order", self.order, ORDERS),
            ("status", self.status, ("", *STATUSES)),
            ("decided", self.decided, DECIDED),
        ):
            if value not in allowed:
                raise UnknownNameError(kind, value, (name for name in allowed if name))


@dataclass(slots=True, eq=False)
class Entries:
    """All entries, in the data set's order. One thread changes them at a time; any may read.

    Attributes:
        columns: what the ledger says; `statuses` changes with decisions.
        causes: index of an entry -> cause of the decision in force on it, "" where it has none.
        later: indices of the entries that were put off.
        flags: name of a flag -> bit; in the order in which they were met.
        sentences: name of a flag -> a sentence about it.
        bits: (N,) uint64, the flags of each entry.
        known: number of entries whose flags are in `bits`.
    """

    columns: Columns
    causes: dict[int, str] = field(default_factory=dict)
    later: set[int] = field(default_factory=set)
    flags: dict[str, int] = field(default_factory=dict)
    sentences: dict[str, str] = field(default_factory=dict)
    bits: NDArray[np.uint64] = field(init=False)
    known: int = 0
    _by_id: Ints = field(init=False)
    _by_doubt: Ints = field(init=False)
    _by_key: Ints | None = None

    def __post_init__(self) -> None:
        self.bits = np.zeros(len(self), np.uint64)
        self._by_id = np.argsort(self.columns.ids, kind="stable")
        # NaN last: -1 is less than any doubt. Stable, so that ties are in the data set's order.
        self._by_doubt = np.argsort(-np.nan_to_num(self.columns.doubts, nan=-1.0), kind="stable")

    def __len__(self) -> int:
        return len(self.columns.ids)

    def index(self, number: int) -> int | None:
        """Return the index of the entry with this number, or None."""
        ids = self.columns.ids
        place = int(np.searchsorted(ids, np.uint32(number), sorter=self._by_id)) if 0 < number < 1 << 32 else len(ids)
        if place == len(ids) or ids[self._by_id[place]] != number:
            return None
        return int(self._by_id[place])

    def number(self, index: int) -> int:
        """Return the number of an entry."""
        return int(self.columns.ids[index])

    def by_doubt(self) -> Ints:
        """Return the indices of all entries, most doubtful first."""
        return self._by_doubt

    def query(self, query: Query) -> Ints:
        """Return the indices of the entries that a query asks for, in its order."""
        order = self._order(query.order)
        keep = self._kept(query)
        return order if keep is None else order[keep[order]]

    def _order(self, order: str) -> Ints:
        if order == "doubt":
            return self._by_doubt
        if order == "class":
            return self._by_doubt[np.argsort(self.columns.labels[self._by_doubt], kind="stable")]
        if self._by_key is None:
            keys = self.columns.keys
            self._by_key = np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)
        return self._by_key

    def _kept(self, query: Query) -> Bool | None:
        """Return which entries pass the filters, (N,) bool; None for all."""
        columns, kept = self.columns, []
        if query.flag:
            bit = self.flags.get(query.flag)
            kept.append(np.zeros(len(self), np.bool_) if bit is None else (self.bits >> np.uint64(bit)) & 1 == 1)
        if query.cause:
            kept.append(self._at(i for i, cause in list(self.causes.items()) if cause == query.cause))
        if query.label is not None:
            kept.append(columns.labels == _place(query.label, columns.classes))
        if query.split is not None:
            kept.append(columns.parts == _place(query.split, columns.splits))
        if query.status:
            kept.append(columns.statuses == STATUSES.index(query.status))
        if query.decided:
            there = self._at(self.later if query.decided == "later" else self.causes)
            kept.append(~there if query.decided == "no" else there)
        if query.text:
            wanted = query.text.casefold()
            kept.append(np.fromiter((wanted in key.casefold() for key in columns.keys), np.bool_, len(self)))
        return np.logical_and.reduce(kept) if kept else None

    def _at(self, indices: Iterable[int]) -> Bool:
        found = np.zeros(len(self), np.bool_)
        found[list(indices)] = True
        return found

    def doubt_bytes(self, indices: Ints) -> UInt8:
        """Return the doubts of entries as 0..255: 1 for 0.0001 and less, 255 for 1, by the logarithm; 0 for none."""
        doubts = self.columns.doubts[indices]
        return np.where(np.isnan(doubts), 0, 1 + np.rint(254 * _share(doubts))).astype(np.uint8)

    def counts(self) -> dict[Status, int]:
        """Return how many entries have each status."""
        found = np.bincount(self.columns.statuses, minlength=len(STATUSES)).tolist()
        return dict(zip(STATUSES, found, strict=True))

    def left(self) -> int:
        """Return how many entries are flagged and not decided."""
        flagged = STATUSES.index("flagged")
        decided = self.columns.statuses[list(self.causes)]
        return int((self.columns.statuses == flagged).sum()) - int((decided == flagged).sum())

    def left_with(self, index: int) -> str:
        """Return how many images the twin has of an entry's class and split, in a sentence."""
        columns = self.columns
        written = columns.statuses <= STATUSES.index("flagged")  # done or flagged
        parts = []
        for kind, names, codes in (
            ("class", columns.classes, columns.labels),
            ("split", columns.splits, columns.parts),
        ):
            if name := names[codes[index]]:
                count = int((written & (codes == codes[index])).sum())
                parts.append(f"{kind} {name} has {count:,} image{'' if count == 1 else 's'} left")
        return ", ".join(parts)

    def histogram(self) -> list[int]:
        """Return how many entries have a doubt in each of `BINS`; the first has all smaller ones, too."""
        doubts = self.columns.doubts
        found, _ = np.histogram(_share(doubts[~np.isnan(doubts)]), BINS, (0.0, 1.0))
        return [int(count) for count in found]

    def flag_counts(self) -> dict[str, int]:
        """Return how many entries have each flag, of those whose flags are known."""
        return {name: int(((self.bits >> np.uint64(bit)) & 1).sum()) for name, bit in list(self.flags.items())}

    def set_flags(self, index: int, names: Mapping[str, str]) -> None:
        """Set the flags of an entry: name -> sentence."""
        found = 0
        for name, sentence in names.items():
            if name not in self.flags and len(self.flags) < _MOST_FLAGS:
                self.sentences[name] = sentence
                self.flags[name] = len(self.flags)  # last: another thread lists them
            if name in self.flags:
                found |= 1 << self.flags[name]
        self.bits[index] = found

    def set_status(self, index: int, status: Status) -> None:
        """Set the status of an entry."""
        self.columns.statuses[index] = STATUSES.index(status)

    def take_statuses(self, columns: Columns) -> None:
        """Take the statuses of columns that were read later; what came or went since is left alone."""
        if np.array_equal(columns.ids, self.columns.ids):
            self.columns.statuses[:] = columns.statuses

    def decide(self, index: int, cause: str | None) -> None:
        """Note that a decision is in force on an entry, with its cause; None where none is any more."""
        if cause is None:
            self.causes.pop(index, None)
        else:
            self.causes[index] = cause
            self.later.discard(index)


def _share(doubts: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return where doubts are from 0.0001 (0.0) to 1 (1.0), by the logarithm; NaN where there is none."""
    clipped = np.clip(doubts.astype(np.float64), _LEAST_DOUBT, 1.0)
    return np.asarray(1 - np.log10(clipped) / np.log10(_LEAST_DOUBT), np.float64)


def _place(name: str, names: list[str]) -> int:
    if name not in names:
        raise UsageError(f"no entry has {name[:200]!r} there")
    return names.index(name)
