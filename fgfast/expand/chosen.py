"""Which samples of a run an expansion is made of."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from fgfast.config import Selection
from fgfast.errors import UsageError
from fgfast.expand.kind import Kind, Request
from fgfast.expand.run_source import Outcomes, Usable
from fgfast.pipeline.exclusion import read_excluded
from fgfast.pipeline.plan import select
from fgfast.pipeline.twin import Twin


def chosen(
    twin: Twin, kind: Kind, seed: int, selection: Selection, usable: Usable
) -> tuple[Request, tuple[int, ...], frozenset[str]]:
    """Return the request, the positions of its samples, and the keys that are left out by name.

    Raises:
        UsageError: nothing is selected.
    """
    samples = twin.dataset.samples
    excluded = frozenset[str]()
    if selection.exclude:
        excluded = read_excluded(selection.exclude, {sample.key for sample in samples})
    there = set(usable.keys)
    everything = select(twin.dataset, replace(selection, limit=None), excluded)
    positions = spread(everything, {n for n in everything if samples[n].key in there}, selection.limit)
    if not positions:
        raise UsageError(f"no image of the run {twin.out} is selected; it has {len(there):,} with a mask")
    outcomes = Outcomes(twin.output.ledger_path)
    keys = tuple(samples[n].key for n in positions)
    return Request(twin, kind.name, seed, usable.keys, keys, outcomes), positions, excluded


def spread(everything: Sequence[int], usable: Collection[int], limit: int | None) -> tuple[int, ...]:
    """Return at most `limit` usable positions, spread evenly over all.

    A place whose sample is not usable takes the next one that is: where a person rejects a sample, that one moves and
    the others stay.
    """
    if limit is None or limit >= len(usable):
        return tuple(n for n in everything if n in usable)
    size = len(everything)
    # A place leads to itself while its sample is free, else to a place further on; the last one stands for the end.
    # Ways are shortened as they are walked (union-find), so that bunched samples cost no more than spread ones.
    leads = [n if everything[n] in usable else n + 1 for n in range(size)] + [size]
    taken = []
    for number in range(limit):
        place = _free(leads, number * size // limit)
        place = place if place < size else _free(leads, 0)
        taken.append(place)
        leads[place] = place + 1
    return tuple(everything[n] for n in sorted(taken))


def _free(leads: list[int], place: int) -> int:
    """Return the first free place from one on, and let all on the way lead there."""
    end = place
    while leads[end] != end:
        end = leads[end]
    while leads[place] != end:
        leads[place], place = end, leads[place]
    return end
