"""The precision that "auto" takes on each kind of device, and what is refused. The GPUs are only their capabilities."""

from __future__ import annotations

import re

import pytest

torch = pytest.importorskip("torch", reason="models need the extra models")

from fgfast.bench import models  # noqa: E402
from fgfast.errors import UnknownNameError, UsageError  # noqa: E402
from fgfast.models.serving.devices import choose_precision  # noqa: E402

GPUS = {
    "cuda:0": ("Tesla T4", (7, 5)),
    "cuda:1": ("NVIDIA A100", (8, 0)),
    "cuda:2": ("GeForce GTX 1080", (6, 1)),
    "cuda:3": ("Tesla V100", (7, 0)),
}


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: GPUS[device][1])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: GPUS[device][0])
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)


@pytest.mark.parametrize(
    ("devices", "precision", "why"),
    [
        ("cuda:0", "fp16", r"as bf16 is not by cuda:0 \(Tesla T4, compute capability 7.5\)"),
        ("cuda:3", "fp16", "Tesla V100"),
        ("cuda:1", "bf16", "computed natively here"),
        ("cuda:2", "fp32", r"half precision is not computed natively by cuda:2 \(GeForce GTX 1080, .* 6.1\)"),
        (("cuda:0", "cuda:1"), "fp16", "Tesla T4"),
        (("cuda:1", "cuda:2"), "fp32", "GTX 1080"),
        (("cuda:1", "cpu"), "bf16", "natively"),
        (("cuda:0", "cpu"), "fp32", "by all devices"),
        ("cpu", "bf16", "natively"),
    ],
)
def test_auto_takes_what_all_devices_compute_natively(devices: str | tuple[str, ...], precision: str, why: str) -> None:
    chosen, reason = choose_precision("auto", devices)
    assert chosen == precision
    assert re.search(why, reason), reason


def test_bf16_is_refused_where_torch_would_emulate_it() -> None:
    with pytest.raises(UsageError, match=r"cuda:0 \(Tesla T4, .* 7.5\) does not compute bf16.*--precision fp16"):
        choose_precision("bf16", ("cuda:1", "cuda:0"))
    with pytest.raises(UsageError, match="--precision fp32 or auto"):
        choose_precision("bf16", "cuda:2")
    for precision, device in (("bf16", "cuda:1"), ("bf16", "cpu"), ("fp16", "cuda:0"), ("fp32", "cuda:2")):
        assert choose_precision(precision, device) == (precision, "as requested")
    with pytest.raises(UnknownNameError, match="no precision named 'fp4'"):
        choose_precision("fp4", "cuda:1")


def test_bench_measures_what_the_device_computes() -> None:
    assert models.precisions("cuda:0") == ("fp32", "fp16")
    assert models.precisions("cuda:1") == models.precisions("cpu") == ("fp32", "bf16")
    assert models.precisions("cuda:2") == ("fp32",)
