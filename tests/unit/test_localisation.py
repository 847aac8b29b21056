"""How well parts localise landmarks: against scikit-learn's regression and mutual information."""

from __future__ import annotations

import numpy as np
import pytest

from fgfast.ops.localisation import (
    contingency,
    distances,
    in_box,
    information_interval,
    mean_interval,
    mutual_information,
    regressed,
)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def test_places_are_fractions_of_the_box() -> None:
    points = np.array([[[10.0, 20], [30, 60]]])
    assert in_box(points, np.array([[10.0, 20, 30, 60]])).tolist() == [[[0, 0], [1, 1]]]


def test_the_regression_is_the_published_one() -> None:
    linear, scaling = pytest.importorskip("sklearn.linear_model"), pytest.importorskip("sklearn.preprocessing")
    draw = generator()
    centres, landmarks = draw.random((50, 4, 2)), draw.random((50, 3, 2))
    landmarks[draw.random((50, 3)) < 0.3] = np.nan
    fitted = np.arange(50) < 30
    found = regressed(centres, landmarks, fitted)
    for index in range(3):
        rows = fitted & ~np.isnan(landmarks[:, index, 0])
        inputs = scaling.StandardScaler().fit(centres[rows].reshape(-1, 8))
        outputs = scaling.StandardScaler().fit(landmarks[rows, index])
        given = inputs.transform(centres.reshape(-1, 8))
        model = linear.LinearRegression(fit_intercept=False).fit(given[rows], outputs.transform(landmarks[rows, index]))
        np.testing.assert_allclose(found[:, index], outputs.inverse_transform(model.predict(given)), atol=1e-9)


def test_landmarks_that_follow_the_parts_are_found_exactly() -> None:
    centres = generator().random((40, 3, 2))
    landmarks = 0.5 * centres[:, :2] + 0.5 * centres[:, 1:] + 0.1
    found = regressed(centres, landmarks, np.arange(40) < 20)
    np.testing.assert_allclose(distances(found, landmarks), 0, atol=1e-9)


def test_a_missing_part_is_where_it_is_on_average() -> None:
    centres = generator(1).random((30, 2, 2))
    centres[5, 1], centres[29] = np.nan, np.nan
    found = regressed(centres, centres[:, :1] * 2, np.arange(30) < 20)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[29, 0], 2 * centres[:20, 0].mean(axis=0))
    centres[:, 1] = np.nan
    assert np.isfinite(regressed(centres, centres[:, :1], np.arange(30) < 20)).all()


def test_landmarks_that_are_not_seen_do_not_count() -> None:
    landmarks = np.zeros((3, 2, 2))
    landmarks[0, 1], landmarks[1] = np.nan, np.nan
    predicted = landmarks + np.array([0.3, 0.4])
    np.testing.assert_allclose(distances(predicted, landmarks), [0.5, np.nan, 0.5])
    assert np.isnan(regressed(np.zeros((3, 1, 2)), landmarks, np.array([True, True, False]))).all()


def together(first: list[int], second: list[int]) -> np.ndarray:
    return contingency([0] * len(first), first, second, (1, 10, 10))[0]


def test_mutual_information_is_as_counted_elsewhere() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    draw = generator()
    first, second = draw.integers(0, 5, 200).tolist(), draw.integers(0, 3, 200).tolist()
    wanted = metrics.normalized_mutual_info_score(first, second)
    assert mutual_information(together(first, second)) == pytest.approx(wanted)
    assert mutual_information(together(first, [9 - label for label in first])) == pytest.approx(1)
    assert mutual_information(together([], [])) == 1 == mutual_information(together([1, 1], [2, 2]))
    assert mutual_information(together([1, 1], [2, 3])) == 0


def test_the_interval_of_information_is_on_the_side_of_the_better_parts() -> None:
    draw = generator(5)
    images, landmarks = np.repeat(np.arange(60), 5), np.tile(np.arange(5), 60)
    noisy = np.where(draw.random(300) < 0.5, draw.integers(0, 5, 300), landmarks)
    good, poor = (
        contingency(images.tolist(), landmarks.tolist(), own.tolist(), (60, 5, 5)) for own in (landmarks, noisy)
    )
    low, high = information_interval(poor, good, generator(), 200)
    assert 0 < low < 1 - mutual_information(poor.sum(axis=0)) < high < 1
    assert information_interval(good, good, generator(), 20) == (0, 0)


def test_the_interval_of_a_mean_is_that_of_the_normal_law() -> None:
    values = generator(4).random(400)
    low, high = mean_interval(values, generator())
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert mean_interval(values[:1], generator()) == (values[0], values[0])
