"""Logits to masks: the oracle against PyTorch, the native op against the oracle; both to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from engine.implementations import Face, implementations, native, needs_native, reference
from hypothesis import given, settings
from hypothesis import strategies as st

from fgfast import ops


def resized_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(h, w) with the longer edge `side`, as SAM resizes."""
    scale = side / max(size)
    return int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)


def random_logits(*shape: int, seed: int = 0) -> Any:
    return 4 * np.random.default_rng(seed).standard_normal(shape, np.float32)


def smooth_logits(*shape: int) -> Any:
    """Blobs, as masks have: a paraboloid and some waves, with whole plateaus at 0 and at ±1, the thresholds."""
    y, x = np.mgrid[: shape[-2], : shape[-1]].astype(np.float32) / shape[-1] - 0.5
    blob = 6 - 40 * (x * x + y * y) + np.sin(20 * x) * np.cos(14 * y)
    plateaus = np.where(np.abs(blob - np.round(blob)) < 0.2, np.round(blob), blob)
    return np.broadcast_to(plateaus.astype(np.float32), shape).copy()


def assert_same(made: Any, wanted: Any) -> None:
    for name, array, other in zip(wanted._fields, made, wanted, strict=True):
        assert array.dtype == other.dtype, name
        np.testing.assert_array_equal(array, other, err_msg=name)


# Enlarged, shrunk, kept; tall, wide, a line; more columns of logits to a vector of pixels than its table holds.
SIZES = [(375, 500), (300, 200), (683, 1024), (1024, 1024), (1, 300), (700, 9), (130, 60), (1300, 611)]


@implementations
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "logits", [random_logits(1, 1, 256, 256), smooth_logits(1, 1, 256, 256)], ids=["noise", "blob"]
)
def test_equals_pytorch(face: Face, size: tuple[int, int], logits: Any) -> None:
    """Also at plateaus on the thresholds, where the last bit decides. Not with other kernels than ATen's for AVX."""
    torch = pytest.importorskip("torch")
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("PyTorch has no fused products here")
    interpolate = torch.nn.functional.interpolate
    resized = resized_size(size, 1024)
    square = interpolate(torch.from_numpy(logits), (1024, 1024), mode="bilinear", align_corners=False)
    full = interpolate(square[..., : resized[0], : resized[1]], size, mode="bilinear", align_corners=False)
    surely, perhaps = ((full > offset).sum((-1, -2)) for offset in (1.0, -1.0))
    made = face.mask_post(logits, size, resized, 1024)
    np.testing.assert_array_equal(made.bits, (full > 0).numpy())
    np.testing.assert_array_equal(made.stability, (surely / perhaps).numpy())


