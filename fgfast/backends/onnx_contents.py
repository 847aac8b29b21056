"""What an ONNX file makes its reader do, found without the package onnx: operators, and files that it names.

A graph may come from a stranger. ONNX's own operators compute; those of other domains do whatever their library does
(EPContext of ONNX Runtime loads a compiled program from any file, TensorRT's parser looks for plugins). And weights
outside the file may be named by any path. fgfast's own graphs need neither.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from fgfast.errors import GraphError
from fgfast.files import open_regular

_DOMAINS = (b"", b"ai.onnx")
_DEEPEST = 64
_LONGEST_NAME = 200
# Numbers of the fields of onnx.proto that hold a message, by the message that has them. Each leads to the kind of its
# content; an operator's domain and a tensor's place are looked at where they are met.
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute", 7: "domain"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "place"},
    "place": {1: "key", 2: "value"},
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def check(path: Path) -> None:
    """Raise unless a graph has ONNX's own operators alone, and its weights in files beside it.

    Args:
        path: of the ONNX file.

    Raises:
        GraphError: it has others, names another file, or is damaged; the message says what to do.
    """
    try:
        with open_regular(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            view = memoryview(content)
            try:
                places = set(_places(path, view))
            finally:
                view.release()
    except OSError as error:
        raise GraphError(f"{path} cannot be read ({error.strerror or error}); export the model again") from error
    except (ValueError, IndexError) as error:  # an empty file cannot be mapped
        raise GraphError(f"{path} is damaged or not an ONNX file ({error}); export the model again") from error
    for place in sorted(places):
        name = place.decode("utf-8", "backslashreplace")
        if (
            not name
            or len(place) > _LONGEST_NAME
            or Path(name).name != name
            or "\\" in name
            or ":" in name
            or name == ".."
        ):
            raise GraphError(
                f"{path} names a file outside its folder, {name[:_LONGEST_NAME]!r}; export the model again"
            )
        if path.with_name(name).is_symlink():
            raise GraphError(f"{path.with_name(name)} is a link; put the file itself there, or export the model again")


def _places(path: Path, view: memoryview) -> Iterator[bytes]:
    """Yield the names of the files that hold weights; raise at an operator that is not ONNX's."""
    pending = [("model", 0, len(view), 0)]
    while pending:
        kind, start, end, depth = pending.pop()
        if depth > _DEEPEST:
            raise ValueError("it is nested too deep")
        key = value = b""
        for number, begin, stop in _messages(view, start, end):
            inside = _FIELDS[kind].get(number)
            if inside == "domain":
                if (domain := bytes(view[begin:stop][:_LONGEST_NAME])) not in _DOMAINS:
                    raise GraphError(
                        f"{path} has an operator of {domain.decode('utf-8', 'backslashreplace')!r}; only those of ONNX "
                        "itself are run, which compute and do nothing else. Export the model again"
                    )
            elif inside in ("key", "value"):
                text = bytes(view[begin:stop][: _LONGEST_NAME + 1])
                key, value = (text, value) if inside == "key" else (key, text)
            elif inside:
                pending.append((inside, begin, stop, depth + 1))
        if key == b"location":
            yield value


def _messages(view: memoryview, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, start and end of each field of a message that has a length; skip the others."""
    place = start
    while place < end:
        tag, place = _varint(view, place, end)
        number, form = tag >> 3, tag & 7
        if form == _VARINT:
            _, place = _varint(view, place, end)
        elif form == _BYTES:
            length, place = _varint(view, place, end)
            if length > end - place:
                raise ValueError("a part is longer than the whole")
            yield number, place, place + length
            place += length
        elif form in (_FIXED64, _FIXED32):
            place += 8 if form == _FIXED64 else 4
        else:
            raise ValueError("it has parts of an unknown form")
    if place != end:
        raise ValueError("it ends early")


def _varint(view: memoryview, place: int, end: int) -> tuple[int, int]:
    """Return a number of protobuf's variable length, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= end:
            raise ValueError("it ends early")
        byte = view[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("it has a number that is too long")
