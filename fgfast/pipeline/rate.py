"""The speed of earlier runs on this machine, for the expectation before a run."""

from __future__ import annotations

from fgfast.models.files import measured
from fgfast.pipeline.plan import Plan

# A run counts from this many images and seconds: a shorter one measures its start.
_IMAGES, _SECONDS = 20, 5.0


def remember_rate(plan: Plan, images: int, seconds: float) -> None:
    """Store the images per second of a run, for runs with the same methods, devices and kind of output."""
    if images >= _IMAGES and seconds >= _SECONDS:
        measured.remember(_key(plan), images / seconds)


def expected_rate(plan: Plan) -> float | None:
    """Return the images per second of the last run like this one; None where none was measured."""
    found = measured.recall(_key(plan))
    return found if isinstance(found, float) and found > 0 else None


def _key(plan: Plan) -> str:
    s = plan.settings
    what = (
        f"run {s.detector} {s.segmenter} {s.precision} {s.backend} {s.format} masks {s.masks} on {','.join(s.places)}"
        f"{'' if s.workers_per_device == 'auto' else f' x{s.workers_per_device}'}"
    )
    return measured.key_of(what, s.places[0])
