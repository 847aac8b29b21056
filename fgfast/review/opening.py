"""How the parts of a real run are opened; tests open others."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fgfast.records import Outcome
from fgfast.review.items import Flag

if TYPE_CHECKING:
    from fgfast.ops.doubt import Weights


@dataclass(frozen=True, slots=True)
class Opening:
    """How the parts of a run are opened, each in the thread that uses it.

    Attributes:
        out: the output folder.
        twin: opens a `fgfast.pipeline.twin.Twin` of it.
        mender: opens a `fgfast.pipeline.mending.Mender` of it; None to read only.
        flags: outcome -> what makes it doubtful, strongest first.
        segmenting: fingerprint of the run -> what makes masks from clicks, a `fgfast.review.segmenting.Segmenting`.
        who: name of the person, for decisions.
    """

    out: Path
    twin: Callable[[], contextlib.AbstractContextManager[Any]]
    mender: Callable[[], contextlib.AbstractContextManager[Any]] | None
    flags: Callable[[Outcome], Sequence[Flag]]
    segmenting: Callable[[Any], Any]
    who: str


class RuleFlag(NamedTuple):
    """What a rule of the run found, which the doubt has no sentence for."""

    name: str
    number: float
    share: float
    sentence: str


def opening_of(out: Path, root: Path | None, read_only: bool, who: str) -> Opening:
    """Return how the parts of a run are opened.

    Args:
        out: the output folder.
        root: the data set's folder, where it has moved since.
        read_only: whether nothing may be changed; no lock is taken then.
        who: name of the person, for decisions.
    """
    from fgfast.pipeline.flagging import weights_in
    from fgfast.pipeline.mending import Mender
    from fgfast.pipeline.twin import Twin
    from fgfast.review.segmenting import Segmenting

    def twin() -> contextlib.AbstractContextManager[Any]:
        return Twin.open(out, root)

    def mender() -> contextlib.AbstractContextManager[Any]:
        return Mender.open(out, root)

    with Twin.open(out, root) as opened:
        weights = weights_in(opened.output.ledger)
    flags = partial(flags_of, weights=weights)
    return Opening(out, twin, None if read_only else mender, flags, Segmenting.start, who)


def flags_of(o: Outcome, weights: Weights | None) -> Sequence[Flag]:
    """Return what makes an outcome doubtful, strongest first; then what else the run's rules found."""
    from fgfast.ops.doubt import doubt

    found: list[Flag] = [*doubt(o.numbers, weights).flags]
    named = {flag.name for flag in found}
    return [
        *found,
        *(
            RuleFlag(name, o.numbers.get(name, 1.0), 0.0, f"The run says: {name}.")
            for name in o.reasons
            if name not in named
        ),
    ]
