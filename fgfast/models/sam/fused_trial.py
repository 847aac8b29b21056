"""Whether the fused attention works on a GPU: tried once per process, device and shape, against `folded`.

Triton compiles when a kernel is first launched, for which it needs a C compiler and a driver as new as itself. Where
anything is missing, the log says so and `folded` computes the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from fgfast.models.sam.fused_compiler import compiler
from fgfast.models.serving import chosen
from fgfast.tolerances import SAM_BF16, SAM_FP16

log = logging.getLogger("fgfast")

# Below 8.0 Triton 3.7 multiplies without tensor cores (the PTX for 7.5 has no `mma`) and spills registers.
LEAST_CAPABILITY = (8, 0)
# The dtypes that the kernel is used for, as torch spells them, and how far it may be off. In float32 it would need
# three products on tensor cores for one.
DTYPES = {"torch.float16": SAM_FP16["features"], "torch.bfloat16": SAM_BF16["features"]}


@torch.compiler.assume_constant_result
def works(device: int, side: int, size: int, dtype: str, oracle: Callable[..., Tensor]) -> bool:
    """Return whether the fused attention can be used; what was chosen is logged once, and said in run.json.

    Args:
        device: index of the GPU.
        side: of the square of tokens.
        size: of a head.
        dtype: one of DTYPES.
        oracle: computes the same, see attention.attend.
    """
    return _reason(device, side, size, dtype, oracle) is None


@cache
def _reason(device: int, side: int, size: int, dtype: str, oracle: Callable[..., Tensor]) -> str | None:
    """Return why the fused attention cannot be used, and log it; None where it can."""
    reason = obstacle(device, size) or _failure(device, side, size, dtype, oracle)
    where = f"SAM's attention over {side}x{side} tokens on cuda:{device}"
    choice = "Triton's fused kernel" if reason is None else f"PyTorch's, over longer heads: {reason}"
    log.info("%s is %s", where, choice)
    chosen.say(f"{where} is {choice}")
    return reason


def expected(device: int, size: int) -> str:
    """Return what will probably compute the attention, in words for the key of a measurement; nothing is tried."""
    if obstacle(device, size):
        return "PyTorch's attention"
    import triton

    return f"Triton {triton.__version__}'s attention, {compiler() or 'no C compiler'}"


def obstacle(device: int, size: int) -> str | None:
    """Return what rules the kernel out without a trial, or None."""
    if torch.version.cuda is None:
        return f"the kernel is for CUDA, and this is PyTorch {torch.__version__}"
    capability = torch.cuda.get_device_capability(device)
    if capability < LEAST_CAPABILITY:
        found, least = (".".join(map(str, pair)) for pair in (capability, LEAST_CAPABILITY))
        return f"Triton has no tensor cores below compute capability {least}, and this GPU has {found}"
    try:
        from fgfast.models.sam import fused_attention
    except ImportError as error:
        return f"Triton cannot be imported ({error}); install the version of it that this PyTorch names"
    return None if fused_attention.fits(size) else f"the kernel cannot split heads of {size}"


def _failure(device: int, side: int, size: int, dtype: str, oracle: Callable[..., Tensor]) -> str | None:
    """Run the kernel on two heads and compare; return what went wrong, or None.

    Raises:
        torch.OutOfMemoryError: there is no memory left for it, which says nothing about the kernel.
    """
    from fgfast.models.sam import fused_attention

    random = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random).to(f"cuda:{device}")

    try:
        half = getattr(torch, dtype.removeprefix("torch."))
        # Strided as the encoder's are.
        q, k, v = draw(1, side**2, 3, 2, size).to(half).permute(2, 0, 3, 1, 4)
        tables = draw(2 * side - 1, size) / 4, draw(2 * side - 1, size) / 4
        difference = fused_attention.fused(q, k, v, *tables).float() - oracle(q, k, v, *tables).float()
        DTYPES[dtype].check(difference.flatten().double().cpu().numpy(), "the fused attention")
    except torch.OutOfMemoryError:
        raise  # the runner halves the batch, and the next call tries again
    except Exception as error:  # of Triton's compilers, of the driver, of the comparison
        text = str(error).strip() or type(error).__name__
        return f"the kernel failed its trial ({text.splitlines()[0]})"
    return None
