"""Figures of studies: planted mistakes are caught."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("statsmodels")

from fgfast.errors import DatasetError, UsageError
from fgfast.studies import figures
from fgfast.studies.predictions import Predictions, as_table, read_predictions


def said(labels: list[int], predicted: list[int], prefix: str = "k") -> Predictions:
    """Predictions of images k0, k1, ..."""
    return Predictions.of([f"{prefix}{n}" for n in range(len(labels))], labels, predicted, [0.5] * len(labels))


def drawn(count: int, share: float, seed: int) -> Predictions:
    rng = np.random.default_rng(seed)
    return said([0] * count, (rng.random(count) >= share).astype(int).tolist())


def test_accuracy_is_of_images_not_of_classes() -> None:
    """The mistake: torchmetrics' default is the mean over classes, which gives 0.33 for 3 of 4."""
    some = said([0, 0, 0, 1], [0, 0, 0, 2])
    assert figures.accuracy(some) == 0.75
    macro = np.nanmean(np.append(figures.per_class(some, 2), 0))  # class 2, predicted once, counts as 0 there
    assert macro == pytest.approx(1 / 3)


def test_accuracy_is_no_mean_of_batches() -> None:
    """The mistake: batches of 8 and 1, all wrong but the last image, give 0.5."""
    some = said([0] * 9, [1] * 8 + [0])
    assert np.mean([some.correct[:8].mean(), some.correct[8:].mean()]) == 0.5
    assert figures.accuracy(some) == pytest.approx(1 / 9)


def test_a_class_without_image_has_no_accuracy() -> None:
    each = figures.per_class(said([0, 2], [0, 0]), 4)
    np.testing.assert_array_equal(each, [1, np.nan, 0, np.nan])
    with pytest.raises(UsageError, match="below the number of classes, 2, not 2"):
        figures.per_class(said([0, 2], [0, 0]), 2)


def test_arms_of_other_images_are_an_error_that_names_them() -> None:
    with pytest.raises(UsageError, match=r"only here: 'k3'; only there: 'x<b>'"):
        figures.paired(said([0] * 4, [0] * 4), Predictions.of(["k0", "k1", "k2", "x<b>"], [0] * 4, [0] * 4, [1] * 4))
    with pytest.raises(UsageError, match="label differs between the sides: 'k1'"):
        figures.paired(said([0, 1], [0, 0]), said([0, 0], [0, 0]))


def test_images_are_paired_by_key_not_by_place() -> None:
    first = Predictions.of("ab", [0, 1], [0, 0], [1, 1])
    second = Predictions.of("ba", [1, 0], [0, 0], [1, 1])
    found = figures.difference([(first, second)])
    assert found.value == 0 and found.gained == found.lost == (0,) and found.mcnemar == (1.0,)


@pytest.mark.parametrize(
    ("keys", "labels", "confidence", "match"),
    [
        (["a", "b", "a"], [0, 0, 0], [1, 1, 1], "more than once: 'a'"),
        (["a", "b"], [0, 0], [1, np.nan], "NaN.*: 'b'"),
        (["a", "b"], [0, 0], [1, 1.5], "between 0 and 1.*: 'b'"),
        (["a", "b"], [0, 0], [1], "of one length"),
        (["a", "b"], [0, -1], [1, 1], "negative"),
        ([], [], [], "no predictions"),
    ],
)
def test_predictions_that_are_none(keys: list[str], labels: list[int], confidence: list[float], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        Predictions.of(keys, labels, [0] * len(keys), confidence)


def test_fewer_than_three_seeds_have_no_interval() -> None:
    assert figures.over_seeds([0.8]) == figures.Estimate(0.8)
    assert not figures.over_seeds([0.5, 0.7]).sure
    three = figures.over_seeds([0.5, 0.6, 0.7])
    # t(0.975, 2) = 4.3027, deviation 0.1: half a width of 0.2484.
    assert (three.value, three.low, three.high) == pytest.approx((0.6, 0.6 - 0.24841, 0.6 + 0.24841), abs=1e-4)
    with pytest.raises(UsageError):
        figures.over_seeds([])


def test_a_difference_is_paired_and_repeatable() -> None:
    first, second = drawn(400, 0.8, 1), drawn(400, 0.3, 2)
    found = figures.difference([(first, second)], seed=5)
    assert found == figures.difference([(first, second)], seed=5)
    assert found.value == pytest.approx(figures.accuracy(first) - figures.accuracy(second))
    values = first.correct.astype(float) - second.correct
    half = 1.96 * values.std() / 20
    assert found.images.low == pytest.approx(found.value - half, abs=0.01)
    assert found.images.high == pytest.approx(found.value + half, abs=0.01)
    assert found.mcnemar[0] < 1e-9 and found.gained[0] - found.lost[0] == round(found.value * 400)
    assert not found.seeds.sure and not found.wide.sure


def test_three_trainings_widen_what_a_verdict_needs() -> None:
    found = figures.difference([(drawn(300, p, s), drawn(300, 0.3, s + 9)) for s, p in enumerate((0.9, 0.6, 0.75))])
    assert found.seeds.count == 3 and found.wide.sure
    assert found.seeds.high - found.seeds.low > found.images.high - found.images.low  # type: ignore[operator]
    assert found.wide.low == min(found.images.low, found.seeds.low)  # type: ignore[type-var]


def test_mcnemar_is_the_binomial_test_of_what_changed() -> None:
    first = np.array([True] * 10 + [False] * 4)
    second = np.array([True] * 4 + [False] * 6 + [True] + [False] * 3)
    # 6 lost, 1 gained of 7: 2 * (1 + 7) / 128.
    assert figures.mcnemar(first, second) == pytest.approx(0.125)


def test_one_image_and_equal_images() -> None:
    assert not figures.bootstrap_mean(np.array([1.0])).sure
    assert figures.bootstrap_mean(np.ones(5)) == figures.Estimate(1, 1, 1, 5)


def test_groups_average_by_train_and_worst() -> None:
    """The mistake: the average of the balanced test set taken for the published one."""
    some = said([0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 0])
    group_of = dict(
        zip(some.keys, ["land/land", "land/land", "land/water", "land/water", "water", "water"], strict=True)
    )
    found = figures.groups(some, group_of, {"land/land": 8, "land/water": 1, "water": 1})
    assert found.plain == pytest.approx(4 / 6) and found.average == pytest.approx(0.9)
    assert (found.worst, found.worst_group) == (0.5, "land/water")
    with pytest.raises(UsageError, match="without a group: 'k5'"):
        figures.groups(some, {key: g for key, g in group_of.items() if key != "k5"}, {})
    with pytest.raises(UsageError, match="one side only: 'water'"):
        figures.groups(some, group_of, {"land/land": 8, "land/water": 1, "water": 0})


def test_predictions_as_file(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import parquet

    some = Predictions.of(["b", "ä<"], [1, 0], [1, 1], [0.25, 1])
    path = tmp_path / "predictions-x.parquet"
    parquet.write_table(as_table(some), path)
    found = read_predictions(path)
    assert found.keys == ("b", "ä<") and found.labels.tolist() == [1, 0] and found.confidence.tolist() == [0.25, 1]
    table = as_table(some)
    parquet.write_table(table.drop_columns("label"), path)
    with pytest.raises(DatasetError, match="label"):
        read_predictions(path)
    parquet.write_table(table.append_column("arm", [["x", "x"]]).slice(0, 0), path)
    with pytest.raises(DatasetError, match="no predictions"):
        read_predictions(path)
    path.write_bytes(b"PAR1 not so")
    with pytest.raises(DatasetError, match="no table of predictions"):
        read_predictions(path)
