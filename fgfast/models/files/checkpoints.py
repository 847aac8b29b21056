"""The weights of a ModelSpec: the official ones from the cache, a file, or random ones."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from fgfast.errors import MissingExtraError, UnknownNameError, UsageError
from fgfast.methods import PRECISIONS, QUANTISED, ModelSpec, find
from fgfast.models.files import digests, states
from fgfast.models.files import weights as cache

if TYPE_CHECKING:
    from torch import Tensor, nn

log = logging.getLogger("fgfast")


def state_for(model: nn.Module, spec: ModelSpec) -> dict[str, Tensor]:
    """Return the state dict of a spec's weights, unchecked.

    Args:
        model: its keys and shapes are those of random weights; may be on the meta device.
        spec: of the model.

    Raises:
        UsageError: the weights are not "cached", "random:SEED" or a file, or there are no official ones to be cached.
        ModelNotCachedError: the official weights are not on this machine; the message gives the command to type.
        WeightsError: the file is damaged.
    """
    if spec.seed is not None:
        return states.random_state(model, spec.seed)
    if spec.weights != "cached":
        file = Path(spec.weights).expanduser()
        if not file.is_file():
            raise UsageError(f'weights {spec.weights!r} are neither "cached" nor "random:SEED" nor a file')
        state = states.load_state(file)
        # Not refused: unused ones do no harm. But PyTorch's attention drops NaN, so that not every output shows it.
        if bad := states.not_finite(state):
            log.warning(
                "%s: %d of its weights are not finite, the first is %s; results may be wrong", file, len(bad), bad[0]
            )
        return state
    if (method := find(spec.name)) is None:
        raise UsageError(f"there are no official weights of {spec.name}; use random:SEED or a file")
    return cached_state(method.weights)


def cached_state(name: str) -> dict[str, Tensor]:
    """Return the weights called `name` in fgfast.models.files.weights, from their safetensors copy where there is one.

    Raises:
        ModelNotCachedError: they are not on this machine; the message gives the command to type.
        WeightsError: they are not the published ones.
    """
    checkpoint = cache.path(name)
    copy = digests.converted(checkpoint) if importlib.util.find_spec("safetensors") else None
    return states.load_state(copy or checkpoint)


def check_spec(spec: ModelSpec, known: tuple[str, ...]) -> None:
    """Raise unless PyTorch is installed, and the model's name and precision exist; set PyTorch's flags."""
    found = find(spec.name)
    import_torch(spec.name, found.extra if found else "models")
    from fgfast.backends.torch_flags import set_flags

    set_flags()
    if spec.name not in known:
        raise UnknownNameError("model", spec.name, [name for name in known if find(name)])  # not the tests' models
    if spec.precision not in PRECISIONS:
        raise UnknownNameError("precision", spec.precision, PRECISIONS)
    if spec.precision in QUANTISED:
        raise UsageError(
            f"{spec.precision} is a precision of exported graphs, which TensorRT runs, and PyTorch has no "
            f"{spec.name} in it: use fp32, bf16 or fp16, or --backend tensorrt"
        )


def import_torch(purpose: str, extra: str = "models") -> None:
    """Raise MissingExtraError, naming the extra, unless torch is installed."""
    try:
        import torch  # noqa: F401
    except ImportError:
        raise MissingExtraError("torch", extra, purpose) from None


def source_of(spec: ModelSpec) -> str:
    """Return a description of a spec's weights for error messages."""
    return f"the cached weights of {spec.name}" if spec.weights == "cached" else spec.weights
