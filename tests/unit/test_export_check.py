"""The parity check of an exported graph: a breach is named with its amount."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from fgfast.errors import ParityError
from fgfast.graphs import Contract, Port
from fgfast.tolerances import Tolerance

torch = pytest.importorskip("torch")

from fgfast.export.check import compare, smooth_noise  # noqa: E402

CONTRACT = Contract("toy", (Port("x", "float32", (3,), ""),), (Port("y", "float32", (3,), "", "features"),))
CASES = [("first", {"x": torch.zeros(3)})]
ALLOWED = {"features": Tolerance(0.1, 0.05, "for the test")}


def giving(*values: float) -> Any:
    return lambda _inputs: {"y": torch.tensor(values)}


def held(ours: Any, theirs: Any, allowed: Mapping[str, Tolerance] = ALLOWED) -> list[dict[str, Any]]:
    return compare(CONTRACT, ours, theirs, CASES, allowed)


def test_within() -> None:
    (record,) = held(giving(1, 2, 3.0625), giving(1, 2, 3))
    assert record == {"case": "first", "output": "y", "largest": 0.0625, "rms": pytest.approx(0.0625 / 3**0.5)}


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ((1, 2, 3.5), (1, 2, 3), r"toy, first: y is off by 0.5 \(largest difference\); 0.1 is allowed: for the"),
        ((1.09, 2.09, 3.09), (1, 2, 3), r"y is off by 0.09 \(rms difference\); 0.05 is allowed"),
        ((1, 2), (1, 2, 3), r"y has shape \(2,\); PyTorch gives \(3,\)"),
        ((1, 2, float("nan")), (1, 2, 3), "y is off by nan"),
        ((1, 2, 3), (1, 2, float("nan")), "no finite number"),
        ((1, 2, float("-inf")), (1, 2, float("inf")), "no finite number"),
    ],
)
def test_breach(ours: tuple[float, ...], theirs: tuple[float, ...], message: str) -> None:
    with pytest.raises(ParityError, match=message):
        held(giving(*ours), giving(*theirs))


def test_nan_where_pytorch_has_nan() -> None:
    values = (float("nan"), float("inf"), 1)
    (record,) = held(giving(*values), giving(*values))
    assert record["largest"] == 0


def test_half_outputs() -> None:
    (record,) = held(lambda _inputs: {"y": torch.ones(3, dtype=torch.bfloat16)}, giving(1, 1, 1))
    assert record["rms"] == 0


def test_images_are_reproducible_and_use_the_range() -> None:
    first, again, other = (smooth_noise(np.random.default_rng(seed), 60, 90) for seed in (1, 1, 2))
    assert first.shape == (60, 90, 3)
    assert first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.float().std() > 30
