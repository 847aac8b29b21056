"""The default devices and precision of models, and checks of those that the user chose."""

from __future__ import annotations

import os
from collections.abc import Sequence

from fgfast.errors import UnknownNameError, UsageError
from fgfast.methods import PRECISIONS, QUANTISED, Precision
from fgfast.models.files.checkpoints import import_torch

# The first compute capabilities whose matrix units take bf16, and fp16 (CUDA C++ Programming Guide, tensor cores).
_AMPERE, _VOLTA = (8, 0), (7, 0)


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
    """Return a precision and the reason. "auto" becomes the first of bf16, fp16, fp32 that all devices have natively.

    A CPU computes bf16 natively with AMX or AVX-512 BF16 instructions. A GPU has matrix units for bf16 and fp16 from
    compute capability 8.0 on (Ampere), for fp16 alone from 7.0 on (Volta, Turing: the T4), none before.

    Raises:
        UnknownNameError: there is no such precision.
        UsageError: bf16 is requested of a GPU without it, where torch would emulate it, slowly; or a device lacks a
            quantised precision, see `check_quantised`.
    """
    devices = list(dict.fromkeys([device] if isinstance(device, str) else device))
    if precision == "auto":
        return _natively(devices)
    if precision not in PRECISIONS:
        raise UnknownNameError("precision", precision, ("auto", *PRECISIONS))
    if precision in QUANTISED:
        check_quantised(precision, devices)
    for name in devices if precision == "bf16" else ():
        if name != "cpu" and _capability(name) < _AMPERE:
            faster = "fp16 or auto" if _capability(name) >= _VOLTA else "fp32 or auto"
            raise UsageError(
                f"{_described(name)} does not compute bf16, and torch's emulation is slow: use --precision {faster}"
            )
    return precision, "as requested"


def check_quantised(precision: str, devices: Sequence[str]) -> None:
    """Raise UsageError unless every device has a quantised precision in its matrix units."""
    least = QUANTISED[precision]
    for device in devices:
        if device == "cpu" or _capability(device) < least:
            raise UsageError(
                f"--precision {precision} needs NVIDIA GPUs of compute capability {least[0]}.{least[1]} or newer, not "
                f"{_described(device)}: use --precision auto"
            )


def _natively(devices: Sequence[str]) -> tuple[Precision, str]:
    """Return the fastest precision that all devices compute natively, and the reason."""
    by_device = {name: _native(name) for name in devices}
    found = next(p for p in ("bf16", "fp16", "fp32") if all(p in native for native in by_device.values()))
    limits = [_described(name) for name, native in by_device.items() if "bf16" not in native]
    if found == "bf16":
        return "bf16", "computed natively here"
    if found == "fp16":
        return "fp16", f"computed natively here, as bf16 is not by {', '.join(limits)}"
    lacking = [_described(name) for name, native in by_device.items() if native == ("fp32",)]
    if not lacking:
        return "fp32", "no half precision is computed natively by all devices"
    half = "bf16" if lacking == ["cpu"] else "half precision"
    return "fp32", f"{half} is not computed natively by {', '.join(lacking)}"


def _native(device: str) -> tuple[Precision, ...]:
    """Return the precisions that a device computes natively."""
    if device == "cpu":
        import torch

        instructions = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        bf16 = any(getattr(torch.cpu, name, lambda: False)() for name in instructions)
        return ("bf16", "fp32") if bf16 else ("fp32",)
    if _capability(device) >= _AMPERE:
        return ("bf16", "fp16", "fp32")
    return ("fp16", "fp32") if _capability(device) >= _VOLTA else ("fp32",)


def _capability(device: str) -> tuple[int, int]:
    import torch

    return torch.cuda.get_device_capability(device)


def _described(device: str) -> str:
    """Return a device in words: a GPU with its name and compute capability."""
    if device == "cpu":
        return device
    import torch

    large, small = _capability(device)
    return f"{device} ({torch.cuda.get_device_name(device)}, compute capability {large}.{small})"


def memory(device: str) -> tuple[int, int]:
    """Return the free and the total bytes of a GPU's memory; whatever any process holds is not free."""
    import torch

    free, total = torch.cuda.mem_get_info(device)
    return int(free), int(total)


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


def described(device: str) -> str:
    """Return a device's name for a message; a GPU's with its model and compute capability, if CUDA still tells them."""
    if not device.startswith("cuda"):
        return device
    import torch

    try:
        gpu = torch.cuda.get_device_properties(device)
    except (RuntimeError, AssertionError):  # what failed may have taken this with it; torch asserts that there is CUDA
        return device
    return f"{device} ({gpu.name}, compute capability {gpu.major}.{gpu.minor})"
