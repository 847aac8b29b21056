"""Which background an image draws: pools of candidates, of which each draw depends on as few as can be.

The candidates of a pool stand on a ring, each at several places that depend on its name alone; whoever draws points
anywhere on the ring and takes the next one. A candidate that goes changes only the draws that took it (consistent
hashing: Karger et al., STOC 1997).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable, Mapping

Number = Callable[..., int]
"""Gives names their number, 0 .. 2^128 - 1; see `fgfast.seeds.number`."""

# Places of each candidate on the ring. The chances of candidates then differ by 35 % (standard deviation), beside the
# 100 % by which the numbers of draws differ by chance, where there are as many who draw as candidates.
_PLACES = 8
_HALF = 1 << 64


class Pools:
    """Candidates by group, as in (split, class).

    Args:
        groups: candidate -> its groups.
        number: gives the candidates' and the draws' numbers.
    """

    def __init__(self, groups: Mapping[str, Iterable[Hashable]], number: Number) -> None:
        self._number = number
        rings: dict[Hashable, list[tuple[int, str]]] = {}
        for name, its in groups.items():
            places = [(place, name) for place in self._places(name)]
            for group in its:
                rings.setdefault(group, []).extend(places)
        self._rings = {group: sorted(ring) for group, ring in rings.items()}

    def _places(self, name: str) -> list[int]:
        pairs = (divmod(self._number("place", name, str(n)), _HALF) for n in range(_PLACES // 2))
        return [place for pair in pairs for place in pair]

    def draw(self, group: Hashable, name: str) -> str | None:
        """Return a candidate of a group for a name, which is never the name itself; None where there is no other."""
        ring = self._rings.get(group, [])
        start = bisect_left(ring, (self._number("draw", name) % _HALF, ""))
        for n in range(len(ring)):
            candidate = ring[(start + n) % len(ring)][1]
            if candidate != name:
                return candidate
        return None
