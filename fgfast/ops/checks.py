"""What every operation asks of its arguments first."""

from __future__ import annotations

from typing import Any

import numpy as np


def check_array(name: str, array: Any, dtype: type[np.generic], dimensions: int | None) -> None:
    """Raise TypeError or ValueError unless `array` is a NumPy array of this dtype and number of dimensions."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array, not {type(array).__name__}")
    if array.dtype != dtype:
        raise TypeError(f"{name} must be {np.dtype(dtype).name}, not {array.dtype.name}")
    if dimensions is not None and array.ndim != dimensions:
        raise ValueError(f"{name} must have {dimensions} dimensions, not shape {array.shape}")


def check_range(name: str, value: Any, least: int, most: int) -> None:
    """Raise TypeError or ValueError unless `value` is an int in `least` to `most`."""
    if not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if not least <= value <= most:
        raise ValueError(f"{name} must be {least} to {most}, not {value}")
