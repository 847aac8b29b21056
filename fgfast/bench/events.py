"""What a run's events tell: costs of stages, busy devices, queues, pace. Pure functions of fgfast.runner's events."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from fgfast.runner import Event

STAGES = (
    *("decode", "detect.fill", "detect", "detect.after", "detect.choose", "encode.fill", "encode", "encode.after"),
    *("mask", "cut", "write", "settle"),
)
"""In the order in which an image passes them. "X.fill" prepares a model's input, "X.after" reads what it found;
"detect.choose" chooses the prompt."""
DEVICE = "device"
"""The thread of what a device computes."""

DENSE = 1000
"""So many pieces of a thread can be told apart, or nearly, on a timeline as wide as a screen."""

Interval: TypeAlias = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a stage cost in all.

    Attributes:
        stage: its name.
        items: images that it worked on.
        seconds: of all its pieces, added up; several threads may have worked at once.
        pieces: batches, or images.
        device: whether it is a model's forward.
        mean_waiting: items that waited when a piece began, on average.
        most_waiting: at most.
    """

    stage: str
    items: int
    seconds: float
    pieces: int
    device: bool
    mean_waiting: float
    most_waiting: int

    @property
    def ms(self) -> float:
        """Milliseconds per image."""
        return 1e3 * self.seconds / self.items if self.items else 0.0


def is_forward(event: Event) -> bool:
    """Whether it is a model's forward; decoding on a GPU is not."""
    return event.thread == DEVICE and event.stage != "decode"


def tidy(events: Iterable[Event]) -> tuple[Event, ...]:
    """The same events, where what the CPU does in a model's stage is a stage of its own, "X.choose"."""
    found = list(events)
    models = {e.stage for e in found if is_forward(e)}
    return tuple(
        replace(e, stage=f"{e.stage}.choose") if e.stage in models and e.thread != DEVICE else e for e in found
    )


def order_of(stage: str) -> tuple[int, str]:
    """The key that sorts stages as per image passes them; unknown ones come last."""
    return (STAGES.index(stage) if stage in STAGES else len(STAGES)), stage


def span(events: Sequence[Event]) -> Interval:
    """From the beginning of the first to the end of the last; (0, 0) without events."""
    if not events:
        return 0.0, 0.0
    return min(e.start for e in events), max(e.end for e in events)


def union(intervals: Iterable[Interval], gap: float = 0.0) -> list[Interval]:
    """Disjoint intervals in order that cover the same; those that are at most `gap` apart become one."""
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1] + gap:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def length(intervals: Iterable[Interval]) -> float:
    """Of all together."""
    return sum(end - start for start, end in intervals)


def costs(events: Sequence[Event]) -> list[Cost]:
    """The cost of each stage, in the order in which an image passes them."""
    found = []
    for stage, own in by_stage(events):
        found.append(
            Cost(
                stage=stage,
                items=sum(e.items for e in own),
                seconds=sum(e.end - e.start for e in own),
                pieces=len(own),
                device=any(is_forward(e) for e in own),
                mean_waiting=sum(e.waiting for e in own) / len(own),
                most_waiting=max(e.waiting for e in own),
            )
        )
    return found


def by_stage(events: Iterable[Event]) -> Iterator[tuple[str, list[Event]]]:
    """Stage -> its events in order of time, stages in their order."""
    ordered = sorted(events, key=lambda e: (order_of(e.stage), e.start))
    for stage, own in groupby(ordered, key=lambda e: e.stage):
        yield stage, list(own)


def busy(events: Sequence[Event], within: Interval | None = None) -> dict[str, float]:
    """Seat -> the part of the time in which its device computes a model's forward; seats without a model are left out.

    Args:
        events: of the whole run.
        within: the time that counts; by default from the first event to the last.
    """
    first, last = within or span(events)
    wall = last - first
    forwards = defaultdict(list)
    for e in events:
        if is_forward(e):
            forwards[e.seat].append((max(e.start, first), max(min(e.end, last), max(e.start, first))))
    return {seat: length(union(own)) / wall if wall > 0 else 0.0 for seat, own in sorted(forwards.items())}


