"""Reading and writing the MATLAB files of Stanford Cars, Stanford Dogs and Flowers-102."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from fgfast.datasets.annotation_files import read_bytes, write_bytes
from fgfast.errors import DatasetError
from fgfast.files import AnyPath

# A level-5 MAT-file starts with 116 bytes of free text, where scipy writes the time of day. A fixed text gives the same
# content the same bytes. mathworks.com/help/pdf_doc/matlab/matfile_format.pdf, "Header".
HEADER = b"MATLAB 5.0 MAT-file, written by fgfast".ljust(116)


def read_mat(path: AnyPath, *variables: str, squeeze: bool = True) -> dict[str, Any]:
    """Read a MAT-file's variables; raise DatasetError where it is damaged or lacks one of `variables`."""
    from scipy.io import loadmat  # type: ignore[import-untyped, unused-ignore]

    content = read_bytes(path)
    try:
        loaded: dict[str, Any] = loadmat(io.BytesIO(content), squeeze_me=squeeze)
    except Exception as error:  # scipy raises a dozen unrelated types on broken files
        raise DatasetError(path, f"not a MATLAB file, or a damaged one: {error}") from error
    for variable in variables:
        if variable not in loaded:
            there = ", ".join(sorted(name for name in loaded if not name.startswith("__"))) or "none"
            raise DatasetError(path, f"expected a variable {variable!r}; found: {there}")
    return {name: value for name, value in loaded.items() if not name.startswith("__")}


def write_mat(target: Path, variables: dict[str, Any]) -> Path:
    """Write variables with the shapes of `read_mat(squeeze=False)`, so that loaders see no difference."""
    from scipy.io import savemat  # type: ignore[import-untyped, unused-ignore]

    buffer = io.BytesIO()
    savemat(buffer, variables, do_compression=True)
    return write_bytes(target, HEADER + buffer.getvalue()[len(HEADER) :])
