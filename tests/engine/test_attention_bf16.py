"""Attention in bfloat16: each way of multiplying against the oracle, which rounds nothing but the result."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine.implementations import INSTALLED, native, reference
from engine.test_attention import arguments

from fgfast import ops
from fgfast.ops.reference_attention import bf16_to_float, float_to_bf16

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent / "amx_on_host"

without = "fgfast._native not installed" if not INSTALLED else "" if native.bf16_attends_by() else "no AVX-512 BF16"
needs_native = pytest.mark.skipif(bool(without), reason=without)

# Values are of order 1. The result is rounded to 1 in 2**9, weights and tables of relative positions as well: a table's
# entries are 0.3, a query has up to 144 of them, so that scores are off by up to 0.01. Measured: 0.024, 0.0044.
MOST, MEAN = 0.04, 0.008
SHAPES = [
    *((1, 16, 2, 0), (2, 32, 2, 4), (5, 48, 2, 4), (7, 80, 2, 0), (14, 64, 3, 3), (16, 16, 1, 0), (17, 64, 1, 0)),
    *((33, 32, 1, 5), (24, 80, 2, 2), (14, 144, 1, 196)),
]


def rounded(**given: Any) -> dict[str, Any]:
    """Arguments in bfloat16; tables of relative positions stay float32."""
    pairs = {name: tuple(float_to_bf16(np.ascontiguousarray(part)) for part in given[name]) for name in ("padding",)}
    return {**given, **{name: float_to_bf16(given[name]) for name in ("q", "k", "v")}, **pairs}


def check(made: Any, given: dict[str, Any], most: float = MOST, mean: float = MEAN) -> None:
    """Compare with the oracle."""
    wanted = bf16_to_float(reference.attention(**given))
    difference = np.abs(bf16_to_float(made) - wanted)
    assert made.dtype == np.uint16 and np.isfinite(difference).all()
    assert difference.max() <= most and difference.mean() <= mean * np.abs(wanted).mean()


@needs_native
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("side", "size", "across", "missing"), SHAPES)
def test_native_is_near_the_oracle(side: int, size: int, across: int, missing: int, threads: int) -> None:
    """Sides below, at and above what blocks of keys and tiles of queries hold; SAM's sizes of heads and others."""
    given = rounded(**arguments(side, size, heads=2, across=across, missing=missing))
    check(native.attention(**given, threads=threads), given)


@needs_native
def test_the_number_of_threads_changes_no_bit() -> None:
    given = rounded(**arguments(14, 64, heads=3, across=4, missing=3))
    first = native.attention(**given, threads=1)
    for threads in (2, 3, 7):
        np.testing.assert_array_equal(native.attention(**given, threads=threads), first)


@needs_native
def test_scores_beyond_what_exp_can_hold() -> None:
    """All weight is on the key with the largest score; where two are near, bfloat16's rounding of tables decides."""
    given = rounded(**{**arguments(8, 64, gain=300.0), "rel_pos": tuple(np.zeros((2, 15, 64), np.float32))})
    check(native.attention(**given), given)


@needs_native
def test_scores_that_rise_from_key_to_key() -> None:
    """What has been summed up is scaled down from block to block of the keys."""
    given = arguments(24, 16, batch=1, heads=1, across=1)
    given["q"][:], given["rel_pos"] = 1, tuple(np.zeros((2, 47, 16), np.float32))
    given["k"][0, given["token_at"][0], 0] = np.arange(24 * 24, dtype=np.float32)[:, None] / 4
    given = rounded(**given)
    check(native.attention(**given), given)


@needs_native
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e30, -1e30])
def test_what_is_no_number_ends(value: float) -> None:
    """Nothing is promised of the result but that it comes."""
    given = arguments(20, 16)
    given["k"][0, 7:9] = value
    given["q"][1, 3] = value
    assert native.attention(**rounded(**given)).shape == given["q"].shape


@pytest.mark.parametrize("shape", [{"batch": 0}, {"heads": 0}, {"across": 0}, {"missing": 1}])
@needs_native
def test_nothing_to_do(shape: Any) -> None:
    given = rounded(**arguments(**shape))
    assert native.attention(**given).shape == given["q"].shape


