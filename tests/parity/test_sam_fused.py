"""SAM's attention in Triton, without a GPU: its arithmetic in the interpreter, its code for each GPU, its choice."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode

from fgfast.errors import UnknownNameError
from fgfast.models.sam import attention, fused_trial
from fgfast.models.sam.architecture import architecture
from fgfast.models.sam.image_encoder import ImageEncoder
from fgfast.tolerances import SAM_BF16, SAM_FP16, SAM_FP32

TABLES = {"float32": SAM_FP32, "float16": SAM_FP16, "bfloat16": SAM_BF16}
# Bytes of shared memory that a block may use, from "CUDA C++ Programming Guide", technical specifications per compute
# capability; registers are 65536 per multiprocessor everywhere.
SHARED = {80: 163 << 10, 86: 99 << 10, 89: 99 << 10, 90: 227 << 10, 100: 227 << 10, 120: 99 << 10}
SQUARES = [(64, 64), (64, 80), (14, 64), (14, 80)]
needs_triton = pytest.mark.skipif(
    not torch.utils._triton.has_triton_package(), reason="no triton here; `make test` installs it on Linux"
)


@pytest.fixture(scope="module")
def interpreted() -> dict[str, Any]:
    """What fused_cases.py prints."""
    script = Path(__file__).with_name("fused_cases.py")
    path = os.pathsep.join(filter(None, sys.path))
    ran = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


@needs_triton
@pytest.mark.parametrize("part", ["windows", "whole image", "modules"])
def test_definition(interpreted: dict[str, Any], part: str) -> None:
    """Against the definition in float64: windows that fill no block, split heads, all dtypes, logits of thousands."""
    for name, largest, rms in interpreted[part]:
        dtype = "float32" if "bias" in name else name.split()[0]
        bound = TABLES[dtype]["features"]
        assert largest <= bound.largest and rms <= bound.rms, f"{name}: {largest} (rms {rms}), allowed: {bound}"


@needs_triton
def test_compiles_into_one_graph(interpreted: dict[str, Any]) -> None:
    """torch.compile with fullgraph=True, which TorchSession uses, keeps the operator."""
    assert interpreted["compiled"] == 0


@needs_triton
@pytest.mark.parametrize(
    ("capability", "side", "size"),
    [
        pytest.param(
            capability, *square, marks=[] if capability in (80, 90) and square == (64, 64) else pytest.mark.full
        )
        for capability in SHARED
        for square in SQUARES
    ],
)
def test_compiles_for(capability: int, side: int, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each GPU: on tensor cores, without spilling registers, within the shared memory of a block."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    for kernel in compiled(capability, side, size):
        assert re.search(r"\b(mma\.sync|wgmma\.mma_async|tcgen05\.mma)", kernel.asm["ptx"]), "no tensor cores"
        assert kernel.metadata.shared <= SHARED[capability]
        verbose = assembled(kernel.asm["ptx"], capability, tmp_path)
        assert "0 bytes spill stores, 0 bytes spill loads" in verbose, verbose


def compiled(capability: int, side: int, size: int) -> Iterator[Any]:
    """Compile both kernels for bfloat16, as `fused` launches them."""
    import triton
    from triton.backends.compiler import GPUTarget

    from fgfast.models.sam import fused_attention as fused

    tiles, shape = fused.tiles(side), fused.shape_of(side, size)
    launches = (
        (fused.bias_kernel, shape, {}),
        (
            fused.attention_kernel,
            {**shape, "queries": tiles.queries, "rows": tiles.rows},
            {"num_warps": tiles.warps, "num_stages": tiles.stages},
        ),
    )
    half = dict.fromkeys(("q", "k", "v", "out"), "*bf16")
    full = dict.fromkeys(("rel_pos_h", "rel_pos_w", "bias_h", "bias_w"), "*fp32")
    for kernel, constants, options in launches:
        types = {
            name: "constexpr" if name in constants else (half | full | {"scale": "fp32"}).get(name, "i32")
            for name in kernel.arg_names
        }
        # Addresses, and the strides of groups, heads and tokens, are multiples of 16.
        divisible = [["tt.divisibility", 16]]
        aligned = {
            (n,): divisible
            for n, (name, kind) in enumerate(types.items())
            if kind.startswith("*") or name.endswith(("_group", "_head", "_token"))
        }
        source = triton.compiler.ASTSource(kernel, types, constants, aligned)
        yield triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def assembled(ptx: str, capability: int, folder: Path) -> str:
    """Return what ptxas, which comes with triton, says of its registers."""
    from triton.backends.nvidia.compiler import get_ptxas, sm_arch_from_capability

    source = folder / "kernel.ptx"
    source.write_text(ptx)
    command = [get_ptxas(capability).path, "-v", f"--gpu-name={sm_arch_from_capability(capability)}", str(source)]
    ran = subprocess.run([*command, "-o", os.devnull], capture_output=True, text=True, check=True, timeout=120)
    return ran.stderr


@pytest.mark.parametrize(
    ("device", "dtype", "works", "wanted"),
    [
        ("cpu", torch.float32, True, "masked"),
        ("cpu", torch.bfloat16, True, "folded"),
        ("cuda:1", torch.bfloat16, True, "fused"),
        ("cuda:1", torch.float16, False, "folded"),
        ("cuda:1", torch.float32, True, "folded"),
    ],
)
def test_choice(device: str, dtype: Any, works: bool, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which implementation each device and dtype gets; one that is named is used. The GPU's tensors have no memory."""
    asked = []
    monkeypatch.setattr(fused_trial, "works", lambda *given: asked.append(given) or works)
    taken = {name: lambda *_, name=name: name for name in attention.IMPLEMENTATIONS}
    monkeypatch.setattr(attention, "IMPLEMENTATIONS", taken)
    with FakeTensorMode():
        q = torch.empty(1, 2, 16, 16, dtype=dtype, device=device)
        table = torch.empty(7, 16, device=device)
    assert attention.attend(q, q, q, table, table) == wanted
    assert [given[:4] for given in asked] in ([], [(1, 4, 16, str(dtype))])
    assert bool(asked) == (device != "cpu" and dtype != torch.float32)
    assert attention.attend(q, q, q, table, table, "folded") == "folded"
    learning = attention.attend(q, q, q, table.requires_grad_(), table)
    assert learning == ("masked" if wanted == "masked" else "folded")
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    assert attention.attend(q, q, q, table, table) == "folded"


