"""Waterbirds (Sagawa et al., arXiv 1911.08731) as a test of classifiers of birds: species, and groups.

A classifier of CUB's 200 species is tested on the images of Waterbirds twice: by species, and by what its species
are, waterbird or landbird, in the set's four groups. One that was trained on Waterbirds itself has the groups alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fgfast.errors import UsageError
from fgfast.pipeline.twin import Twin
from fgfast.studies.arms import Shown
from fgfast.studies.grid import Elsewhere, EvaluationSet
from fgfast.studies.pairs import RunPairs
from fgfast.studies.predictions import Predictions, some_keys
from fgfast.studies.results import Study, Trained
from fgfast.studies.tables import Table, grouped

OWN_MASKS, THEIR_MASKS = "waterbirds", "waterbirds-study-masks"
"""Names of the test sets: with the masks that convert made of the swapped images, and with those of the study."""


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of a test set.

    Attributes:
        tests: names of the test sets that have them.
        group_of: key -> group.
        train_counts: group -> samples in the data set's own training set.
        kinds: class of the study -> what it is in the groups, as an index; None where classes are those of the groups.
    """

    tests: tuple[str, ...]
    group_of: Mapping[str, str]
    train_counts: Mapping[str, int]
    kinds: Mapping[int, int] | None = None


def groups_of(twin: Twin, tests: Sequence[str]) -> Groups | None:
    """Return the groups of a run's own data set; None where it has none.

    Raises:
        UsageError: the data set is not there.
        DatasetError: its groups are not understood.
    """
    if twin.source.dataset != "waterbirds":
        return None
    found = twin.dataset.groups() or {}
    # Of the data set, not of the run, which may be of a part of it.
    trains = [sample.key for sample in twin.dataset.samples if sample.split == "train"]
    return Groups(tuple(tests), found, Counter(found[key] for key in trains if key in found))


def elsewhere(
    run: Path, root: Path | None, pairs: RunPairs, trained_on: Sequence[str], flagged: str = "use"
) -> tuple[dict[str, Elsewhere], tuple[EvaluationSet, ...], Groups]:
    """Make test sets of a run over Waterbirds for a study of CUB.

    Args:
        run: of convert, over Waterbirds.
        root: of Waterbirds, where it has moved.
        pairs: of the study.
        trained_on: keys that train, none of which is tested.
        flagged: see `RunPairs.of`.

    Returns:
        Pairs by name, the test sets that show them, and their groups.

    Raises:
        UsageError: the run is not of Waterbirds, or has nothing to test.
        DatasetError: its groups are not understood.
    """
    with Twin.open(run, root) as twin:
        found = groups_of(twin, (OWN_MASKS, THEIR_MASKS))
        if found is None:
            raise UsageError(f"{run} is a run over {twin.title}: --waterbirds takes one over Waterbirds")
        swapped, kind_of = RunPairs.of(twin, flagged), twin.labels()
    names = {_bird(key): key for key in pairs.keys}
    name_of = {key: names[_bird(key)] for key in swapped.keys if _bird(key) in names}
    species = {key: pairs.classes[pairs.labels[n]] for n, key in enumerate(pairs.keys)}
    species_of = {key: species[name] for key, name in name_of.items()}
    kinds: dict[int, int] = {}
    index = {name: n for n, name in enumerate(swapped.classes)}
    for key, name in species_of.items():
        number = pairs.classes.index(name)
        if kinds.setdefault(number, index[kind_of[key]]) != index[kind_of[key]]:
            raise UsageError(f"{run} takes some images of {name} for {swapped.classes[0]}s and some for others")
    both = {OWN_MASKS: swapped, THEIR_MASKS: swapped.masked_by(pairs, name_of)}
    trains = {_bird(key) for key in trained_on}
    made = {}
    for name, some in both.items():
        its = some.relabelled(pairs.classes, species_of)
        keep = [n for n, key in enumerate(its.keys) if its.splits[n] == "test" and _bird(key) not in trains]
        if not keep:
            left = some_keys(sorted(swapped.keys))
            raise UsageError(f"{run} has no test image of a bird that the study knows and does not train on: {left}")
        made[name] = Elsewhere(Shown(its), np.array(keep, np.int64))
    tests = tuple(EvaluationSet(name, "x", elsewhere=name) for name in made)
    return made, tests, replace(found, kinds=kinds)


def _bird(key: str) -> str:
    """Return the last folder and the name of a key: CUB's images/001.Auk/a.jpg is Waterbirds' 001.Auk/a.jpg."""
    return "/".join(key.split("/")[-2:])


def tables(study: Study, found: Groups) -> list[Table]:
    """Return the table of groups of each test set that has them.

    Raises:
        UsageError: a group occurs on one side only, or a species is neither waterbird nor landbird.
    """
    made: list[Table] = []
    for test in found.tests:
        if any(test in one.tests for one in study.trained):
            by_kind = replace(study, trained=tuple(_collapsed(one, test, found.kinds) for one in study.trained))
            table = grouped(by_kind, test, found.group_of, found.train_counts)
            made.append(replace(table, name=f"groups-{len(made) + 1}"))
    return made


def _collapsed(one: Trained, test: str, kinds: Mapping[int, int] | None) -> Trained:
    """Replace the predicted species of a test set by what they are."""
    if kinds is None or test not in one.tests:
        return one
    said = one.tests[test]
    missing = sorted({int(n) for n in (*said.labels, *said.predicted)} - kinds.keys())
    if missing:
        raise UsageError(f"Waterbirds does not say what the classes numbered {missing[:5]} are")
    labels, predicted = ([kinds[int(n)] for n in column] for column in (said.labels, said.predicted))
    return replace(one, tests={**one.tests, test: Predictions.of(said.keys, labels, predicted, said.confidence)})
