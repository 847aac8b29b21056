"""A tiny converted run to expand, and what expansions are asked in tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fgfast.expand.kind import NOTHING, Planned, Request, Subject
from fgfast.expand.plan import ExpandPlan, make_plan
from fgfast.expand.run_source import Outcomes, Usable
from fgfast.pipeline.twin import Twin
from fgfast.records import Bool, Sample, UInt8


@contextmanager
def request_for(out: Path, kind: str, seed: int = 0, limit: int | None = None) -> Iterator[Request]:
    """What a kind is asked for a run: everything, or the first `limit` samples."""
    with Twin(out) as twin:
        usable = Usable(twin, "use").keys
        yield Request(twin, kind, seed, usable, usable[:limit], Outcomes(twin.output.ledger_path))


def subject(pixels: UInt8, bits: Bool, kind: str = "test", key: str = "a/b.png", **more: Any) -> Subject:
    """A subject that no run knows; `more` are `given`, `seed` and the sample's attributes."""
    given, seed = more.pop("given", NOTHING), more.pop("seed", 0)
    return Subject(Sample(key, Path(key), **more), pixels, bits, given, (seed, kind, key))


def drawn(height: int = 60, width: int = 80, seed: int = 0) -> tuple[UInt8, Bool]:
    """A noisy image with an ellipse of another colour, and its mask."""
    generator = np.random.default_rng(seed)
    rows, columns = np.ogrid[:height, :width]
    bits = ((rows - height / 2) / (height / 3)) ** 2 + ((columns - width / 2) / (width / 4)) ** 2 < 1
    pixels = generator.integers(0, 120, (height, width, 3), np.uint8)
    pixels[bits] = generator.integers(120, 256, (int(bits.sum()), 3), np.uint8)
    return pixels, bits


def planned(run: Path, kind: str, out: Path, **more: Any) -> ExpandPlan:
    """The plan of a kind for a run; a context manager."""
    return make_plan(run, kind, out, **more)


__all__ = ["Planned", "drawn", "planned", "request_for", "subject"]
