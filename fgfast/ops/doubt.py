"""How doubtful a result is, 0..1, from its numbers; and the flags that made it so.

Sure flags come first: nothing was detected, the mask is empty, or far from the annotated box or mask. Every other
number is compared with those of right results (`Term`), and a logistic model adds up what is unusual. No term may
speak for a result where its flag speaks against it: weights are never negative. They were fitted to planted errors by
bench/review_trial.py; docs/doubt.md describes how.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from fgfast.errors import UsageError
from fgfast.files import read_regular

SURE = 0.99
"""The least doubt of a result that a sure flag is raised for, and more than that of any other."""
FAR_FROM = 0.5
"""1 - IoU of the mask's box and the annotated one, or of the mask and the official one, from which they are not of one
object: PASCAL VOC's usual half."""
ORDINARY, HIGHEST = 1.0, 6.0
"""Standard deviations from the mean of right results up to which a number adds nothing, and beyond which nothing more:
an ordinary number is no merit that would make up for another one's fault, and one number alone decides nothing. Chosen
with the roots of `seen` by cross-validation over the photographs that the weights are fitted to; see docs/doubt.md."""
TYPICAL_FILL = 0.62
"""Part of a box that subjects usually fill, as in ../shared/review/trial.py. More is doubtful, as less is."""
VERSION = 3
"""Of the file of weights. Version 2, in which all numbers are ordinary up to `ORDINARY`, is read, too; no other is."""
# Of them, an IoU of less than half is sure.
_FAR = ("far from the annotated box", "far from the official mask")
_SURE = ("no box", "not detected", "empty", *_FAR)
_LARGEST_FILE = 1 << 20  # bytes; the built-in file has some thousand

SENTENCES: dict[str, str] = {
    "no box": "Nothing was found, and the middle of the image stands in.",
    "not detected": "Nothing was detected, and the annotated box stands in.",
    "empty": "The mask is empty, or nearly.",
    "far from the annotated box": "The mask's box differs from the annotated box.",
    "beyond the annotated box": "The mask reaches beyond a side of the annotated box.",
    "short of the annotated box": "The mask does not reach a side of the annotated box.",
    "keypoints outside": "Annotated points of the subject lie outside the mask.",
    "far from the official mask": "The mask differs from the data set's own.",
    "box gap": "The mask does not reach the sides of its box, or reaches beyond them.",
    "fill": "The mask fills unusually little or much of its box.",
    "outside the box": "A part of the mask lies outside the box.",
    "straight cut": "The mask ends in a straight line along a side of the box.",
    "border contact": "The mask touches the border of the image where its box does not.",
    "parts": "The mask has several parts.",
    "holes": "The mask has holes.",
    "weak outline": "The image has only weak edges under the mask's outline.",
    "missing outline": "Long parts of the mask's outline have no edge under them.",
    "alike colours": "The subject's colours are also those just outside the mask.",
    "alike surroundings": "The subject's colours are also those of the rest of the image.",
    "colour leaks out": "Just outside the mask, the colours are the subject's.",
    "colour leaks in": "Just inside the mask, the colours are the background's.",
    "unstable box": "A slightly different box gives another mask.",
    "unstable box, worst": "One of the slightly different boxes gives a quite different mask.",
    "grows with the box": "A larger box gives a larger mask.",
    "unstable own box": "The mask's own box gives another mask.",
    "box gap, other boxes": "Masks of slightly different boxes do not reach their boxes' sides, or reach beyond them.",
    "unstable without a box": "Cut by its colours alone, without a box, the mask is another one.",
    "cut by the box": "Where the mask ends at its box, its colours go on.",
    "low score": "The detector is not sure of the box.",
    "close runner-up": "Another box has nearly the same score.",
    "not the subject": "What was detected is not the subject.",
    "low quality": "The segmenter itself expects a poor mask.",
    "low stability": "The mask changes with the segmenter's threshold.",
}
"""Name of a number -> what it means where it is high."""
NAMES = tuple(SENTENCES)


class Flag(NamedTuple):
    """A reason to doubt a result.

    Attributes:
        name: one of `NAMES`.
        number: the number that was computed.
        share: what it adds to the doubt, in nats of the odds; that of a sure flag is infinite.
        sentence: what it means.
    """

    name: str
    number: float
    share: float
    sentence: str


@dataclass(frozen=True, slots=True)
class Doubt:
    """How doubtful a result is.

    Attributes:
        value: 0..1; from `SURE` on, a sure flag is raised.
        flags: those that raise the doubt, strongest first.
    """

    value: float
    flags: tuple[Flag, ...]


@dataclass(frozen=True, slots=True)
class Term:
    """One number in the model.

    Attributes:
        mean, deviation: of the number, as `seen`, in right results.
        weight: nats of the odds per standard deviation above what is ordinary; at least 0.
        ordinary: standard deviations from the mean up to which it adds nothing.
    """

    mean: float
    deviation: float
    weight: float
    ordinary: float = ORDINARY

    def share(self, number: float) -> float:
        """Return what a number, as `seen`, adds to the odds, in nats."""
        return self.weight * standardised(number, self.mean, self.deviation, self.ordinary)


