"""Derives figures from the events of a run: cost of stages, busy devices, pace. All functions are pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from fgfast.runner import Event

STAGES = (
    *("decode", "detect.fill", "detect", "detect.after", "detect.choose", "encode.fill", "encode", "encode.after"),
    *("mask", "cut", "write", "commit"),
)
"""The stages in the order in which an image passes them. "X.fill" prepares the input of a model, "X.after" reads its
output; "detect.choose" chooses the prompt."""
DEVICE = "device"
"""The name of the thread that a device computes in."""

Interval: TypeAlias = tuple[float, float]
"""Start and end in seconds."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The total cost of a stage.

    Attributes:
        stage: the name of the stage.
        items: the images that it worked on.
        seconds: the sum over all its pieces of work; several threads may have worked at once.
        pieces: the number of pieces of work, each an image or a batch.
        device: whether it is the forward of a model.
        mean_waiting: the mean number of images that waited when a piece began.
    """

    stage: str
    items: int
    seconds: float
    pieces: int
    device: bool
    mean_waiting: float

    @property
    def ms(self) -> float:
        """Milliseconds per image."""
        return 1e3 * self.seconds / self.items if self.items else 0.0


def is_forward(event: Event) -> bool:
    """Whether an event is the forward of a model; decoding on a GPU is not."""
    return event.thread == DEVICE and event.stage != "decode"


def tidy(events: Iterable[Event]) -> tuple[Event, ...]:
    """Turn the CPU's work in the stage of a model into a stage of its own, "X.choose"."""
    found = list(events)
    models = {e.stage for e in found if is_forward(e)}
    return tuple(
        replace(e, stage=f"{e.stage}.choose") if e.stage in models and e.thread != DEVICE else e for e in found
    )


def order_of(stage: str) -> tuple[int, str]:
    """Return the key that sorts stages in the order in which an image passes them; unknown ones come last."""
    return (STAGES.index(stage) if stage in STAGES else len(STAGES)), stage


def span(events: Sequence[Event]) -> Interval:
    """Return the start of the first event and the end of the last; (0, 0) without events."""
    return min((e.start for e in events), default=0.0), max((e.end for e in events), default=0.0)


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """Return ordered, disjoint intervals that cover the same time."""
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def costs(events: Iterable[Event]) -> list[Cost]:
    """Return the cost of each stage, in the order in which an image passes them."""
    found = []
    ordered = sorted(events, key=lambda e: (order_of(e.stage), e.start))
    for stage, group in groupby(ordered, key=attrgetter("stage")):
        own = list(group)
        found.append(
            Cost(
                stage=stage,
                items=sum(e.items for e in own),
                seconds=sum(e.end - e.start for e in own),
                pieces=len(own),
                device=any(is_forward(e) for e in own),
                mean_waiting=sum(e.waiting for e in own) / len(own),
            )
        )
    return found


def busy(events: Sequence[Event], within: Interval | None = None) -> dict[str, float]:
    """Return the fraction of the time in which each worker's device computes the forward of a model.

    Args:
        events: the events of the whole run.
        within: the time that counts; by default from the first event to the last.

    Returns:
        Worker -> fraction. Workers without a model are left out.
    """
    first, last = within or span(events)
    wall = last - first
    forwards = defaultdict(list)
    for e in events:
        if is_forward(e):
            forwards[e.worker].append((max(e.start, first), max(min(e.end, last), max(e.start, first))))
    lengths = {name: sum(end - start for start, end in union(own)) for name, own in sorted(forwards.items())}
    return {name: length / wall if wall > 0 else 0.0 for name, length in lengths.items()}


def outside_forward(events: Sequence[Event], within: Interval | None = None) -> float:
    """Return the fraction of the time outside the models' forward, averaged over workers with models; 1 without any."""
    shares = busy(events, within)
    return 1 - sum(shares.values()) / len(shares) if shares else 1.0


def steady(events: Sequence[Event]) -> Interval:
    """Return the start of the first forward and the end of the last; without models those of the run.

    This leaves out what happens once per run: decoding the first images and writing the last ones.
    """
    return span([e for e in events if is_forward(e)] or events)


def has_models(events: Iterable[Event]) -> bool:
    """Whether the events include the forward of a model."""
    return any(is_forward(e) for e in events)


def pace(events: Sequence[Event]) -> float:
    """Return the images per second once the run is under way, of the last model or else of the workers' last stage.

    The first piece of work of each worker only starts its clock; the images after it count, until the last piece ends.
    The pace is 0 if no worker has a second piece.
    """
    models = has_models(events)
    able = [e for e in events if e.worker and (is_forward(e) or not models)]
    if not able:
        return 0.0
    last = max((e.stage for e in able), key=order_of)
    rate = 0.0
    own = sorted((e for e in able if e.stage == last), key=lambda e: (e.worker, e.end))
    for _, group in groupby(own, key=attrgetter("worker")):
        first, *others = group
        if others and others[-1].end > first.end:
            rate += sum(e.items for e in others) / (others[-1].end - first.end)
    return rate


def by_thread(events: Iterable[Event]) -> Iterator[tuple[str, str, list[Event]]]:
    """Yield worker, thread and the events of each thread in order of time.

    The devices come first among the threads of a worker, and the parent process comes last.
    """
    grouped = defaultdict(list)
    for e in sorted(events, key=attrgetter("start")):
        grouped[e.worker, e.thread].append(e)
    for worker, thread in sorted(grouped, key=lambda key: (not key[0], key[0], key[1] != DEVICE, key[1])):
        yield worker, thread, grouped[worker, thread]
