"""Decisions: from a request, through the one writer, to its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fgfast import ops
from fgfast.errors import ImageRefusedError, OutputLockedError, UsageError
from fgfast.image_formats import MAX_PIXELS
from fgfast.io.decisions import Decision
from fgfast.records import Outcome, Size
from fgfast.review.items import about
from fgfast.review.mask_runs import decode_runs, encode_runs
from fgfast.review.one_writer import OneWriter
from fgfast.review.reading import Reading, Record
from fgfast.review.requests import Wish
from fgfast.review.session import Review


def decide(review: Review, wishes: Sequence[Wish]) -> list[dict[str, Any]]:
    """Make decisions, durable together; return an answer for each, in their order.

    Raises:
        OutputLockedError: this server only reads.
        UsageError: there is no such entry, or its mask has another size.
        ImageRefusedError: all masks together have too many pixels.
        OutputFailedError: the disk is full, read-only or failing.
    """
    from fgfast.pipeline.mending import Change

    writer = writer_of(review)
    records = review.read(Reading.records, [wish.number for wish in wishes]).result()
    sizes = [r.outcome.size for w, r in zip(wishes, records, strict=True) if w.runs is not None]
    if sum(size.height * size.width for size in sizes if size) > MAX_PIXELS:
        raise ImageRefusedError("too large", f"masks of at most {MAX_PIXELS:,} pixels are taken at once; send fewer")
    changes = [
        Change(
            key=record.outcome.key,
            verdict=wish.verdict,
            how=wish.how,
            seen=wish.seen,
            cause=wish.cause,
            note=wish.note,
            bits=None if wish.runs is None else decode_runs(wish.runs, _size(record.outcome)),
            box=wish.box,
        )
        for wish, record in zip(wishes, records, strict=True)
    ]
    results = writer.submit(lambda mender: mender.decide(changes, review.who)).result()
    review.note_pace()
    numbers = [wish.number for wish in wishes]
    mine = {wish.number: wish.runs for wish in wishes}
    return _answers(review, numbers, results, mine)


def undo(review: Review, decisions: Sequence[int]) -> list[dict[str, Any]]:
    """Undo decisions, durable together; return an answer for each.

    Raises:
        see `decide`.
    """
    writer = writer_of(review)
    places = [review.place(_decision(review, number).key) for number in decisions]
    results = writer.submit(lambda mender: mender.undo(decisions, review.who)).result()
    return _answers(review, [review.entries.number(place) for place in places], results, {})


def writer_of(review: Review) -> OneWriter:
    """Return the thread that decides.

    Raises:
        OutputLockedError: this server only reads.
    """
    if review.writer is None:
        raise OutputLockedError(
            "this server only shows the output (--read-only), so nothing can be decided here: use the one that was "
            "started without it, or start fgfast review again without it"
        )
    return review.writer


def _size(o: Outcome) -> Size:
    if o.size is None:
        raise UsageError(f"{o.key} was never decoded, so it can have no mask; repair the image and convert again")
    return o.size


def _decision(review: Review, number: int) -> Decision:
    found = review.read(lambda reading: reading.decisions and reading.decisions.get(number)).result()
    if not isinstance(found, Decision):
        raise UsageError(f"there is no decision {number}")
    return found


def _answers(
    review: Review, numbers: Sequence[int], results: Sequence[Any], mine: dict[int, str | None]
) -> list[dict[str, Any]]:
    """Return the answers about entries: what each is now, or which decision came in between."""
    records = review.taken(numbers)
    answers = []
    about_files = zip(review.problems(records), review.left(records), strict=True)
    for number, record, result, (problem, left) in zip(numbers, records, results, about_files, strict=True):
        fields = review.item(record, problem)
        if isinstance(result, Outcome):
            answers.append({"id": number, "number": record.revision, "item": fields, "left": left})
        elif not hasattr(result, "now"):  # a Refused
            answers.append({"id": number, "item": fields, "refused": result.reason})
        else:
            answers.append({"id": number, "item": fields, "conflict": _conflict(record, result, mine.get(number))})
    return answers


def _conflict(record: Record, conflict: Any, mine: str | None) -> dict[str, Any]:
    o = record.outcome
    theirs = encode_runs(ops.rle_decode(o.rle, *o.size)) if o.rle is not None and o.size else None
    return {
        "seen": conflict.seen,
        "now": about(conflict.now),
        "size": list(o.size) if o.size else None,
        "mine": mine,
        "theirs": theirs,
    }
