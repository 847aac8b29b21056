"""Choices over a whole data set that hardly change when a sample or a file comes or goes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence

Number = Callable[[str], int]
"""Gives each name its number, 0 .. 2^128 - 1, which depends on the seed and the name alone."""


def lowest(names: Iterable[str], share: float, number: Number) -> set[str]:
    """Return the share of the names with the lowest numbers: another name pushes out at most one.

    Args:
        names: the names.
        share: 0..1; half a name is rounded to the even number, as NumPy rounds.
        number: gives their numbers.
    """
    ranked = sorted(names, key=lambda name: (number(name), name))
    return set(ranked[: round(share * len(ranked))])


def once_each(takers: Sequence[str], offers: Iterable[str], take: Number, offer: Number) -> dict[str, str]:
    """Give each taker an offer of its own: the first free one whose number is not below the taker's, around a ring.

    Where a taker or an offer is added or removed, only those change that want the same one.

    Args:
        takers: at most as many as offers, in the order in which they choose.
        offers: what they choose from.
        take, offer: give the numbers of the takers and of the offers.

    Returns:
        taker -> offer.
    """
    ring = sorted((offer(name), name) for name in offers)
    if len(ring) < len(takers):
        raise ValueError(f"{len(takers)} takers need as many offers; there are {len(ring)}")
    places = [place for place, _ in ring]
    following = list(range(len(ring)))  # of each place the next one that may be free; of a free one itself
    chosen = {}
    for name in takers:
        start = place = bisect_left(places, take(name)) % len(ring)
        passed = []
        while following[place] != place:
            passed.append(place)
            place = following[place]
        chosen[name] = ring[place][1]
        for taken in (start, place, *passed):
            following[taken] = (place + 1) % len(ring)
    return chosen