@pytest.mark.parametrize("works", [True, False])
def test_choice_while_compiling(works: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile takes the choice as a constant: one graph, in which the trial is not traced."""
    monkeypatch.setattr(fused_trial, "_reason", lambda *_: None if works else "no")

    def one_or_two(q: torch.Tensor) -> torch.Tensor:
        return q * (1 if attention._is_fused(q) else 2)

    compiled = torch.compile(one_or_two, fullgraph=True, dynamic=False, backend="eager")
    q = torch.ones(1, 2, 16, 16, dtype=torch.bfloat16)
    assert compiled(q).unique().item() == (1 if works else 2)
    torch.compiler.reset()


def test_a_gpu_too_old(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A T4 keeps `folded`, and the log says so once."""
    caplog.set_level(logging.INFO, "fgfast")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    for _ in range(2):
        assert not fused_trial.works(0, 64, 64, "torch.float16", attention.folded)
    (line,) = (record.getMessage() for record in caplog.records)
    assert "8.0" in line and "7.5" in line


@needs_triton
@pytest.mark.parametrize("fault", ["raises", "is wrong", ""])
def test_trial(fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A kernel that does not launch, or not compute, is not used. In place of the kernel: `folded` on the CPU."""

    def kernel(*given: Any) -> Any:
        if fault == "raises":
            raise RuntimeError("Failed to find C compiler.\nPlease")
        return attention.folded(*given) + (fault == "is wrong")

    caplog.set_level(logging.INFO, "fgfast")
    _as_on_a_gpu(monkeypatch, kernel)
    assert fused_trial.works(0, 4, 16, "torch.bfloat16", attention.folded) == (not fault)
    (line,) = (record.getMessage() for record in caplog.records)
    expected = {"raises": "Failed to find C compiler.", "is wrong": "rms difference 1", "": "fused kernel"}
    assert expected[fault] in line
    fused_trial._reason.cache_clear()


@needs_triton
def test_a_trial_without_memory_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner halves the batch; the kernel was taken for broken until the process ended."""

    def kernel(*given: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    _as_on_a_gpu(monkeypatch, kernel)
    with pytest.raises(torch.OutOfMemoryError):
        fused_trial.works(0, 4, 16, "torch.bfloat16", attention.folded)
    _as_on_a_gpu(monkeypatch, attention.folded, forget=False)
    assert fused_trial.works(0, 4, 16, "torch.bfloat16", attention.folded)
    fused_trial._reason.cache_clear()


def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch, kernel: Any, forget: bool = True) -> None:
    """A new GPU on which `kernel` is the fused one."""
    from fgfast.models.sam import fused_attention

    if forget:
        fused_trial._reason.cache_clear()
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.Tensor, "to", _without_gpu(torch.Tensor.to))
    monkeypatch.setattr(fused_attention, "fused", kernel)


def _without_gpu(to: Any) -> Any:
    return lambda tensor, where: tensor if str(where).startswith("cuda") else to(tensor, where)


def test_attend_by() -> None:
    """The switch for comparisons reaches every block, and refuses a name that does not exist."""
    encoder = ImageEncoder(architecture("tiny256")).eval()
    pixels = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 3, 256, 256)).astype(np.float32))
    with torch.inference_mode():
        found = []
        for implementation in ("masked", "folded"):
            encoder.attend_by(implementation)
            found.append(encoder(pixels))
    SAM_FP32["features"].check((found[0] - found[1]).double().numpy().reshape(-1), "encoder")
    with pytest.raises(UnknownNameError, match="folded"):
        encoder.attend_by("flash")