@dataclass(frozen=True, slots=True)
class Family:
    """The model for the results of one kind of run.

    Attributes:
        intercept: nats of the odds of a result whose numbers are those of right ones on average.
        terms: number -> term.
        reason: how it came to be.
    """

    intercept: float
    terms: Mapping[str, Term]
    reason: str


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of every family of runs; see `family`."""

    families: Mapping[str, Family]

    @classmethod
    def load(cls, path: Path) -> Weights:
        """Read a file of weights, as bench/review_trial.py --fit writes it.

        Raises:
            UsageError: it cannot be read, or is no such file.
        """
        try:
            return cls.parse(read_regular(path, limit=_LARGEST_FILE))
        except OSError as error:
            raise UsageError(f"doubt weights {path} cannot be read: {error.strerror or error}") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(
                f"{path} is no file of doubt weights of version {VERSION} ({type(error).__name__}: {error}); write one "
                "with bench/review_trial.py --fit"
            ) from error

    @classmethod
    def parse(cls, text: bytes) -> Weights:
        """Parse the content of such a file.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: it is none.
        """
        content = json.loads(text)
        if content["version"] not in (2, VERSION):
            raise ValueError(f"version {content['version']!r}")
        return cls({str(name): _family(name, entry) for name, entry in content["families"].items()})

    def family(self, numbers: Mapping[str, float]) -> Family | None:
        """Return the model for a result with these numbers, told by which there are; None where there is none."""
        return self.families.get(family_name(numbers))


def family_name(numbers: Mapping[str, float]) -> str:
    """Return the name of the family of a result: "sam" or "grabcut", ", second look", ", box known"."""
    name = "sam" if "low quality" in numbers or "low stability" in numbers else "grabcut"
    if "unstable box" in numbers:
        name += ", second look"
    return f"{name}, box known" if "far from the annotated box" in numbers else name


def standardised(number: float, mean: float, deviation: float, ordinary: float = ORDINARY) -> float:
    """Return by how much a number is unusual, in standard deviations of right results; 0 up to what is `ordinary`."""
    away = (number - mean) / deviation
    return 0.0 if away <= ordinary else (away if away < HIGHEST else HIGHEST) - ordinary


def seen(name: str, number: float) -> float:
    """Return a number as the model takes it, as a root: higher is more doubtful, and most numbers are small ones."""
    if name == "fill":
        number = abs(number - TYPICAL_FILL)
    return math.sqrt(number) if number > 0 else 0.0


def says_something(numbers: Mapping[str, float], weights: Weights) -> bool:
    """Whether there is any number that the doubt can be estimated from: a sure one, or one that has a weight."""
    family = weights.family(numbers)
    return any(sure(name, number) or (family and name in family.terms) for name, number in numbers.items())


def doubt(numbers: Mapping[str, float], weights: Weights | None = None) -> Doubt:
    """Return how doubtful a result is; 0, without a flag, where no number says anything.

    Args:
        numbers: of the result, any of `NAMES`; others are ignored.
        weights: of the models; by default the built-in ones.
    """
    known = {name: number for name, number in numbers.items() if name in SENTENCES and math.isfinite(number)}
    if not known:
        return Doubt(0.0, ())
    family = (built_in() if weights is None else weights).family(known)
    certain = [name for name in _SURE if name in known and sure(name, known[name])]
    raised = [Flag(name, known[name], math.inf, SENTENCES[name]) for name in certain]
    odds, more = (family.intercept, []) if family else (-math.inf, [])
    for name, term in family.terms.items() if family else ():
        if (number := known.get(name)) is not None:
            share = term.share(seen(name, number))
            odds += share
            if share > 0 and name not in certain:
                more.append(Flag(name, number, share, SENTENCES[name]))
    more.sort(key=lambda flag: -flag.share)
    value = 1 / (1 + math.exp(-max(odds, -700.0)))
    value = SURE + (1 - SURE) * value if raised else SURE * value
    return Doubt(value, (*raised, *more))


def sure(name: str, number: float) -> bool:
    """Whether a number alone says for sure that the result is wrong; "empty" is only a number of masks that are."""
    return name in _SURE and (name not in _FAR or number >= FAR_FROM)


def raises_sure(numbers: Mapping[str, float]) -> bool:
    """Whether any number alone says for sure that the result is wrong."""
    return any(sure(name, number) for name, number in numbers.items())


def _family(name: str, entry: Any) -> Family:
    terms = {
        flag: Term(*map(float, (t["mean"], t["deviation"], t["weight"], t.get("ordinary", ORDINARY))))
        for flag, t in entry["terms"].items()
    }
    for flag, term in terms.items():
        if flag not in SENTENCES:
            raise ValueError(f"{flag!r} of {name!r} is no flag")
        if not (term.weight >= 0 and term.deviation > 0 and all(map(math.isfinite, (term.mean, term.weight)))):
            raise ValueError(f"{flag!r} of {name!r} must have a weight of at least 0 and a deviation above it")
        if not -HIGHEST <= term.ordinary < HIGHEST:
            raise ValueError(f"{flag!r} of {name!r} is ordinary from {-HIGHEST:g} to {HIGHEST:g}, not {term.ordinary}")
    return Family(float(entry["intercept"]), terms, str(entry["reason"]))


@cache
def built_in() -> Weights:
    """Return the weights that fgfast brings."""
    return Weights.load(BUILT_IN)


BUILT_IN = Path(__file__).with_name("doubt_weights.json")
"""The file of the weights that fgfast brings."""