def outside_forward(events: Sequence[Event], within: Interval | None = None) -> float:
    """The part of the time outside the models' forward, on average over the seats that have a model; 1 without any."""
    shares = busy(events, within)
    return 1 - sum(shares.values()) / len(shares) if shares else 1.0


def steady(events: Sequence[Event]) -> Interval:
    """From the beginning of the first forward to the end of the last; without models the whole time.

    What is left out is what every run has once: the first images come, the last ones go.
    """
    return span([e for e in events if is_forward(e)]) if has_models(events) else span(events)


def has_models(events: Iterable[Event]) -> bool:
    """Whether there is a model's forward among them."""
    return any(is_forward(e) for e in events)


def pace(events: Sequence[Event]) -> float:
    """Images a second once the run is under way: of the last model, else of the last stage of the workers.

    Each seat's first piece only starts its clock: so many images came after it, until its last piece ended.
    0 where there is nothing to tell it by.
    """
    models = has_models(events)
    able = [e for e in events if e.seat and (is_forward(e) or not models)]
    if not able:
        return 0.0
    last = max((e.stage for e in able), key=order_of)
    rate = 0.0
    for _, group in groupby(sorted((e for e in able if e.stage == last), key=lambda e: (e.seat, e.end)), _seat):
        first, *others = group
        if others and others[-1].end > first.end:
            rate += sum(e.items for e in others) / (others[-1].end - first.end)
    return rate


def _seat(event: Event) -> str:
    return event.seat


def depths(events: Sequence[Event], most: int = 400) -> dict[str, list[tuple[float, int]]]:
    """Stage -> (seconds from the first event, items that wait), a step wherever a piece began.

    Args:
        events: of the run.
        most: steps of one stage; of more, the deepest of each of so many equal times is kept.
    """
    first, last = span(events)
    found = {}
    for stage, own in by_stage(events):
        steps = [(e.start - first, e.waiting) for e in own]
        if len(steps) > most and last > first:
            bins: dict[int, tuple[float, int]] = {}
            for at, waiting in steps:
                place = int(at / (last - first) * most)
                bins[place] = max(bins.get(place, (at, -1)), (at, waiting), key=lambda step: step[1])
            steps = [bins[place] for place in sorted(bins)]
        found[stage] = steps
    return found


@dataclass(frozen=True, slots=True)
class Lane:
    """The work of one thread, or of the threads of a seat that take turns, for a timeline.

    Attributes:
        seat, thread: whose.
        spans: (stage, start, end, items), seconds from the first event.
    """

    seat: str
    thread: str
    spans: list[tuple[str, float, float, int]]


def lanes(events: Sequence[Event], within: Interval, finest: float) -> list[Lane]:
    """What each thread did, devices first within a seat.

    Args:
        events: of the run.
        within: seconds from the first event that are shown.
        finest: in seconds. Where a thread has more than DENSE pieces, those of one stage that are less than this apart
            are shown as one, and a shorter one that begins less than this after another one began is left out.
    """
    first, _ = span(events)
    low, high = within
    grouped = defaultdict(list)
    for e in events:
        if e.end - first > low and e.start - first < high:
            grouped[e.seat, e.thread].append(e)
    found = []
    # The parent, which has no seat, comes last.
    for seat, thread in sorted(grouped, key=lambda key: (not key[0], key[0], key[1] != DEVICE, key[1])):
        own = sorted(grouped[seat, thread], key=lambda e: e.start)
        dense = len(own) > DENSE
        spans: list[tuple[str, float, float, int]] = []
        for e in own:
            start, end = max(e.start - first, low), min(e.end - first, high)
            if dense and spans and spans[-1][0] == e.stage and start - spans[-1][2] <= finest:
                stage, begun, ended, items = spans[-1]
                spans[-1] = stage, begun, max(end, ended), items + e.items
            elif not dense or not spans or end - start >= finest or start - spans[-1][1] >= finest:
                spans.append((e.stage, start, end, e.items))
        found.append(Lane(seat, thread, spans))
    return found
