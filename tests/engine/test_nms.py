"""Suppression: the oracle against the definition, the native op against the oracle; both to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from engine.implementations import Face, implementations, native, needs_native, reference
from hypothesis import given, settings
from hypothesis import strategies as st

from fgfast import ops


def candidates(count: int, seed: int = 0) -> dict[str, Any]:
    """Boxes in heaps, on whole and half pixels so that many overlaps are equal, with scores of which many are equal."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 6, (count, 2)) * 20 + rng.integers(-8, 9, (count, 2)) / 2
    sizes = rng.integers(0, 40, (count, 2)) / 2
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], 1).astype(np.float32)
    scores = (rng.integers(0, 30, count) / 30).astype(np.float32)
    return {"boxes": boxes, "scores": scores, "classes": rng.integers(-1, 3, count)}


def expected(boxes: Any, scores: Any, classes: Any, threshold: float, limit: int) -> list[int]:
    """The definition, one pair at a time."""
    kept: list[int] = []
    for own in sorted(range(len(boxes)), key=lambda n: (-scores[n], n)):
        for other in kept:
            if classes is not None and classes[own] != classes[other]:
                continue
            (a0, b0, a1, b1), (c0, d0, c1, d1) = boxes[own], boxes[other]
            shared = max(min(a1, c1) - max(a0, c0), np.float32(0)) * max(min(b1, d1) - max(b0, d0), np.float32(0))
            union = (c1 - c0) * (d1 - d0) + (a1 - a0) * (b1 - b0) - shared
            if union > 0 and shared / union > np.float32(threshold):
                break
        else:
            kept.append(own)
    return kept[:limit]


@implementations
@pytest.mark.parametrize("classwise", [True, False])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.7, 1 / 3, 1.0])
@pytest.mark.parametrize("limit", [0, 7, 1000])
def test_definition(face: Face, classwise: bool, threshold: float, limit: int) -> None:
    given = candidates(120)
    given["classes"] = given["classes"] if classwise else None
    made = face.nms(**given, threshold=threshold, limit=limit)
    assert made.dtype == np.int64
    assert made.tolist() == expected(**given, threshold=threshold, limit=limit)


@needs_native
@settings(max_examples=200, deadline=None)
@given(
    count=st.integers(0, 200),
    threshold=st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]),
    limit=st.sampled_from([0, 1, 50, 10**18]),
    hostile=st.booleans(),
    classwise=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_native_equals_reference(
    count: int, threshold: float, limit: int, hostile: bool, classwise: bool, seed: int
) -> None:
    given = candidates(count, seed)
    if hostile:
        rng = np.random.default_rng(seed)
        values = np.array([np.nan, np.inf, -np.inf, 0, -0.0, 1e-45, 3e38, -3e38], np.float32)
        for array in (given["boxes"], given["scores"]):
            array[...] = np.where(rng.random(array.shape) < 0.1, rng.choice(values, array.shape), array)
    if not classwise:
        given["classes"] = None
    made = native.nms(**given, threshold=threshold, limit=limit)
    np.testing.assert_array_equal(made, reference.nms(**given, threshold=threshold, limit=limit))


@implementations
@pytest.mark.parametrize("hostile", [False, True])
def test_equals_the_detectors_own(face: Face, hostile: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """fgfast.models.detic.suppression in PyTorch, which works where the native ops do not."""
    torch = pytest.importorskip("torch")
    from fgfast.models.detic import suppression

    monkeypatch.setattr(suppression.ops, "implementation", lambda: "reference")
    given = candidates(900, seed=3)
    if hostile:
        given["boxes"][::7, 1] = np.nan
        given["boxes"][::11, 2] = np.inf
        given["scores"][::5] = np.nan
        given["scores"][::3] = -0.0
    boxes, scores, classes = (torch.from_numpy(given[name]) for name in ("boxes", "scores", "classes"))
    for threshold in (0.5, 0.7, 0.1):
        theirs = suppression.nms(boxes, scores, threshold, 300, classes).numpy()
        np.testing.assert_array_equal(face.nms(**given, threshold=threshold, limit=300), theirs)


@implementations
def test_strided_arrays_and_read_only_arrays(face: Face) -> None:
    given = candidates(90)
    turned = {name: array[::-2] for name, array in given.items()}
    plain = {name: array.copy() for name, array in turned.items()}
    for array in turned.values():
        array.flags.writeable = False
    np.testing.assert_array_equal(face.nms(**turned, threshold=0.5, limit=9), face.nms(**plain, threshold=0.5, limit=9))


@implementations
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"boxes": np.zeros((3, 4))}, TypeError, "boxes must be float32, not float64"),
        ({"boxes": np.zeros((3, 5), np.float32)}, ValueError, r"boxes must have shape \(N, 4\)"),
        ({"scores": np.zeros(2, np.float32)}, ValueError, r"scores must have shape \(3,\)"),
        ({"scores": [1, 2, 3]}, TypeError, "scores must be a NumPy array, not list"),
        ({"classes": np.zeros(3, np.int32)}, TypeError, "classes must be int64, not int32"),
        ({"classes": np.zeros((3, 1), np.int64)}, ValueError, "classes must have 1 dimensions"),
        ({"threshold": float("nan")}, ValueError, "threshold must be 0 to 1, not nan"),
        ({"threshold": -0.1}, ValueError, "threshold must be 0 to 1"),
        ({"threshold": "0.5"}, TypeError, "threshold must be a number, not str"),
        ({"limit": -1}, ValueError, "limit must be 0 to"),
        ({"limit": 2.0}, TypeError, "limit must be an int"),
    ],
)
def test_wrong_arguments_are_named(face: Face, change: Any, error: Any, words: str) -> None:
    arguments = {
        "boxes": np.zeros((3, 4), np.float32),
        "scores": np.zeros(3, np.float32),
        "threshold": 0.5,
        "limit": 3,
        "classes": np.zeros(3, np.int64),
    }
    with pytest.raises(error, match=words):
        face.nms(**{**arguments, **change})


def test_choice() -> None:
    given = candidates(40)
    np.testing.assert_array_equal(
        ops.nms(**given, threshold=0.5, limit=9), reference.nms(**given, threshold=0.5, limit=9)
    )
