"""Models ready to run, by name: architecture, weights, precision, device."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fgfast.errors import MissingExtraError, UnknownNameError, UsageError
from fgfast.models.files import digests, states
from fgfast.models.files import weights as cache

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fgfast.models.detic.model import Detic
    from fgfast.models.sam.model import Sam

Precision = Literal["fp32", "bf16", "fp16"]
PRECISIONS = ("fp32", "bf16", "fp16")

# In Detic's checkpoint, trained but not used here: masks are SAM's, the vocabulary is an input.
_DETIC_UNUSED = ("roi_heads.mask_head.", *(f"roi_heads.box_predictor.{i}.cls_score.zs_weight" for i in range(3)))


def seed_of(weights: str | Path) -> int | None:
    """The seed of "random:SEED"; None for any other weights."""
    found = re.fullmatch(r"random:(\d+)", str(weights))
    return int(found.group(1)) if found else None


def build_sam(name: str, weights: str | Path = "cached", precision: Precision = "fp32", device: str = "cpu") -> Sam:
    """A SAM for inference.

    Args:
        name: "vit_b", "vit_l" or "vit_h"; the tests' tiny ones have no official weights.
        weights: "cached" (the official ones, on this machine), "random:SEED" (made up, for trying out), or a file.
        precision: of the encoder's matrix products.
        device: where it runs, as torch names it.

    Raises:
        UnknownNameError: for the name or the precision.
        ModelNotCachedError: the official weights are not on this machine; says what to type.
        WeightsError: the file is damaged or of another model.
    """
    import_torch(f"SAM {name}")
    from fgfast.models.sam.model import Sam

    _known("precision", precision, PRECISIONS)
    model = Sam.build(name, sam_state(name, weights), precision)
    model.to(device)
    return model


def sam_state(name: str, weights: str | Path = "cached") -> dict[str, Tensor]:
    """The weights of a SAM by segment-anything's keys, checked; arguments and errors as for `build_sam`."""
    import torch

    from fgfast.models.sam.architecture import ARCHITECTURES
    from fgfast.models.sam.model import Sam

    _known("SAM", name, ARCHITECTURES)
    with torch.device("meta"):
        empty = Sam(name)
    state = _state(empty, f"sam_{name}" if name.startswith("vit") else None, weights)
    shapes = {key: tuple(value.shape) for key, value in empty.state_dict().items()}
    return states.check_state(state, shapes, source=_source(name, weights))


def build_detic(
    name: str = "swinb", weights: str | Path = "cached", precision: Precision = "fp32", device: str = "cpu"
) -> Detic:
    """A Detic for inference. The vocabulary is another matter: fgfast.models.vocabulary.

    Args:
        name: "swinb", the only one with official weights here; "swint" and "nano" are for tests.
        weights: "cached", "random:SEED" or a file, as for `build_sam`.
        precision: of its matrix products and convolutions.
        device: where it runs, as torch names it.

    Raises:
        as `build_sam`.
    """
    import_torch(f"Detic {name}")
    from fgfast.models.detic import checkpoint, config
    from fgfast.models.detic.model import Detic

    configs = {c.name: c for c in (config.SWIN_B, config.SWIN_T, config.NANO)}
    _known("Detic", name, configs)
    _known("precision", precision, PRECISIONS)
    model = Detic(configs[name])
    state = _state(model, "detic" if name == "swinb" else None, weights)
    # What follows from the architecture may be missing; `load` compares it where it is there.
    shapes = {
        key: tuple(value.shape)
        for key, value in model.state_dict().items()
        if key in state or not checkpoint.CONSTANT.fullmatch(key)
    }
    checkpoint.load(model, states.check_state(state, shapes, _DETIC_UNUSED, _source(name, weights)))
    model.set_precision(precision).to(device)
    return model


def cached_state(name: str) -> dict[str, Tensor]:
    """The weights called `name` in fgfast.models.files.weights, from their safetensors copy where there is one.

    Raises:
        ModelNotCachedError: they are not on this machine; says what to type.
        WeightsError: they are not the published ones.
    """
    checkpoint = cache.path(name)
    copy = digests.converted(checkpoint) if importlib.util.find_spec("safetensors") else None
    return states.load_state(copy or checkpoint)


def import_torch(purpose: str) -> None:
    """Say which extra is missing, where torch is not installed."""
    try:
        import torch  # noqa: F401
    except ImportError:
        raise MissingExtraError("torch", "models", purpose) from None


def _known(kind: str, name: str, allowed: Mapping[str, object] | tuple[str, ...]) -> None:
    if name not in allowed:
        raise UnknownNameError(kind, name, allowed)


def _state(model: nn.Module, official: str | None, weights: str | Path) -> dict[str, Tensor]:
    """The weights asked for; `official` is their name in fgfast.models.files.weights, None where there are none."""
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


def _source(name: str, weights: str | Path) -> str:
    return f"the {weights} weights of {name}" if str(weights) == "cached" else str(weights)
