"""Checkpoints of torch before torch reads them: what is in them, and how much memory that takes.

torch's weights-only unpickler runs no code of a file, but a few bytes can make it take any memory (`bytearray(10**12)`,
a compressed archive), crash (a tuple nested a million times, as a key), or change NumPy's own dtypes. So a file is
looked through first: only what tables of weights consist of is passed on. NumPy's arrays are rebuilt by `PickledArray`.
"""

from __future__ import annotations

import os
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fgfast.files import open_regular

# SAM's and Detic's tables take 0.1 MB and some 30,000 operations; arrays of NumPy are part of the table.
_MOST_TABLE, _MOST_OPERATIONS, _DEEPEST = 64 << 20, 2_000_000, 40
_MOST_DIRECTORY = 16 << 20
# A file from before torch 1.6 starts with five pickles: magic number, version, system, table, names of the storages.
_LEGACY_PICKLES = 5
_NUMERIC = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")
_ALLOWED = re.compile(
    r"collections (OrderedDict|Counter)"
    r"|torch \w+Storage|torch (Size|device|[a-z]+\d+\w*|bool|float|half|double|int|long|short)"
    r"|torch\._utils _rebuild_(tensor|tensor_v2|parameter|parameter_with_state)|torch\.nn\.parameter Parameter"
    r"|numpy (ndarray|dtype)|numpy\._?core\.multiarray (_reconstruct|scalar)"
    r"|_codecs encode|(builtins|__builtin__) (set|complex)"
)
# Codecs that take a time quadratic in the text's length; arrays are written as latin1.
_SLOW_CODECS = ("punycode", "idna")
# Operations and the bytes that follow them; of the others, a length follows, or nothing is needed.
_PUSH = {b"N": 0, b"\x88": 0, b"\x89": 0, b")": 0, b"]": 0, b"}": 0, b"\x8f": 0, b"J": 4, b"K": 1, b"M": 2, b"G": 8}
_TEXTS = {b"X": "<I", b"U": "<B", b"\x8a": "<B"}
_TUPLES = {b"\x85": 1, b"\x86": 2, b"\x87": 3}
# What takes values off the stack and leaves the one below as it is.
_POPS = {b"a": 1, b"s": 2, b"b": 1}
_MEMO = {b"q": "<B", b"r": "<I", b"h": "<B", b"j": "<I"}


class ForeignError(Exception):
    """A file holds something else than weights; the message follows the file's name."""


def look_through(path: Path) -> bool:
    """Raise unless a file is a checkpoint of torch with numbers alone; return whether it is a zip archive.

    Raises:
        ForeignError: it holds something else, or would take much more memory than its size.
        OSError, zipfile.BadZipFile: it cannot be read.
    """
    with open_regular(path) as file:
        zipped = file.read(4) == b"PK\x03\x04"  # as torch decides
        if zipped:
            _Scan(_table(file)).pickle()
        else:
            file.seek(0)
            scan = _Scan(file.read(_MOST_TABLE))
            for _ in range(_LEGACY_PICKLES):
                scan.pickle()
    return zipped


def _table(file: BinaryIO) -> bytes:
    """Return the pickle of a zip archive, after a look at all that the archive holds."""
    size = os.fstat(file.fileno()).st_size
    place, length = _directory(file, size)
    if length > _MOST_DIRECTORY:
        raise ForeignError("lists more files than a checkpoint has")
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        # torch has a reader of its own, which must find the same files: it takes the list's place as it is stated, and
        # the first file's folder for all, and names in capitals for the same.
        names = {entry.filename.lower() for entry in entries if entry.filename == entry.orig_filename}
        tables = [entry for entry in entries if entry.filename.lower().endswith("/data.pkl")]
        if archive.start_dir != place or len(names) < len(entries) or len(tables) != 1:
            raise ForeignError("is not a checkpoint of tensors")
        if tables[0].filename != f"{entries[0].filename.partition('/')[0]}/data.pkl":
            raise ForeignError("is not a checkpoint of tensors")
        if any(
            entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size for entry in entries
        ):
            raise ForeignError("is compressed, which checkpoints of torch are not")
        if sum(entry.file_size for entry in entries) > size or tables[0].file_size > _MOST_TABLE:
            raise ForeignError("claims to hold more than its size allows")
        return archive.read(tables[0])


def _directory(file: BinaryIO, size: int) -> tuple[int, int]:
    """Return the place and the bytes of a zip archive's directory as its end states them; zipfile reads it at once."""
    file.seek(max(0, size - 42))
    locator, end = file.read(20), file.read(22)
    if end[:4] != b"PK\x05\x06":
        raise zipfile.BadZipFile("its end is missing")
    length, place = struct.unpack("<12xII2x", end)
    if locator[:4] == b"PK\x06\x07":  # of more than 4 GB, or written as if it were
        file.seek(min(struct.unpack("<8xQ4x", locator)[0], size))
        record = file.read(56)
        length, place = struct.unpack("<40xQQ", record) if len(record) == 56 else (size, size)
    return int(place), int(length)


