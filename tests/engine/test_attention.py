"""Attention within windows: the oracle against the definition, the native op against the oracle."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from engine.implementations import INSTALLED, Face, each, native, reference

from fgfast import ops

without = "fgfast._native not installed" if not INSTALLED else "" if native.attends(16) else "no AVX-512, or no OpenMP"
needs_native = pytest.mark.skipif(bool(without), reason=without)
implementations = each(needs_native)

# Sums of float32 in another order: scores of up to 20 are right to 1e-5 or so, and so are, relatively, the weights.
# Measured: 4e-6 between the engines, 3e-6 against float64.
CLOSE = {"rtol": 0.0, "atol": 2e-5}


def windows(side: int, across: int, missing: int) -> tuple[Any, int]:
    """(token_at, T): across windows, in which every missing-th place is padding (0: none)."""
    places = np.arange(across * side * side)
    is_token = places % missing > 0 if missing else places >= 0
    count = int(is_token.sum())
    token_at = np.full(places.shape, count, np.int64)
    token_at[is_token] = np.random.default_rng(5).permutation(count)
    return token_at.reshape(across, side * side), count


def arguments(
    side: int = 3,
    size: int = 16,
    *,
    batch: int = 2,
    heads: int = 3,
    across: int = 2,
    missing: int = 0,
    gain: float = 1.0,
) -> dict[str, Any]:
    """Random arguments of `attention`; q is of order `gain`, the rest of order 1, relative positions of 0.3."""
    rng = np.random.default_rng(0)
    token_at, tokens = windows(side, across, missing)
    q, k, v = rng.standard_normal((3, batch, tokens, heads, size), np.float32)
    rel_pos = tuple(0.3 * rng.standard_normal((2, 2 * side - 1, size), np.float32))
    padding = tuple(rng.standard_normal((2, heads, size), np.float32))
    return {"q": q * np.float32(gain), "k": k, "v": v, "rel_pos": rel_pos, "token_at": token_at, "padding": padding}


def expected(q: Any, k: Any, v: Any, rel_pos: Any, token_at: Any, padding: Any) -> Any:
    """The definition in float64, one query at a time."""
    batch, tokens, heads, size = q.shape
    side = math.isqrt(token_at.shape[1])
    q, k, v = (array.astype(np.float64) for array in (q, k, v))
    out = np.zeros_like(q)
    for b, h, window in np.ndindex(batch, heads, len(token_at)):
        at = token_at[window]
        keys = np.stack([padding[0][h] if t == tokens else k[b, t, h] for t in at])
        values = np.stack([padding[1][h] if t == tokens else v[b, t, h] for t in at])
        for place, token in enumerate(at):
            if token == tokens:
                continue
            y, x = np.divmod(np.arange(len(at)), side)
            rows = rel_pos[0][place // side - y + side - 1].astype(np.float64) + rel_pos[1][place % side - x + side - 1]
            scores = (keys / math.sqrt(size) + rows) @ q[b, token, h]
            weights = np.exp(scores - scores.max())
            out[b, token, h] = weights @ values / weights.sum()
    return out


@implementations
@pytest.mark.parametrize("missing", [0, 4])
@pytest.mark.parametrize(("side", "size"), [(1, 16), (2, 32), (5, 48), (7, 80)])
def test_definition(face: Face, side: int, size: int, missing: int) -> None:
    given = arguments(side, size, missing=missing)
    made = face.attention(**given)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, expected(**given), **CLOSE)


@needs_native
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("side", "size", "across", "missing"),
    [(14, 64, 3, 3), (16, 16, 1, 0), (17, 64, 1, 0), (33, 32, 1, 5), (24, 80, 2, 2), (14, 144, 1, 196)],
)
def test_native_equals_reference(side: int, size: int, across: int, missing: int, threads: int) -> None:
    """Sides below, at and above what vectors and tiles hold; SAM's sizes of heads and others."""
    given = arguments(side, size, heads=2, across=across, missing=missing)
    made = native.attention(**given, threads=threads)
    np.testing.assert_allclose(made, reference.attention(**given), **CLOSE)


