"""A process that calls functions for another one (`processes.call`): their messages, and the child's side.

A child reads what may be hostile. What it sends back is data: nothing in it is looked up, imported or called.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import os
import pickle
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fgfast import errors

_LENGTH = struct.Struct("<Q")
# Bytes that a report may have beside its value, or for an error.
REPORT = 1 << 16
# Characters of another error's text that are passed on.
_TEXT = 2000
_KINDS = "biufcSUmM"
# Seconds between two looks at the parent.
_LOOK = 0.5


class ChildError(errors.FgfastError):
    """A function that was called in a process of its own has no result."""


class MemoryExceededError(ChildError):
    """The function needed more memory than it was given."""


class TimeExceededError(ChildError):
    """The function, or the program, took longer than it was given."""


class ChildFailedError(ChildError):
    """The function's process crashed, or raised an error that is none of fgfast's, or its result is not passed on."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one call may take.

    Attributes:
        memory: bytes beyond what its imports take. None: the child is trusted, and has no limits.
        seconds: of time; None: any.
    """

    memory: int | None
    seconds: float | None


def send(stream: IO[bytes], message: bytes) -> None:
    """Write a message."""
    stream.write(_LENGTH.pack(len(message)))
    stream.write(message)
    stream.flush()


def receive(stream: IO[bytes], largest: int) -> bytes:
    """Read a message.

    Raises:
        EOFError: the stream ends.
        MemoryExceededError: it has more than `largest` bytes.
    """
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError("it ended")
    (length,) = _LENGTH.unpack(head)
    if length > largest:
        raise MemoryExceededError(f"a result of {length:,} bytes is more than the {largest:,} that are allowed")
    message = stream.read(length)
    if len(message) < length:
        raise EOFError("it ended")
    return message


def result_of(report: bytes, function: str, trusted: bool) -> Any:
    """Return the value that a child reports, or raise the error.

    Args:
        report: what `serve` sent.
        function: what was called, for the message.
        trusted: any value may be in it; otherwise plain ones alone, see `processes.call`.
    """
    kind, content = report[:1], report[1:]
    try:
        if kind == b"v":
            return pickle.loads(content) if trusted else _Plain(io.BytesIO(content)).load()
        error: BaseException
        if kind == b"x" and trusted:
            error = pickle.loads(content)
        elif kind == b"e":
            name, message, attributes = _Plain(io.BytesIO(content)).load()
            error = _error(name, message, attributes)
        elif kind == b"m":
            error = MemoryExceededError(f"{function} needs more memory than it may have")
        else:
            error = ChildFailedError(f"{function} failed: {content[:_TEXT].decode('utf-8', 'replace')}")
    except Exception as why:
        raise ChildFailedError(f"{function} reports what cannot be read ({why})") from why
    raise error


def _error(name: str, message: str, attributes: dict[str, Any]) -> errors.FgfastError:
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, errors.FgfastError)):
        raise ValueError(f"no error {name!r}")
    error = kind.__new__(kind, str(message))
    error.__dict__.update(attributes)
    return error


def serve() -> None:
    """Call functions until the parent ends."""
    _end_with_parent()
    receiving, sending = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # Whatever libraries print goes where errors go, and they have no input.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    with contextlib.suppress(EOFError, OSError):
        while True:
            function, arguments, limits = pickle.loads(receive(receiving, sys.maxsize))
            send(sending, _report(function, arguments, limits))
    os._exit(0)  # without waiting for threads of libraries


def _end_with_parent() -> None:
    """End this process with its parent, also while a function computes, which would not see that its input is closed.

    PR_SET_PDEATHSIG would not do: it counts the thread that started this process as the parent.
    """
    parent = os.getppid()

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK)
        os._exit(1)

    if sys.platform != "win32":  # where a process keeps the number of its parent
        threading.Thread(target=look, name="watch of the parent", daemon=True).start()


def _report(function: str, arguments: tuple[Any, ...], limits: Limits) -> bytes:
    module, _, name = function.partition(":")
    trusted = limits.memory is None
    try:
        called: Callable[..., Any] = getattr(importlib.import_module(module), name)
        _limit(limits)
        value = called(*arguments)
        return b"v" + (pickle.dumps(value) if trusted else _dumps(value))
    except BaseException as error:
        return _failure(error, trusted)


def _failure(error: BaseException, trusted: bool) -> bytes:
    if trusted:
        with contextlib.suppress(Exception):
            return b"x" + pickle.dumps(error)
    if isinstance(error, MemoryError):
        return b"m"
    if isinstance(error, errors.FgfastError):
        kind = next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
        for attributes in (error.__dict__, {}):
            with contextlib.suppress(Exception):
                return b"e" + _dumps((kind.__name__, str(error), attributes))
    return b"f" + f"{type(error).__name__}: {error}"[:_TEXT].encode("utf-8", "backslashreplace")


def _limit(limits: Limits) -> None:
    """Limit this process from now on: what it has imported does not count."""
    if limits.memory is None or sys.platform == "win32":
        return
    import resource

    def at_most(what: int, amount: int) -> None:
        amount = min(amount, *(limit for limit in resource.getrlimit(what) if limit != resource.RLIM_INFINITY), amount)
        resource.setrlimit(what, (amount, amount))

    at_most(resource.RLIMIT_CORE, 0)
    at_most(resource.RLIMIT_FSIZE, 0)
    if limits.seconds is not None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        at_most(resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime + limits.seconds) + 1)
    if sys.platform.startswith("linux"):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        at_most(resource.RLIMIT_AS, pages * resource.getpagesize() + limits.memory)


class _ToPlain(pickle.Pickler):
    """Pickles plain values; arrays and paths by what they are made of."""

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, Path):
            return "path", str(value)
        numpy = sys.modules.get("numpy")
        if numpy is None or not isinstance(value, (numpy.ndarray, numpy.generic)):
            return None
        array = numpy.asarray(value)
        if array.dtype.kind == "O":
            return "objects", array.shape, list(array.ravel())
        if array.dtype.kind not in _KINDS:
            raise TypeError(f"an array of {array.dtype} cannot leave its process")
        kind = "array" if isinstance(value, numpy.ndarray) else "scalar"
        return kind, array.shape, array.dtype.str, array.tobytes()

    def reducer_override(self, value: Any) -> Any:
        raise TypeError(f"a value of the type {type(value).__name__} cannot leave its process")


def _dumps(value: Any) -> bytes:
    stream = io.BytesIO()
    _ToPlain(stream, pickle.HIGHEST_PROTOCOL).dump(value)
    return stream.getvalue()


class _Plain(pickle.Unpickler):
    """Reads plain values alone."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is no plain value")

    def persistent_load(self, made_of: Any) -> Any:
        if made_of[0] == "path":
            return Path(made_of[1])
        import numpy

        kind, shape, *rest = made_of
        if kind == "objects":
            (values,) = rest
            if math.prod(shape) != len(values):
                raise pickle.UnpicklingError("an array has another number of values than its shape")
            objects = numpy.empty(len(values), object)
            for place, value in enumerate(values):
                objects[place] = value
            return objects.reshape(shape)
        dtype = numpy.dtype(rest[0])
        if dtype.kind not in _KINDS:
            raise pickle.UnpicklingError(f"an array of {dtype} is no plain value")
        array = numpy.ndarray(shape, dtype, rest[1]).copy()
        return array if kind == "array" else array[()]
