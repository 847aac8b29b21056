"""Checkpoints of a training: weights and the optimiser's state as safetensors, which hold numbers and no code.

What is random in an epoch depends on the seed and the epoch's number alone, so the number stands for all generators.

Import this module only where a model is at hand: it imports torch.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor, nn

from fgfast.errors import OutputFailedError, WeightsError
from fgfast.models.files.states import check_state, load_state
from fgfast.writing import Target, replacing_path

_MODEL, _OPTIMIZER = "model.", "optimizer."


def write(target: Target, model: nn.Module, optimizer: torch.optim.Optimizer, about: dict[str, Any]) -> None:
    """Write a checkpoint in the place of the one before.

    Args:
        target: the file.
        model: whose weights are kept.
        optimizer: whose state is kept.
        about: plain values that are returned by `load`.

    Raises:
        OutputFailedError: the disk is full, read-only or failing.
    """
    tensors = {f"{_MODEL}{key}": value for key, value in model.state_dict().items()}
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    for number, values in state.items():
        found = {key: value for key, value in values.items() if value is not None}
        tensors |= {f"{_OPTIMIZER}{number}.{key}": torch.as_tensor(value) for key, value in found.items()}
    write_tensors(target, tensors, {"about": json.dumps(about, sort_keys=True)})


def write_tensors(target: Target, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors as one safetensors file, whole or not at all.

    Raises:
        OutputFailedError: the disk is full, read-only or failing.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = {key: value.detach().to("cpu").contiguous().clone() for key, value in tensors.items()}
    with replacing_path(target, sync=True) as part:
        try:
            save_file(plain, part, {"format": "pt", **metadata})
        except (SafetensorError, OSError) as error:  # of a full disk, among others: the study ends, not this cell alone
            raise OutputFailedError(
                f"cannot write {target.path}: {error}. What is finished is kept: free some space or repair the disk, "
                "then run the same command again"
            ) from error


def load(target: Target, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
    """Load a checkpoint into a model and its optimiser, and return its plain values; None where there is none.

    Raises:
        WeightsError: it is damaged, or of another model.
    """
    path = target.path
    if not path.is_file():
        return None
    from safetensors import SafetensorError, safe_open

    state = load_state(path)
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["about"])
    except (SafetensorError, ValueError, KeyError) as error:
        raise WeightsError(path, f"no checkpoint of a study: {error}") from error
    weights = {key[len(_MODEL) :]: value for key, value in state.items() if key.startswith(_MODEL)}
    model.load_state_dict(check_state(weights, model.state_dict(), source=path))
    found: dict[int, dict[str, Any]] = {}
    for key, value in state.items():
        if key.startswith(_OPTIMIZER):
            number, _, name = key[len(_OPTIMIZER) :].partition(".")
            found.setdefault(int(number), {})[name] = value.clone()
    optimizer.load_state_dict({"state": found, "param_groups": optimizer.state_dict()["param_groups"]})
    return dict(about)
