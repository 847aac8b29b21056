"""A process in which a model works for the review: its death costs the call that it was computing, nothing else."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

from fgfast import processes
from fgfast.errors import FgfastError, SegmenterLostError

# Bytes of address space beyond imports: enough for any model, for CUDA as well, which reserves what it never uses. A
# process with a limit sends plain values back, which are not executed.
_MEMORY = 1 << 42


class SegmenterProcess:
    """One process, which computes one call at a time; any thread may call.

    Args:
        name: of the model, for messages.
        first: "module:function" and its arguments, called as soon as a process starts, so that it has loaded its model
            when it is needed. Its errors are those of the next call.
    """

    def __init__(self, name: str, first: tuple[Any, ...] = ()) -> None:
        self._name, self._first = name, first
        self._turn, self._state = threading.Lock(), threading.Lock()
        self._closed = False
        self._process = processes.Child(_MEMORY)
        self._load()

    def call(
        self, function: str, *arguments: Any, seconds: float, check: Callable[[], None] = lambda: None, kept: Any = None
    ) -> Any:
        """Call "module:function" in the process.

        Args:
            function: what to call.
            arguments: its arguments.
            seconds: the most that it may take, counted from the moment it starts.
            check: raises where the call is no longer wanted; called when its turn has come.
            kept: passed as the last argument where the function returned None without it: what the process keeps of
                earlier calls is not sent again. None: the function takes no such argument.

        Raises:
            SegmenterLostError: the process died, or was ended because it took too long. A new one is started.
            FgfastError: the function's own, or `check`'s.
        """
        with self._turn:
            check()
            found = self._compute(function, arguments, seconds)
            if found is None and kept is not None:
                found = self._compute(function, (*arguments, kept), seconds)
            return found

    def close(self) -> None:
        """End the process; calls that still wait raise SegmenterLostError."""
        with self._state:
            self._closed = True
            self._process.close()

    def _compute(self, function: str, arguments: tuple[Any, ...], seconds: float) -> Any:
        process = self._process
        late = threading.Event()

        def end() -> None:
            late.set()
            process.close()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            return process.call(function, *arguments)
        except processes.ChildError as error:
            raise self._lost(error, late.is_set(), seconds) from error
        except ValueError as error:  # a pipe that was closed while it was in use
            raise self._lost(error, late.is_set(), seconds) from error
        finally:
            timer.cancel()

    def _lost(self, error: Exception, late: bool, seconds: float) -> SegmenterLostError:
        """Start a new process; return what to say of the old one."""
        with self._state:
            self._process.close()
            if self._closed:
                return SegmenterLostError(f"{self._name} was closed with the review")
            self._process = processes.Child(_MEMORY)
        self._load()
        if late:
            return SegmenterLostError(f"{self._name} took longer than {seconds:g} seconds and was started again")
        return SegmenterLostError(
            f"{self._name} was started again, because it failed: {error}. Click once more, or draw the mask by hand"
        )

    def _load(self) -> None:
        """Let the process load its model, in the background."""
        if not self._first:
            return
        process = self._process

        def load() -> None:
            with contextlib.suppress(FgfastError, ValueError), self._turn:
                if process is self._process:
                    process.call(*self._first)

        threading.Thread(target=load, name="loading a segmenter", daemon=True).start()
