"""torch and transformers, which are optional and are imported when Grounding DINO is first used."""

from __future__ import annotations

import importlib
from typing import Any

from fgfast.errors import MissingExtraError, UsageError


def package(name: str) -> Any:
    """An optional package; imported by name, so that nothing is imported, or type-checked, without being used."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(name, "text", "Grounding DINO") from error


def classes(*names: str) -> list[Any]:
    """Classes of transformers, which imports their modules only now."""
    transformers = package("transformers")
    try:
        return [getattr(transformers, name) for name in names]
    except (ImportError, AttributeError, RuntimeError) as error:
        raise UsageError(
            f"transformers {transformers.__version__} cannot load Grounding DINO: {error} Either it is too old "
            '(pip install -U "fgfast[text]"), or torchvision, which is not needed, does not fit the installed torch '
            "(pip uninstall torchvision)"
        ) from error
