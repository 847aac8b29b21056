"""Maps of features in the plane, t-SNE and UMAP side by side as in Fig. 6: to look at, not to measure."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgfast.records import Float32
from fgfast.studies.plots import figure_of, plain, svg
from fgfast.studies.tables import clean

MOST_POINTS = 2000
"""Samples on a map, of each class alike: more hide one another, and make the page heavy."""
SENTENCE = (
    "Distances and sizes in these maps mean nothing: t-SNE and UMAP keep neighbours, and spread everything else as it "
    "fits. What can be said of the classes is in the table."
)
_PERPLEXITY = 30.0  # openTSNE's own; fewer samples have less
_LEAST_POINTS = 4  # fewer have no neighbours to keep
_FEW = 200  # samples that bear larger points
_NAMED = 10  # classes in a legend, at most: more would hide the maps


def tsne(values: Float32, seed: int) -> NDArray[np.float64]:
    """Return points of a map, (N, 2): openTSNE, cosine distances, PCA start."""
    from openTSNE import TSNE

    perplexity = max(1.0, min(_PERPLEXITY, (len(values) - 1) / 3))
    made = TSNE(perplexity=perplexity, metric="cosine", initialization="pca", random_state=seed, n_jobs=1)
    return np.asarray(made.fit(values.astype(np.float64)), np.float64)


def umap(values: Float32, seed: int) -> NDArray[np.float64]:
    """Return points of a map, (N, 2): umap-learn, cosine distances, PCA start."""
    from threadpoolctl import threadpool_limits

    # numba sets the number of threads of the whole process, torch's as well, on which last bits of features depend.
    with threadpool_limits(1):
        with warnings.catch_warnings():  # on its import: a part of it that we do not use needs TensorFlow
            warnings.simplefilter("ignore", ImportWarning)
            from umap import UMAP

        near = max(2, min(15, len(values) - 1))
        made = UMAP(n_neighbors=near, metric="cosine", init="pca", random_state=seed, n_jobs=1)
        return np.asarray(made.fit_transform(values), np.float64)


def methods() -> tuple[Mapping[str, Callable[[Float32, int], NDArray[np.float64]]], list[tuple[str, str]]]:
    """Return the methods that are installed, and what is not run, with the way out."""
    there: dict[str, Callable[[Float32, int], NDArray[np.float64]]] = {}
    missing = []
    for name, package, install, method in (
        ("t-SNE", "openTSNE", "openTSNE", tsne),
        ("UMAP", "umap", "umap-learn", umap),
    ):
        if find_spec(package) is None:
            missing.append((name, f"{package} is not installed: pip install {install}"))
        else:
            there[name] = method
    return there, missing


def drawable(values: Float32) -> bool:
    """Whether rows, (N, D), have directions that differ: else there is nothing to lay out."""
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return len(values) >= _LEAST_POINTS and bool(np.all(length > 0)) and bool(np.ptp(values / length, axis=0).any())


def some(labels: NDArray[np.int64], most: int = MOST_POINTS) -> NDArray[np.int64]:
    """Return the indexes of at most so many samples, in turn from each class."""
    rank = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        its = np.flatnonzero(labels == label)
        rank[its] = np.arange(len(its))
    return np.sort(np.lexsort((labels, rank))[:most])


def maps(
    points: Mapping[tuple[str, str], NDArray[np.float64]], labels: NDArray[np.int64], classes: Sequence[str], title: str
) -> str:
    """Draw maps: a column for each arm, a row for each method.

    Args:
        points: (method, arm) -> (N, 2).
        labels: (N,), index of the class, which is the colour.
        classes: names, by index.
        title: what the ids of the drawing depend on.
    """
    rows, columns = (tuple(dict.fromkeys(key[n] for key in points)) for n in (0, 1))
    drawing, grid = figure_of(len(rows), len(columns))
    there = np.unique(labels)
    places = np.searchsorted(there, labels)
    for (method, arm), found in points.items():
        axes: Any = grid[rows.index(method)][columns.index(arm)]
        ink = axes.spines["left"].get_edgecolor()
        style: Any = {"cmap": "turbo", "vmin": -0.5, "vmax": len(there) - 0.5, "linewidths": 0}
        drawn = axes.scatter(found[:, 0], found[:, 1], s=12 if len(found) < _FEW else 6, c=places, **style)
        axes.set_title(f"{method}, {arm}", fontsize=9, parse_math=False, color=ink)
        axes.set_xticks([])
        axes.set_yticks([])
    if len(there) <= _NAMED:
        names = [f" {plain(classes[label])}" for label in there]  # matplotlib hides names that begin with "_"
        marks = drawn.legend_elements(num=list(range(len(there))))[0]
        legend = drawing.legend(marks, names, ncols=2, fontsize=8, loc="outside upper left", frameon=False)
        for text in legend.get_texts():
            text.set_color(ink)
            text.set_parse_math(False)
    salt = hashlib.sha256(clean(title).encode()).hexdigest()
    return svg(drawing, f"maps {salt}")


def order(arms: Sequence[str]) -> tuple[str, ...]:
    """Return the arms that are drawn, X and X_FG first."""
    first = [arm for arm in ("x", "x_fg") if arm in arms]
    return tuple(first or list(arms)[:2])
