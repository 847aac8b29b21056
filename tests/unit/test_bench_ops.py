"""`fgfast bench ops`: all contenders that must compute the same do, and one that does not is not timed."""

from __future__ import annotations

import time
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from fgfast.bench import op_cases, ops
from fgfast.bench.op_cases import NUMPY, Case
from fgfast.bench.result import rows_of
from fgfast.bench.timing import in_turns, threads
from fgfast.errors import UnknownNameError

needs_native = pytest.mark.skipif(not find_spec("fgfast._native"), reason="fgfast._native not installed")
SMALL = ((60, 80),)


@pytest.mark.parametrize("op", op_cases.OPS)
def test_contenders_of_an_op_agree(op: str) -> None:
    """On small images; attention has one size, and the whole image takes too long here."""
    found = [case for case in op_cases.cases(op, 1, SMALL) if "whole image" not in case.what]
    if not found:
        pytest.skip("only the NumPy reference is installed")
    for case in found:
        ops.compare(case)


@needs_native
def test_every_op_has_its_native_form_and_its_rivals() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("pycocotools")
    rivals = {
        "mask_post": {"PyTorch"},
        "composite": {"PyTorch", "OpenCV", "Pillow"},
        "rle_encode": {"pycocotools"},
        "resize": {"PyTorch", "OpenCV", "Pillow"},
        "nms": {"PyTorch"},
    }
    for op, names in rivals.items():
        for case in op_cases.cases(op, 1, SMALL):
            assert names | {NUMPY, "native"} <= case.contenders.keys(), op


def test_only_ops_with_threads_are_timed_with_several() -> None:
    several = {op for op in op_cases.OPS if list(op_cases.cases(op, 2, SMALL))}
    assert several <= {"mask_post", "resize", "attention", "attention_bf16"}
    assert "mask_post" in several


def case_of(allowed: float = 0.0, others: tuple[str, ...] = (), **results: float) -> Case:
    contenders = {name: partial(float, result) for name, result in results.items()}
    return Case("sum", "ones", 1, contenders, lambda a, b: abs(a - b), "", allowed, others)


def test_another_result_is_an_error_that_names_both() -> None:
    case = case_of(one=1.0, two=1.5)
    with pytest.raises(AssertionError, match=r"sum, ones, 1 thread: two differs from one by 0\.5"):
        ops.compare(case)


def test_not_a_number_is_an_error() -> None:
    with pytest.raises(AssertionError, match="differs"):
        ops.compare(case_of(one=1.0, two=float("nan")))


def test_known_differences_are_returned() -> None:
    assert ops.compare(case_of(one=1.0, near=1.1, far=3.0, allowed=0.2, others=("far",))) == {"far": 2.0}


@pytest.mark.parametrize(
    ("a", "b", "apart"),
    [
        (np.array([1.0, np.nan]), np.array([1.0, np.nan]), 0.0),
        (np.array([1.0]), np.array([2.0]), 1.0),
        (np.array([1]), np.array([1.0]), 1.0),
        (np.array([True]), np.array([True, True]), 1.0),
        ((np.zeros(2), np.ones(1)), (np.zeros(2), np.zeros(1)), 1.0),
    ],
)
def test_equal_to_the_bit(a: Any, b: Any, apart: float) -> None:
    assert op_cases._bits_apart(a, b) == apart


def test_measuring_one_op() -> None:
    result = ops.measure(rounds=2, only=["nms"])
    rows = {row.name: row for row in rows_of(result)}
    assert rows[NUMPY].value > 0
    if find_spec("fgfast._native"):
        assert rows["native"].value < rows[NUMPY].value
        assert rows[f"native is faster than {NUMPY}"].value > 1
        assert len(result["plots"]["bars"]["values"]) == (1 if find_spec("torch") else 0)


def test_an_op_that_does_not_exist() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'nms'"):
        ops.measure(only=["nns"])


def test_turns() -> None:
    """Quick calls are repeated within a round, slow ones are not."""
    order: list[str] = []
    slow = {"slow": lambda: (order.append("slow"), time.sleep(0.02))}
    seconds = in_turns(slow | {"quick": lambda: order.append("quick")}, rounds=3, least=0.01)
    assert order.count("slow") == 1 + 3
    assert order.count("quick") > 100
    assert {name: len(values) for name, values in seconds.items()} == {"slow": 3, "quick": 3}
    assert min(seconds["slow"]) >= 0.02 > max(seconds["quick"])


def test_threads_are_given_back() -> None:
    torch, cv2 = pytest.importorskip("torch"), pytest.importorskip("cv2")
    before = torch.get_num_threads(), cv2.getNumThreads()
    with threads(3):
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (3, 3)
    assert (torch.get_num_threads(), cv2.getNumThreads()) == before