class _Scan:
    """Follows a pickle without making anything: it keeps how deep each value on the stack is nested."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place, self._operations = data, 0, 0

    def pickle(self) -> None:
        """Follow one pickle to its end; raise ForeignError where it does not only hold weights."""
        self._stack: list[int] = []
        self._marks: list[list[int]] = []
        self._memo: dict[int, int] = {}
        try:
            while (operation := self._take(1)) != b".":
                self._operations += 1
                self._follow(operation)
                if self._operations > _MOST_OPERATIONS or (self._stack and self._stack[-1] > _DEEPEST):
                    raise ForeignError("holds more, or is nested deeper, than a table of weights")
        except (IndexError, KeyError, struct.error, ValueError):
            raise ForeignError("is not a checkpoint of tensors") from None

    def _take(self, count: int) -> bytes:
        taken = self._data[self._place : self._place + count]
        self._place += count
        if len(taken) < count:
            raise ForeignError("is damaged or not a checkpoint: it ends early")
        return taken

    def _number(self, form: str) -> int:
        return int(struct.unpack(form, self._take(struct.calcsize(form)))[0])

    def _follow(self, operation: bytes) -> None:
        stack = self._stack
        if operation in _PUSH:
            self._take(_PUSH[operation])
            stack.append(0)
        elif operation in _TEXTS:
            text = self._take(self._number(_TEXTS[operation]))
            if operation == b"X" and len(text) < 20 and text.lower().decode("utf-8", "replace") in _SLOW_CODECS:
                raise ForeignError("holds text in a form that arrays do not have")
            stack.append(0)
        elif operation in _MEMO:
            number = self._number(_MEMO[operation])
            if operation in b"qr":
                self._memo[number] = stack[-1]
            else:
                stack.append(self._memo[number])
        elif operation in _TUPLES:
            count = _TUPLES[operation]
            stack[-count:] = [1 + max(stack[-count:])]
        elif operation in _POPS:
            del stack[-_POPS[operation] :]
            stack[-1] += 0  # there must be one
        else:
            self._follow_more(operation)

    def _follow_more(self, operation: bytes) -> None:
        if operation == b"(":
            self._marks.append(self._stack)
            self._stack = []
        elif operation in (b"t", b"e", b"u"):
            items, self._stack = self._stack, self._marks.pop()
            if operation == b"t":
                self._stack.append(1 + max(items, default=0))
        elif operation in (b"R", b"\x81"):  # a call: what it makes may hold its arguments
            arguments = self._stack.pop()
            self._stack[-1] = arguments
        elif operation == b"Q":  # a storage
            self._stack[-1] = 0
        elif operation == b"c":
            name = " ".join(self._line() for _ in range(2))
            if not _ALLOWED.fullmatch(name):
                raise ForeignError(f"would run {name.replace(' ', '.')}")
            self._stack.append(0)
        elif operation == b"\x80":
            self._take(1)
        else:
            raise ForeignError("is not a checkpoint of tensors")

    def _line(self) -> str:
        end = self._data.index(b"\n", self._place)
        line = self._data[self._place : end].decode("utf-8")
        self._place = end + 1
        return line


class PickledDtype:
    """Stands in for numpy.dtype: native numbers and truth values alone."""

    def __init__(self, name: str, align: bool = False, copy: bool = False) -> None:
        found = np.dtype(name) if isinstance(name, str) and re.fullmatch(r"[a-z]+[0-9]{0,2}", name) else None
        if found is None or found.name not in _NUMERIC or found != np.dtype(found.name):
            raise ForeignError(f"holds an array of {str(name)[:40]}")
        self.dtype = found

    def __setstate__(self, state: tuple[object, ...]) -> None:
        # Version, byte order, no fields, no sub-array, as NumPy writes it.
        if not (len(state) >= 5 and state[1] in ("<", "|", "=") and state[2:5] == (None, None, None)):
            raise ForeignError("holds an array of another type than NumPy writes")


class PickledArray:
    """Stands in for numpy.ndarray, and is what its pickle becomes."""

    array: np.ndarray[Any, np.dtype[Any]] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        version, shape, dtype, fortran, raw = state
        if version != 1 or type(dtype) is not PickledDtype or type(raw) is not bytes or type(shape) is not tuple:
            raise ForeignError("holds an array of another type than NumPy writes")
        self.array = np.frombuffer(raw, dtype.dtype).reshape(shape, order="F" if fortran else "C")


def _reconstruct(kind: object, shape: object, code: object) -> PickledArray:
    """Stand in for NumPy's function of this name."""
    return PickledArray()


def _scalar(dtype: PickledDtype, raw: bytes) -> PickledArray:
    """Stand in for NumPy's function `scalar`."""
    found = PickledArray()
    found.__setstate__((1, (), dtype, False, raw))
    return found


def numpy_globals() -> list[tuple[Callable[..., Any], str]]:
    """Return what stands for the names in an array's pickle, for torch.serialization.safe_globals."""
    # NumPy 2 moved its core; a file contains the name in the version that wrote it.
    cores = ("numpy.core.multiarray", "numpy._core.multiarray")
    functions = [(each, f"{core}.{name}") for core in cores for each, name in _FUNCTIONS]
    return [(PickledArray, "numpy.ndarray"), (PickledDtype, "numpy.dtype"), *functions]


_FUNCTIONS: tuple[tuple[Callable[..., Any], str], ...] = ((_reconstruct, "_reconstruct"), (_scalar, "scalar"))
