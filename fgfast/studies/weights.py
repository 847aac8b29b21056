"""Weights of a backbone: from a file, or from the caches of timm; read without executing code, with a digest."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgfast.errors import UsageError, WeightsError
from fgfast.models.files.states import check_state, load_state, looks_like
from fgfast.transfer import digest_of

if TYPE_CHECKING:
    from torch import nn

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
"""Of files of weights."""
# Names of weights in repositories of timm, the first is preferred (timm.models._hub).
_IN_HUB = ("model.safetensors", "pytorch_model.bin")


def cached(name: str, settings: Mapping[str, Any]) -> Path:
    """Return the file of timm's pretrained weights; nothing is downloaded.

    Args:
        name: timm's, of the model, for the message.
        settings: the model's pretrained_cfg.

    Raises:
        UsageError: they are not on this machine, or timm publishes none.
    """
    repo, url = settings.get("hf_hub_id") or "", settings.get("url") or ""
    if repo:
        from huggingface_hub import try_to_load_from_cache

        for file in _IN_HUB:
            if isinstance(found := try_to_load_from_cache(repo, file), str):
                return Path(found)
    if url:
        import torch

        place = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
        if place.is_file():
            return place
    known = f"{repo or url} is not in this machine's cache" if repo or url else "timm publishes none"
    raise UsageError(
        f"pretrained weights of {name}: {known}. Give a file of them, fetch them with timm's own "
        "`timm.create_model(NAME, pretrained=True)`, or start from random weights: --no-pretrained"
    )


def weights_of(backbone: str) -> str:
    """Return the SHA-256 of the file of a backbone's pretrained weights; empty where it is not there any more."""
    path: Path | None = Path(backbone)
    if Path(backbone).suffix not in SUFFIXES:
        path = _of_timm(backbone)
    if path is None or not path.is_file():
        return ""
    about = path.stat()
    return _digest(path.absolute(), about.st_size, about.st_mtime_ns)


def _of_timm(name: str) -> Path | None:
    """Return the file of timm's pretrained weights, if it is on this machine."""
    try:
        from fgfast.studies import torchvision_shim

        torchvision_shim.declare()
        import timm

        settings = timm.get_pretrained_cfg(name)
        return cached(name, settings.to_dict()) if settings is not None else None
    except (ImportError, RuntimeError, UsageError):
        return None


@lru_cache
def _digest(path: Path, _size: int, _changed: int) -> str:
    return digest_of(path)


def find(backbone: str, settings: Mapping[str, Any]) -> Path:
    """Return the file of a backbone's weights: itself, where it is one, or that of timm's in this machine's cache.

    Raises:
        UsageError: it is not there; see `cached`.
    """
    if Path(backbone).suffix not in SUFFIXES:
        return cached(backbone, settings)
    if not Path(backbone).is_file():
        raise UsageError(f"there is no file of weights {backbone}")
    return Path(backbone)


def load(model: nn.Module, file: Path) -> str:
    """Load a file's weights into a timm model; a classifier of another shape stays random.

    Returns:
        the file's SHA-256.

    Raises:
        WeightsError: the file is damaged, holds anything but numbers, or is of another model.
    """
    state = _renamed(model, load_state(file), file)
    wanted = model.state_dict()
    heads = model.pretrained_cfg.get("classifier") or ()
    for head in (heads,) if isinstance(heads, str) else heads:
        for key in (f"{head}.weight", f"{head}.bias"):
            if key in wanted and (key not in state or state[key].shape != wanted[key].shape):
                state[key] = wanted[key]
    model.load_state_dict(check_state(state, wanted, source=file))
    return digest_of(file)


def _renamed(model: nn.Module, state: dict[str, Any], file: Path) -> dict[str, Any]:
    """A state by timm's own filter: names of earlier versions, position embeddings at another image size."""
    import torch

    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        with torch.no_grad():
            return dict(convert(dict(state), model))
    # The filter takes a file for one of its family, and raises KeyError, AttributeError, RuntimeError, ... else.
    except Exception as error:
        seems = looks_like(state)
        raise WeightsError(
            file, f"of another model ({type(error).__name__}: {error}). It looks like {seems}."
        ) from error
