"""Where models run, and in which precision, when nobody says so."""

from __future__ import annotations

import os
from collections.abc import Sequence

from fgfast.errors import UnknownNameError, UsageError
from fgfast.methods import PRECISIONS, Precision
from fgfast.models.files.checkpoints import import_torch


def choose_device(device: str) -> str:
    """ "auto" becomes the first GPU, else the CPU; anything else is checked.

    Raises:
        UsageError: there is no such device; says what there is.
    """
    import_torch("a model")
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = ("cpu", *(f"cuda:{n}" for n in range(count)))
    if device == "auto":
        return there[1] if count else "cpu"
    chosen = "cuda:0" if device == "cuda" else device
    if chosen not in there:
        raise UsageError(f"there is no device {device!r}; there is: {', '.join(there)}")
    return chosen


def choose_devices(devices: Sequence[str]) -> tuple[str, ...]:
    """ "auto" becomes every GPU, else the CPU; anything else is checked. Errors as for `choose_device`."""
    if tuple(devices) != ("auto",):
        return tuple(choose_device(device) for device in devices)
    import_torch("a model")
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return tuple(f"cuda:{n}" for n in range(count)) or ("cpu",)


def choose_precision(precision: str, device: str | Sequence[str]) -> tuple[Precision, str]:
    """A precision and why. "auto" takes bf16 where the device, or each of several, computes it natively, else fp32.

    Natively means: AMX or AVX-512 BF16 instructions on a CPU, Ampere or newer on a GPU.
    """
    if precision != "auto":
        if precision not in PRECISIONS:
            raise UnknownNameError("precision", precision, ("auto", *PRECISIONS))
        return precision, "as asked"
    devices = [device] if isinstance(device, str) else device
    native = all(_computes_bf16(name) for name in devices)
    return ("bf16", "computed natively here") if native else ("fp32", "bf16 is not computed natively here")


def _computes_bf16(device: str) -> bool:
    import torch

    if device != "cpu":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    instructions = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in instructions)


def compute_with(threads: int | None, shared: bool) -> None:
    """Let PyTorch compute with so many threads on a CPU; None leaves it as it is.

    Results depend on the number in their last digits, for sums are split over threads. Several worker processes on one
    CPU therefore have as many each as one alone would have; with `shared` they do not wait by spinning, which would
    keep each other from working.
    """
    if shared:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
