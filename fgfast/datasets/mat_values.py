"""The variables of a MAT-file, for `mat_files`: imported in the process that reads a stranger's, and only there."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from scipy.io import loadmat  # type: ignore[import-untyped, unused-ignore]

_DEEPEST = 50


def variables_in(content: bytes, squeeze: bool) -> dict[str, Any] | str:
    """Return the variables of a MAT-file, as values that pass between processes, or why it cannot be read."""
    try:
        loaded = loadmat(io.BytesIO(content), squeeze_me=squeeze)
        return {name: _plain(value) for name, value in loaded.items() if not name.startswith("__")}
    except MemoryError:
        raise
    except Exception as error:  # scipy raises a dozen unrelated types on broken files
        return f"{type(error).__name__}: {str(error)[:200]}"


def _plain(value: Any, depth: int = 0) -> Any:
    """Return a value without structs: each becomes (shape, field -> its values in a flat list)."""
    if depth > _DEEPEST:
        raise ValueError("cells and structs are nested too deeply")
    if isinstance(value, np.void) and value.dtype.names:
        value = np.array(value)
    if not isinstance(value, np.ndarray):
        if isinstance(value, (str, int, float, np.generic)):
            return value
        raise ValueError(f"it holds a {type(value).__name__}")
    if type(value) is not np.ndarray or (value.dtype.hasobject and value.dtype != object and not value.dtype.names):
        raise ValueError(f"it holds a {type(value).__name__} of {value.dtype}")
    if value.dtype.names:
        flat = value.ravel()
        return value.shape, {name: [_plain(item, depth + 1) for item in flat[name]] for name in value.dtype.names}
    if value.dtype == object:
        new = np.empty(value.size, object)
        for n, item in enumerate(value.ravel()):
            new[n] = _plain(item, depth + 1)
        return new.reshape(value.shape)
    return value
