"""How the parts of a real run are opened; tests open others."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fgfast.review.items import Flag
from fgfast.review.session import Opening


def opening_of(out: Path, root: Path | None, read_only: bool, who: str) -> Opening:
    """Return how the parts of a run are opened.

    Args:
        out: the output folder.
        root: the data set's folder, where it has moved since.
        read_only: whether nothing may be changed; no lock is taken then.
        who: name of the person, for decisions.
    """
    from fgfast.ops.doubt import doubt
    from fgfast.pipeline.mending import Mender
    from fgfast.pipeline.twin import Twin

    def twin() -> contextlib.AbstractContextManager[Any]:
        return Twin.open(out, root)

    def mender() -> contextlib.AbstractContextManager[Any]:
        return Mender.open(out, root)

    def flags(numbers: Mapping[str, float]) -> Sequence[Flag]:
        found: Sequence[Flag] = doubt(numbers).flags
        return found

    return Opening(out, twin, None if read_only else mender, flags, who)
