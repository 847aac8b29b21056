"""The weights that a ModelSpec asks for: the official ones from the cache, a file, or random ones."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from fgfast.errors import MissingExtraError, UnknownNameError, UsageError
from fgfast.methods import PRECISIONS, ModelSpec, find, seed_of
from fgfast.models.files import digests, states
from fgfast.models.files import weights as cache

if TYPE_CHECKING:
    from torch import Tensor, nn


def state_for(model: nn.Module, weights: str | Path, official: str | None) -> dict[str, Tensor]:
    """The state dict that is asked for, unchecked.

    Args:
        model: whose keys and shapes random weights get; may be on the meta device.
        weights: "cached", "random:SEED" or a file.
        official: name of the official weights in fgfast.models.files.weights; None where there are none.

    Raises:
        UsageError: the weights are none of these.
        ModelNotCachedError: the official weights are not on this machine; the message says what to type.
        WeightsError: the file is damaged.
    """
    seed = seed_of(weights)
    if seed is not None:
        return states.random_state(model, seed)
    if weights != "cached":
        file = Path(weights).expanduser()
        if not file.is_file():
            raise UsageError(f'weights {str(weights)!r} are neither "cached" nor "random:SEED" nor a file')
        return states.load_state(file)
    if official is None:
        raise UsageError("there are no official weights of this size; take random:SEED or a file")
    return cached_state(official)


def cached_state(name: str) -> dict[str, Tensor]:
    """The weights called `name` in fgfast.models.files.weights, from their safetensors copy where there is one.

    Raises:
        ModelNotCachedError: they are not on this machine; the message says what to type.
        WeightsError: they are not the published ones.
    """
    checkpoint = cache.path(name)
    copy = digests.converted(checkpoint) if importlib.util.find_spec("safetensors") else None
    return states.load_state(copy or checkpoint)


def check_spec(spec: ModelSpec, known: tuple[str, ...]) -> None:
    """Raise unless PyTorch is installed, and the model's name and precision exist."""
    found = find(spec.name)
    import_torch(spec.name, found.extra if found else "models")
    if spec.name not in known:
        raise UnknownNameError("model", spec.name, known)
    if spec.precision not in PRECISIONS:
        raise UnknownNameError("precision", spec.precision, PRECISIONS)


def import_torch(purpose: str, extra: str = "models") -> None:
    """Raise MissingExtraError, which names the extra, where torch is not installed."""
    try:
        import torch  # noqa: F401
    except ImportError:
        raise MissingExtraError("torch", extra, purpose) from None


def source_of(name: str, weights: str | Path) -> str:
    """Weights in words, for error messages."""
    return f"the {weights} weights of {name}" if str(weights) == "cached" else str(weights)
