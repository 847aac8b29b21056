"""Where models run, and in which precision, when nobody says so."""

from __future__ import annotations

from typing import cast

from fgfast.errors import UnknownNameError, UsageError
from fgfast.models.build import PRECISIONS, Precision, import_torch


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


def choose_precision(precision: str, device: str) -> tuple[Precision, str]:
    """A precision and why. "auto" takes bf16 where the device computes it natively, else fp32.

    Natively means: AMX or AVX-512 BF16 instructions on a CPU, Ampere or newer on a GPU.
    """
    import torch

    if precision != "auto":
        if precision not in PRECISIONS:
            raise UnknownNameError("precision", precision, ("auto", *PRECISIONS))
        return cast(Precision, precision), "as asked"
    if device == "cpu":
        native = any(
            getattr(torch.cpu, name, lambda: False)()
            for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        )
    else:
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    return ("bf16", "computed natively here") if native else ("fp32", "bf16 is not computed natively here")
