"""Optional packages, torch and transformers, imported when Grounding DINO is first used."""

from __future__ import annotations

import importlib
from typing import Any

from fgfast.errors import MissingExtraError, UsageError, install_command


def package(name: str) -> Any:
    """Import an optional package by name, so that it is neither imported nor type-checked without being used."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(name, "text", "Grounding DINO") from error


def classes(*names: str) -> list[Any]:
    """Return classes of transformers, which imports their modules on this access."""
    transformers = package("transformers")
    try:
        return [getattr(transformers, name) for name in names]
    except (ImportError, AttributeError, RuntimeError) as error:
        raise UsageError(
            f"transformers {transformers.__version__} cannot load Grounding DINO: {error} Either it is too old "
            f"({install_command('text', '-U')}), or torchvision, which is not needed, does not match the installed "
            "torch (pip uninstall torchvision)"
        ) from error
