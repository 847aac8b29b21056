"""Items that are in flight within one process: where each is between the stages, and how many are where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic

from fgfast.runner.stages import Finished, T

if TYPE_CHECKING:
    from fgfast.runner.batching import Batch


@dataclass(slots=True, eq=False)
class InFlightItem(Generic[T]):
    """An item on its way.

    Attributes:
        finished: what will be handed out.
        segment: number of the segment whose steps come next; segments lie between batched stages.
        alone: it was in a batch that failed, and shares no batch any more.
        place: batch and row whose result has not been read yet.
        took: seconds of its share of that batch.
    """

    finished: Finished[T]
    segment: int = 0
    alone: bool = False
    place: tuple[Batch[T], int] | None = None
    took: float = 0.0


class Positions:
    """How many items are in which segment. Every change of an item's segment goes through it, under the flow's lock.

    Args:
        segments: how many there are; ring `n` lies behind segment `n`.
    """

    def __init__(self, segments: int) -> None:
        self._at = [0] * segments

    def count(self) -> int:
        """How many items are in flight."""
        return sum(self._at)

    def enter(self) -> None:
        """A new item is in the first segment."""
        self._at[0] += 1

    def move(self, item: InFlightItem[Any], segment: int) -> None:
        """An item goes on to a segment, or back to one."""
        self._at[item.segment] -= 1
        item.segment = segment
        self._at[segment] += 1

    def leave(self, item: InFlightItem[Any]) -> None:
        """An item is in flight no more."""
        self._at[item.segment] -= 1

    def may_reach(self, ring: int) -> bool:
        """Whether any item in flight may still come to a ring."""
        return any(self._at[: ring + 1])