@implementations
def test_scores_beyond_what_exp_can_hold(face: Face) -> None:
    """Softmax does not depend on the size of the scores: here up to 4000, where exp(89) is too much for float32."""
    given = arguments(8, 64, gain=300.0)
    made = face.attention(**given)
    # Nearly all weight is on one key; float32 knows scores of 4000 to 4e-4, which is what the weights are off by.
    np.testing.assert_allclose(made, expected(**given), rtol=0, atol=4e-3)


@implementations
def test_scores_that_rise_from_key_to_key(face: Face) -> None:
    """By one a key: the native op scales down what it has summed up, from block to block of its keys."""
    given = arguments(24, 16, batch=1, heads=1, across=1)
    given["q"][:], given["rel_pos"] = 1, tuple(np.zeros((2, 47, 16), np.float32))
    given["k"][0, given["token_at"][0], 0] = np.arange(24 * 24, dtype=np.float32)[:, None] / 4
    # float32 knows scores of up to 576 to 6e-5; measured 4e-5.
    np.testing.assert_allclose(face.attention(**given), expected(**given), rtol=0, atol=1e-4)


@implementations
@pytest.mark.parametrize("shape", [{"batch": 0}, {"heads": 0}, {"across": 0}, {"missing": 1}])
def test_nothing_to_do(face: Face, shape: Any) -> None:
    given = arguments(**shape)
    assert face.attention(**given).shape == given["q"].shape


@implementations
def test_strided_arrays_and_read_only_arrays(face: Face) -> None:
    given = arguments()
    plain = face.attention(**given)
    q = np.repeat(given["q"], 2, axis=3)[..., ::2]
    q.flags.writeable = False
    assert not q.flags.c_contiguous
    np.testing.assert_array_equal(face.attention(**{**given, "q": q}), plain)


@implementations
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"q": np.zeros((2, 18, 3, 16))}, TypeError, "q must be float32, not float64"),
        ({"q": [[1]]}, TypeError, "q must be a NumPy array, not list"),
        ({"k": np.zeros((2, 17, 3, 16), np.float32)}, ValueError, "k must have q's shape"),
        ({"v": np.zeros((2, 18, 48), np.float32)}, ValueError, "v must have 4 dimensions"),
        ({"token_at": np.zeros((2, 9), np.int32)}, TypeError, "token_at must be int64"),
        ({"token_at": np.zeros((2, 8), np.int64)}, ValueError, r"token_at must have shape \(W, S \* S\)"),
        ({"token_at": np.zeros((2, 0), np.int64)}, ValueError, r"token_at must have shape \(W, S \* S\)"),
        ({"token_at": np.arange(18).reshape(2, 9) + 2}, ValueError, "token_at must be 0 to 18, not 2 to 19"),
        ({"token_at": np.arange(18).reshape(2, 9) - 1}, ValueError, "token_at must be 0 to 18, not -1 to 16"),
        ({"token_at": np.zeros((2, 9), np.int64)}, ValueError, "every token exactly once"),
        ({"rel_pos": (np.zeros((5, 16), np.float32), np.zeros((4, 16), np.float32))}, ValueError, "rel_pos must have"),
        ({"padding": (np.zeros((3, 16)),) * 2}, TypeError, "padding must be float32"),
        ({"threads": 0}, ValueError, "threads must be 1 to"),
        ({"threads": 1.5}, TypeError, "threads must be an int, not float"),
        ({"rel_pos": (np.zeros((5, 16), np.float32),) * 3}, ValueError, "rel_pos must be two arrays, not 3"),
        ({"token_at": np.zeros((0, 9), np.int64)}, ValueError, "every token exactly once"),
    ],
)
def test_wrong_arguments_are_named(face: Face, change: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        face.attention(**{**arguments(), **change})


@needs_native
def test_other_sizes_of_heads_are_refused() -> None:
    assert not native.attends(20)
    with pytest.raises(ValueError, match="multiple of 16, not 20"):
        native.attention(**arguments(size=20))


def test_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether there is a native one for these heads, and never where the reference is forced."""
    assert ops.attends(64) == (not without)
    assert not ops.attends(20)
    if not without:
        np.testing.assert_allclose(ops.attention(**arguments()), reference.attention(**arguments()), **CLOSE)
    monkeypatch.setenv("FGFAST_OPS", "reference")
    ops._resolve.cache_clear()
    try:
        assert not ops.attends(64)
    finally:
        ops._resolve.cache_clear()
