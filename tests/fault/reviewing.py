"""A scripted review in a process of its own: `python reviewing.py OUT` says each step once it is acknowledged.

It goes on where an earlier one was killed: the steps are a list, and the decisions that are stored tell how far it was.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from fgfast.pipeline.mending import Change, Mender, Refused
from fgfast.records import Bool, Outcome

STEPS = 60


def drawn(step: int, height: int, width: int) -> Bool:
    """A disc with a hole and a loose pixel, another one each time."""
    rng = np.random.default_rng(step)
    x, y, r = rng.uniform(20, 50), rng.uniform(20, 40), rng.uniform(6, 18)
    rows, columns = np.ogrid[:height, :width]
    bits: Bool = (columns - x) ** 2 + (rows - y) ** 2 < r * r
    bits[int(y), int(x)] = False
    bits[0, width - 1] = True
    return bits


def decisions_of(step: int, keys: list[str]) -> list[tuple[str, str]]:
    """The verdicts of a step, each with its key; "undo" has the number that it undoes."""
    key = keys[7 * step % len(keys)]
    if step % 10 == 9:
        return [("undo", str(1 + step // 2))]
    if step % 10 == 4:
        return [("reject" if n == 2 else "accept", keys[(7 * step + 3 * n) % len(keys)]) for n in range(5)]
    return [(("accept", "mask", "reject", "mask")[step % 4], key)]


def take(mender: Mender, step: int, keys: list[str]) -> None:
    """Carry out one step."""
    what, who = decisions_of(step, keys), f"script {step}"
    if what[0][0] == "undo":
        answers = mender.undo([int(what[0][1])], who)
    else:
        changes = []
        for verdict, key in what:
            outcome = mender.output.ledger.outcome_of(key)
            assert outcome is not None and outcome.size is not None
            bits = drawn(step, *outcome.size) if verdict == "mask" else None
            changes.append(Change(key, verdict, "script", mender.decisions.last(key), bits=bits))
        answers = mender.decide(changes, who)
        assert all(isinstance(answer, Outcome) for answer in answers), answers
    assert not any(isinstance(answer, Refused) for answer in answers), answers


def review(out: Path) -> None:
    """Do what is left of the script; finish the lists now and then, and at the end."""
    with Mender.open(out) as mender:
        assert not mender.problems
        keys = sorted(mender.output.ledger.labels())
        last = mender.decisions.get(mender.decisions.last())
        for step in range(0 if last is None else int(last.who.split()[1]) + 1, STEPS):
            take(mender, step, keys)
            print(step, mender.decisions.last(), flush=True)
            if step % 20 == 13:
                mender.finish()
        mender.finish()


if __name__ == "__main__":
    review(Path(sys.argv[1]))
