"""The warnings of the libraries that decode images, kept with the image that each is about.

Pillow warns by Python's `warnings`, which knows no image and prints each warning once, and by `logging`. libtiff
prints to the C library's standard error. `captured` routes all to the `collected` block of the thread that decodes. A
process has several such threads, so neither `warnings.catch_warnings(record=True)` nor a redirected file descriptor
would do.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

log = logging.getLogger("fgfast")

# Warnings of an image that are kept, and characters of each: damaged files bring hundreds.
_MOST, _LONGEST = 3, 200
_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)


class _Current(threading.local):
    texts: list[str] | None = None


_current = _Current()
_captures = ExitStack()


class _Show:
    """Stands for `warnings.showwarning`: collects what this thread collects, and passes the rest on."""

    def __init__(self, before: Callable[..., None]) -> None:
        self._before = before

    def __call__(self, message: Warning | str, *more: Any, **named: Any) -> None:
        if _current.texts is None:
            self._before(message, *more, **named)
        else:
            _add(str(message))


@contextmanager
def collected() -> Iterator[list[str]]:
    """Collect what libraries warn about in this thread: a few short texts, each once. Needs `captured`."""
    texts: list[str] = []
    outer, _current.texts = _current.texts, texts
    try:
        yield texts
    finally:
        _current.texts = outer


@contextmanager
def captured() -> Iterator[None]:
    """Route the warnings of Pillow and libtiff to `collected` in all threads; others go where they went."""
    from PIL import Image

    with warnings.catch_warnings(), _libtiff(), _logged():
        warnings.filterwarnings("always", module=r"PIL\.")  # of every image, not of the first one only
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # there is a limit of our own
        warnings.showwarning = _Show(warnings.showwarning)
        yield


def capture_for_good() -> None:
    """Enter `captured` until the process ends, unless that was done: for worker processes, which are fgfast's own."""
    if not isinstance(warnings.showwarning, _Show):
        _captures.enter_context(captured())


def _add(text: str) -> None:
    text = " ".join(text.split())[:_LONGEST]
    if _current.texts is None:
        log.debug("%s", text)
    elif len(_current.texts) < _MOST and text not in _current.texts:
        _current.texts.append(text)


class _Log(logging.Handler):
    """Collects log records."""

    def emit(self, record: logging.LogRecord) -> None:
        _add(record.getMessage())


@contextmanager
def _logged() -> Iterator[None]:
    logger, handler = logging.getLogger("PIL"), _Log(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@contextmanager
def _libtiff() -> Iterator[None]:
    """Replace libtiff's handler of errors, which prints; Pillow silences its warnings itself."""
    library = _loaded_libtiff()
    if library is None:
        yield
        return
    c = ctypes.CDLL(None)
    c.vsnprintf.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p)

    def handle(module: bytes | None, template: bytes, arguments: int | None) -> None:
        text = ctypes.create_string_buffer(4 * _LONGEST)
        c.vsnprintf(text, len(text), template, arguments)
        _add(b": ".join(filter(None, (module, text.value))).decode("utf-8", "replace"))

    handler = _HANDLER(handle)  # held here, because libtiff holds only its address
    library.TIFFSetErrorHandler.argtypes = (ctypes.c_void_p,)
    library.TIFFSetErrorHandler.restype = ctypes.c_void_p
    before = library.TIFFSetErrorHandler(ctypes.cast(handler, ctypes.c_void_p))
    try:
        yield
    finally:
        library.TIFFSetErrorHandler(before)


def _loaded_libtiff() -> ctypes.CDLL | None:
    """Return the libtiff that Pillow has loaded: beside it in wheels, else the system's.

    Returns:
        None where it cannot be found, as on Windows, where it is part of Pillow's own module.
    """
    from PIL import _imaging  # loads it

    if not hasattr(os, "RTLD_NOLOAD"):
        return None
    package = Path(_imaging.__file__).parent
    beside = [*package.parent.glob("pillow.libs/libtiff*"), *package.glob(".dylibs/libtiff*")]
    for name in [*map(str, beside), "libtiff.so.6", "libtiff.so.5", "libtiff.6.dylib"]:
        with suppress(OSError):  # it is not there, or not loaded
            return ctypes.CDLL(name, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
    return None