@needs_native
def test_dtypes_are_not_mixed() -> None:
    given = rounded(**arguments())
    with pytest.raises(TypeError, match="k must be uint16, not float32"):
        native.attention(**{**given, "k": bf16_to_float(given["k"])})
    with pytest.raises(TypeError, match="padding must be uint16"):
        native.attention(**{**given, "padding": arguments()["padding"]})
    with pytest.raises(ValueError, match="AVX-512 BF16 and heads of a multiple of 16, not 20"):
        native.attention(**rounded(**arguments(size=20)))


def test_the_oracle_rounds_to_the_nearest() -> None:
    values = np.array([1, 1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-7, 0, np.inf], np.float32)
    assert bf16_to_float(float_to_bf16(values)).tolist() == [1, 1, 1 + 2**-6, -1 - 2**-7, 0, np.inf]
    given = rounded(**arguments())
    full = {**given, **{name: bf16_to_float(given[name]) for name in ("q", "k", "v")}}
    full["padding"] = tuple(bf16_to_float(part) for part in given["padding"])
    np.testing.assert_array_equal(reference.attention(**given), float_to_bf16(reference.attention(**full)))


@needs_native
def test_amx_can_be_left_out() -> None:
    script = "from fgfast import ops; print(ops.bf16_attends_by())"
    environment = {**os.environ, "FGFAST_ATTENTION": "avx512", "FGFAST_OPS": "native"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "AVX-512 BF16"


# AMX's products on any processor with AVX-512 BF16, which everything between them needs.


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The ops by AMX's tiles, each instruction of which is a function."""
    if without or sys.platform != "linux" or not shutil.which("g++"):
        pytest.skip("the stand-in for AMX needs g++, Linux and AVX-512 BF16")
    library = tmp_path_factory.mktemp("amx") / "attend.so"
    ours = ("attention_amx", "attention_bf16", "window_attention")
    sources = [HERE / "attend.cc", *(ROOT / f"engine/src/{name}.cc" for name in ours)]
    flags = ["-std=c++17", "-O2", "-fopenmp", "-shared", "-fPIC", "-Wno-psabi", "-DFGFAST_TILES_ON_HOST"]
    include = [f"-I{HERE}", f"-I{ROOT / 'engine/include'}"]
    subprocess.run(["g++", *flags, *include, *sources, "-o", library], check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.by.restype = ctypes.c_char_p
    assert loaded.by() == b"AMX"
    return loaded


@pytest.fixture(scope="module")
def by_tiles(tiles: ctypes.CDLL) -> Callable[..., Any]:
    """Attention by tiles, called as the op."""

    def attend(q: Any, k: Any, v: Any, rel_pos: Any, token_at: Any, padding: Any, threads: int = 1) -> Any:
        batch, tokens, heads, size = q.shape
        side = int(np.sqrt(token_at.shape[1]))
        sizes = np.array([batch, tokens, heads, size, len(token_at), side], np.int64)
        out = np.zeros_like(q)
        given = [np.ascontiguousarray(part) for part in (q, k, v, *rel_pos, token_at, *padding, sizes)]
        pointers = [ctypes.c_void_p(part.ctypes.data) for part in given]
        tiles.attend(*pointers, threads, ctypes.c_void_p(out.ctypes.data))
        return out

    return attend


@pytest.mark.parametrize(("side", "size", "across", "missing"), SHAPES)
def test_tiles_are_near_the_oracle(
    by_tiles: Callable[..., Any], side: int, size: int, across: int, missing: int
) -> None:
    given = rounded(**arguments(side, size, heads=2, across=across, missing=missing))
    made = by_tiles(**given, threads=2)
    check(made, given)
    # The same but for the order of sums, which bfloat16 rounds away nearly everywhere.
    other = bf16_to_float(native.attention(**given))
    assert np.abs(bf16_to_float(made) - other).mean() <= 5e-4 * np.abs(other).mean()


# Within Swin's windows.


def windows(count: int, tokens: int, heads: int, size: int, masked: bool) -> dict[str, Any]:
    rng = np.random.default_rng(2)
    qkv = float_to_bf16(rng.standard_normal((count, tokens, 3, heads, size), np.float32))
    mask = np.where(rng.random((count, tokens, tokens)) < 0.3, np.float32(-100), np.float32(0))
    bias = rng.standard_normal((heads, tokens, tokens), np.float32)
    return {"qkv": qkv, "bias": bias, "mask": mask if masked else None}


def check_windows(made: Any, given: dict[str, Any]) -> None:
    """Nothing but weights and result is rounded; measured: 0.008, 0.0012."""
    wanted = bf16_to_float(reference.window_attention(**given))
    difference = np.abs(bf16_to_float(made) - wanted)
    assert made.shape == wanted.shape and np.isfinite(difference).all()
    assert difference.max() <= 0.016 and difference.mean() <= 0.003 * np.abs(wanted).mean()


WINDOWS = [(3, 49, 4, 32), (2, 64, 2, 16), (1, 1, 1, 48), (5, 33, 3, 80), (4, 32, 2, 32), (1, 17, 1, 64)]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", WINDOWS)
def test_the_oracle_of_windows_is_softmax(shape: tuple[int, int, int, int], masked: bool) -> None:
    given = windows(*shape, masked)
    q, k, v = np.moveaxis(bf16_to_float(given["qkv"]).astype(np.float64), 2, 0)
    wanted = np.zeros(q.shape)
    for n, m, h in np.ndindex(q.shape[:3]):
        logits = k[n, :, h] @ q[n, m, h] / np.sqrt(shape[3]) + given["bias"][h, m]
        logits = logits + (given["mask"][n, m] if masked else 0)
        weights = np.exp(logits - logits.max())
        wanted[n, m, h] = weights @ v[n, :, h] / weights.sum()
    np.testing.assert_allclose(bf16_to_float(reference.window_attention(**given)), wanted, rtol=2**-8, atol=1e-6)


@needs_native
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", WINDOWS)
def test_windows_are_near_the_oracle(shape: tuple[int, int, int, int], masked: bool) -> None:
    given = windows(*shape, masked)
    made = native.window_attention(**given, threads=1)
    check_windows(made, given)
    np.testing.assert_array_equal(native.window_attention(**given, threads=3), made)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", WINDOWS)
def test_windows_by_tiles_are_near_the_oracle(
    tiles: ctypes.CDLL, shape: tuple[int, int, int, int], masked: bool
) -> None:
    given = windows(*shape, masked)
    out = np.zeros(given["qkv"][:, :, 0].shape, np.uint16)
    sizes = np.array(shape, np.int64)
    pointers = [None if part is None else ctypes.c_void_p(part.ctypes.data) for part in (*given.values(), sizes)]
    tiles.attend_windows(*pointers, 2, ctypes.c_void_p(out.ctypes.data))
    check_windows(out, given)


@needs_native
def test_nothing_to_do_in_windows() -> None:
    for shape in ((0, 49, 2, 32), (2, 49, 0, 32)):
        assert native.window_attention(**windows(*shape, True)).shape == (shape[0], 49, *shape[2:])


@needs_native
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"qkv": np.zeros((1, 4, 3, 2, 16), np.float32)}, TypeError, "qkv must be uint16, not float32"),
        ({"qkv": np.zeros((1, 4, 2, 2, 16), np.uint16)}, ValueError, r"qkv must have shape \(N, T, 3, H, D\)"),
        ({"qkv": np.zeros((1, 65, 3, 2, 16), np.uint16)}, ValueError, "T from 1 to 64"),
        ({"qkv": np.zeros((1, 4, 3, 2, 20), np.uint16)}, ValueError, "heads of a multiple of 16, not 20"),
        ({"bias": np.zeros((2, 4, 5), np.float32)}, ValueError, r"bias must have shape \(2, 4, 4\)"),
        ({"mask": np.zeros((2, 4, 4), np.float32)}, ValueError, r"mask must have shape \(1, 4, 4\)"),
        ({"threads": 0}, ValueError, "threads must be 1 to"),
    ],
)
def test_wrong_arguments_of_windows_are_named(change: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        native.window_attention(**{**windows(1, 4, 2, 16, True), **change})


def test_what_attends_is_said() -> None:
    assert ops.bf16_attends_by() in ("", "AMX", "AVX-512 BF16")
    assert ops.attends(64, bf16=True) == (not without) and not ops.attends(20, bf16=True)
