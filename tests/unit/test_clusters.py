"""k-means: against scikit-learn's from the same start, and where there is little to cluster."""

from __future__ import annotations

import numpy as np
import pytest

from fgfast.ops.clusters import k_means, nearest


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def clouds(sizes: tuple[int, ...] = (60, 40, 20), dimensions: int = 3) -> np.ndarray:
    """Clouds of points around (10, 10, ..), (20, 20, ..) and so on."""
    draw = generator(1)
    return np.concatenate([10 * i + draw.random((n, dimensions)) for i, n in enumerate(sizes, 1)])


def test_clouds_are_found_the_largest_first() -> None:
    points = clouds()
    centres = k_means(points, 3, generator())
    assert np.round(centres.mean(axis=1) - 0.5).tolist() == [10, 20, 30]
    assert np.bincount(nearest(points, centres)).tolist() == [60, 40, 20]


def test_no_start_of_the_other_program_does_better() -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    points = generator(2).random((400, 5))
    centres = k_means(points, 6, generator(), starts=10)
    other = cluster.KMeans(6, init=centres, n_init=1).fit(points)
    np.testing.assert_allclose(other.cluster_centers_, centres, atol=1e-3)  # it has nothing left to move
    best = cluster.KMeans(6, n_init=10, random_state=0).fit(points).inertia_
    squares = ((points - centres[nearest(points, centres)]) ** 2).sum()
    assert squares <= 1.02 * best


def test_the_same_generator_gives_the_same_bytes() -> None:
    points = generator(3).random((300, 4))
    first, again, other = (k_means(points, 5, generator(seed)) for seed in (7, 7, 8))
    assert first.tobytes() == again.tobytes() != other.tobytes()


def test_fewer_different_points_than_clusters_give_as_many_centres() -> None:
    points = np.repeat(np.array([[0.0, 0], [5, 5]]), (4, 9), axis=0)
    assert k_means(points, 8, generator()).tolist() == [[5, 5], [0, 0]]
    assert k_means(points[:1], 8, generator()).tolist() == [[0, 0]]
    assert k_means(points[:0], 8, generator()).shape == (0, 2)
    assert nearest(points[:0], points).shape == (0,)


@pytest.mark.parametrize(("points", "k"), [(np.zeros((3, 2)), 0), (np.full((3, 2), np.nan), 2), (np.zeros(3), 2)])
def test_what_cannot_be_clustered_is_refused(points: np.ndarray, k: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        k_means(points, k, generator())
