"""The default devices and precision of models, and checks of those that the user chose."""

from __future__ import annotations

import os
from collections.abc import Sequence

from fgfast.errors import UnknownNameError, UsageError
from fgfast.methods import PRECISIONS, QUANTISED, Precision
from fgfast.models.files.checkpoints import import_torch


def choose_device(device: str) -> str:
    """Return the first GPU, else the CPU, for "auto"; check any other device.

    Raises:
        UsageError: there is no such device; the message lists those that exist.
    """
    if device == "auto":
        return choose_devices(("auto",))[0]
    chosen, available = "cuda:0" if device == "cuda" else device, ("cpu", *_gpus())
    if chosen not in available:
        raise UsageError(f"there is no device {device!r}; there is: {', '.join(available)}")
    return chosen


def choose_devices(devices: Sequence[str]) -> tuple[str, ...]:
    """Return every GPU, else the CPU, for "auto"; check any other devices, with the errors of `choose_device`."""
    if tuple(devices) != ("auto",):
        return tuple(choose_device(device) for device in devices)
    return _gpus() or ("cpu",)


def _gpus() -> tuple[str, ...]:
    import_torch("a model")
    import torch

    return tuple(f"cuda:{n}" for n in range(torch.cuda.device_count() if torch.cuda.is_available() else 0))


def choose_precision(precision: str, device: str | Sequence[str]) -> tuple[Precision, str]:
    """Return a precision and the reason. "auto" becomes bf16 if all devices compute it natively, else fp32.

    Natively means AMX or AVX-512 BF16 instructions on a CPU, Ampere or newer on a GPU.

    Raises:
        UnknownNameError: there is no such precision.
        UsageError: a device does not compute it; see `check_quantised`.
    """
    devices = [device] if isinstance(device, str) else device
    if precision != "auto":
        if precision not in PRECISIONS:
            raise UnknownNameError("precision", precision, ("auto", *PRECISIONS))
        if precision in QUANTISED:
            check_quantised(precision, devices)
        return precision, "as requested"
    native = all(_computes_bf16(name) for name in devices)
    return ("bf16", "computed natively here") if native else ("fp32", "bf16 is not computed natively here")


def check_quantised(precision: str, devices: Sequence[str]) -> None:
    """Raise UsageError unless every device has a quantised precision in its matrix units."""
    import torch

    least = QUANTISED[precision]
    for device in devices:
        found = torch.cuda.get_device_capability(device) if device.startswith("cuda") else None
        if found is None or found < least:
            here = "no GPU" if found is None else f"a GPU of compute capability {found[0]}.{found[1]}"
            raise UsageError(
                f"--precision {precision} needs NVIDIA GPUs of compute capability {least[0]}.{least[1]} or newer, and "
                f"{device} is {here}: use --precision auto"
            )


def _computes_bf16(device: str) -> bool:
    import torch

    if device != "cpu":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    instructions = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in instructions)


def compute_with(threads: int | None, shared: bool) -> None:
    """Set the number of PyTorch's CPU threads; None keeps its default.

    The last digits of results depend on it, because sums are split over threads. Several worker processes on one CPU
    therefore use as many threads each as a single one would; with `shared` they do not wait by spinning, which would
    slow each other down.
    """
    if shared:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
