"""Reading and writing the MATLAB files of Stanford Cars, Stanford Dogs and Flowers-102.

A MAT-file states sizes that scipy allocates before it reads what should fill them, and is compressed: a stranger's is
read in a process of its own, with a memory cap.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgfast import processes
from fgfast.data_paths import AnyPath
from fgfast.datasets.annotation_files import read_bytes, short, write_bytes
from fgfast.errors import DatasetError
from fgfast.writing import Target

# A level-5 MAT-file starts with 116 bytes of free text, where scipy writes the time of day. A fixed text gives the same
# content the same bytes. mathworks.com/help/pdf_doc/matlab/matfile_format.pdf, "Header".
HEADER = b"MATLAB 5.0 MAT-file, written by fgfast".ljust(116)
# MATLAB 7.3 writes HDF5 behind such a header, which scipy does not read.
_HDF5 = b"MATLAB 7.3"
_VARIABLES_IN = "fgfast.datasets.mat_values:variables_in"
# The processes, none or one, of the `one_process` around; None where there is none around.
_open: ContextVar[list[processes.Child] | None] = ContextVar("_open", default=None)
# What reading may take: the largest official file takes 40 MB and 0.2 s.
_MEMORY, _SECONDS = 1 << 30, 60.0


@contextmanager
def one_process() -> Iterator[None]:
    """Read all MAT-files in this context, those of one data set, in one process, because its start takes longer.

    Starting it and importing scipy takes half a second. It starts at the first file, has one cap for all of them, and
    ends with the context.
    """
    children: list[processes.Child] = []
    token = _open.set(children)
    try:
        yield
    finally:
        _open.reset(token)
        for child in children:
            child.close()


def _variables_in(content: bytes, squeeze: bool) -> Any:
    children = _open.get()
    if children is None:
        return processes.call(_VARIABLES_IN, content, squeeze, memory=_MEMORY, seconds=_SECONDS)
    if not children:
        children.append(processes.Child(_MEMORY))
    return children[0].call(_VARIABLES_IN, content, squeeze, seconds=_SECONDS)


def read_mat(path: AnyPath, *variables: str, squeeze: bool = True) -> dict[str, Any]:
    """Read a MAT-file's variables; raise DatasetError where it is damaged, takes too much, or lacks `variables`."""
    content = read_bytes(path, "mat")
    if content.startswith(_HDF5):
        raise DatasetError(path, "a MAT-file of version 7.3 (HDF5), which is not read; save it with MATLAB's -v7")
    try:
        loaded = _variables_in(content, squeeze)
    except (processes.MemoryExceededError, processes.TimeExceededError):
        limits = f"{_MEMORY >> 30} GB of memory or {_SECONDS:g} seconds"
        raise DatasetError(path, f"reading it takes more than {limits}, which no list of a data set needs") from None
    except processes.ChildError as error:
        raise DatasetError(path, f"not a MATLAB file, or a damaged one: {error}") from None
    if isinstance(loaded, str):
        raise DatasetError(path, f"not a MATLAB file, or a damaged one: {loaded}")
    found = {name: _with_fields(value) for name, value in loaded.items()}
    for variable in variables:
        if variable not in found:
            there = ", ".join(sorted(found)) or "none"
            raise DatasetError(path, f"expected a variable {variable!r}; found: {there[:200]}")
    return found


def whole_numbers(path: AnyPath, name: str, value: Any, most: int) -> NDArray[np.int64]:
    """Return a variable's numbers in a row; raise DatasetError unless they are whole and from 0 to `most`."""
    numbers = np.ravel(value)
    good = numbers.dtype.kind in "iuf" and bool(((numbers >= 0) & (numbers <= most)).all())
    if not good or (numbers != np.floor(numbers)).any():
        raise DatasetError(path, f"expected whole numbers from 0 to {most:,} in {name}, got {short(value)}")
    return numbers.astype(np.int64)


def _with_fields(value: Any) -> Any:
    """Return what `fgfast.datasets.mat_values` made plain."""
    if isinstance(value, tuple):
        shape, fields = value
        new = np.empty(shape, [(name, object) for name in fields])
        for name, items in fields.items():
            for n, item in enumerate(items):
                new.reshape(-1)[name][n] = _with_fields(item)
        return new
    if isinstance(value, np.ndarray) and value.dtype == object:
        for n, item in enumerate(value.flat):
            value.flat[n] = _with_fields(item)
    return value


def write_mat(target: Target, variables: dict[str, Any]) -> Target:
    """Write variables with the shapes of `read_mat(squeeze=False)`, so that loaders see no difference."""
    from scipy.io import savemat  # type: ignore[import-untyped, unused-ignore]

    buffer = io.BytesIO()
    savemat(buffer, variables, do_compression=True)
    return write_bytes(target, HEADER + buffer.getvalue()[len(HEADER) :])