@needs_native
@settings(max_examples=150, deadline=None)
@given(
    low=st.integers(1, 70),
    side=st.integers(1, 120),
    size=st.tuples(st.integers(1, 90), st.integers(1, 150)),
    fraction=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    shape=st.tuples(st.integers(0, 2), st.integers(1, 2)),
    kind=st.sampled_from(["noise", "blob", "below", "hostile"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_native_equals_reference(
    low: int, side: int, size: Any, fraction: Any, shape: Any, kind: str, seed: int
) -> None:
    logits = smooth_logits(*shape, low, low) if kind == "blob" else random_logits(*shape, low, low, seed=seed)
    if kind == "below":
        logits -= 20
    if kind == "hostile":
        rng = np.random.default_rng(seed)
        values = np.array([np.nan, np.inf, -np.inf, 0, -0.0, 1e-45, 3e38], np.float32)
        logits = np.where(rng.random(logits.shape) < 0.2, rng.choice(values, logits.shape), logits)
    resized = tuple(1 + int(part * (side - 1)) for part in fraction)
    with np.errstate(all="ignore"):
        wanted = reference.mask_post(logits, size, resized, side)
    assert_same(native.mask_post(logits, size, resized, side), wanted)


@needs_native
@pytest.mark.parametrize("count", [1, 5])
def test_threads_change_nothing(count: int) -> None:
    """Large enough that they are used: a share is a million pixels."""
    logits, size = random_logits(count, 1, 64, 64), (3000 // count, 1100)
    one, four = (native.mask_post(logits, size, resized_size(size, 256), 256, threads=n) for n in (1, 4))
    assert_same(four, one)


@implementations
def test_facts(face: Face) -> None:
    """Of a mask that touches the left border, one that fills everything, and none at all."""
    logits = np.full((1, 3, 8, 8), -5, np.float32)
    logits[0, 0, 2:4, :3] = 5
    logits[0, 1] = 5
    made = face.mask_post(logits, (16, 16), (8, 8), 8)
    for mask, box, area in zip(made.bits[0], made.boxes[0], made.areas[0], strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        tight = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] if rows.size else [0, 0, 0, 0]
        assert box.tolist() == tight
        assert area == mask.sum()
    assert made.boxes[0, 1].tolist() == [0, 0, 16, 16]
    assert made.borders[0].tolist() == [[True, False, False, False], [True] * 4, [False] * 4]
    assert 0 < made.stability[0, 0] < 1
    assert made.stability[0, 1] == 1
    assert np.isnan(made.stability[0, 2])


@implementations
def test_strided_and_read_only_logits(face: Face) -> None:
    logits = random_logits(2, 2, 32, 32)
    turned = logits[::-1, :, ::-1, ::2].repeat(2, axis=3)[..., ::-1]
    turned.flags.writeable = False
    assert_same(face.mask_post(turned, (40, 50), (51, 64), 64), face.mask_post(turned.copy(), (40, 50), (51, 64), 64))


@implementations
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"logits": np.zeros((1, 1, 8, 8))}, TypeError, "logits must be float32, not float64"),
        ({"logits": np.zeros((1, 8, 8), np.float32)}, ValueError, "logits must have 4 dimensions"),
        ({"logits": np.zeros((1, 1, 8, 9), np.float32)}, ValueError, r"logits must have shape \(N, M, s, s\)"),
        ({"logits": np.zeros((1, 1, 0, 0), np.float32)}, ValueError, r"logits must have shape \(N, M, s, s\)"),
        ({"size": (0, 5)}, ValueError, r"size \(0, 5\) must be 1 to 16777216, not 0"),
        ({"size": (4, 2.5)}, TypeError, "must be an int, not float"),
        ({"size": (4, 5, 3)}, ValueError, r"size must be \(height, width\)"),
        ({"resized": (16, 17)}, ValueError, r"resized \(16, 17\) must be 1 to 16, not 17"),
        ({"side": 0}, ValueError, "side must be 1 to 16777216, not 0"),
        ({"size": 4}, TypeError, r"size must be \(height, width\), not int"),
        ({"threads": 0}, ValueError, "threads must be 1 to"),
    ],
)
def test_wrong_arguments_are_named(face: Face, change: Any, error: Any, words: str) -> None:
    arguments = {"logits": np.zeros((1, 1, 8, 8), np.float32), "size": (4, 5), "resized": (13, 16), "side": 16}
    with pytest.raises(error, match=words):
        face.mask_post(**{**arguments, **change})


@needs_native
def test_the_module_guards_its_memory() -> None:
    """Against callers that do not come through fgfast.ops."""
    from fgfast import _native

    logits, bits, facts = np.zeros((2, 8, 8), np.float32), np.empty((2, 4, 5), np.bool_), np.empty((2, 7), np.int64)
    for wrong in (
        (logits[:, :, :4].copy(), 16, 13, 16, bits, facts),
        (logits, 16, 17, 16, bits, facts),
        (logits, 16, 13, 16, bits[:1], facts),
        (logits, 16, 13, 16, bits, facts[:, :6].copy()),
        (logits, 16, 13, 16, np.empty((2, 0, 5), np.bool_), facts),
    ):
        with pytest.raises(ValueError, match=r"must (be|have)"):
            _native.mask_post(*wrong)


def test_choice() -> None:
    logits = random_logits(1, 2, 16, 16)
    assert_same(ops.mask_post(logits, (20, 30), (43, 64), 64), reference.mask_post(logits, (20, 30), (43, 64), 64))
