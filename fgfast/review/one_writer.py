"""The one thread that decides: it takes the output's lock, makes every change, and rewrites the lists after a rest.

SQLite's connections, and the lock, belong to the thread that opened them; and two changes at a time would be a third
kind of error. So changes wait for each other here.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Protocol, TypeVar

from fgfast.errors import OutputFailedError

log = logging.getLogger("fgfast")

REST = 60.0
"""Seconds without a change after which lists, COCO files and report are written."""
PATIENCE = 3.0
"""Seconds that the page may wait for the output to be open for changes."""

T = TypeVar("T")


class Mends(Protocol):
    """What the thread needs of `fgfast.pipeline.mending.Mender`."""

    @property
    def stale(self) -> bool:
        """Whether lists and reports are older than the last decision."""

    def finish(self) -> Any:
        """Write lists and reports."""


class OneWriter:
    """Runs changes one after the other, in a thread of its own.

    Args:
        open_mender: opens the output for changes, in that thread; it takes the lock.
        rest: seconds without a change after which lists are written.
        finished: called in that thread after lists were written.
        patience: seconds for which the constructor waits for the output to be open. A data set of a million images
            takes longer, while which the entries can be looked at; changes wait.

    Attributes:
        opened: done when the output is open; its error is that of every change.
        stale: whether lists and reports are older than the last decision.
        finishing: whether they are being written.

    Raises:
        OutputLockedError: another process writes to the output.
        FgfastError: see the mender; one that comes after `patience` is that of every change.
    """

    def __init__(
        self,
        open_mender: Callable[[], contextlib.AbstractContextManager[Any]],
        rest: float = REST,
        finished: Callable[[], None] = lambda: None,
        patience: float = PATIENCE,
    ) -> None:
        self._open, self._rest, self._finished = open_mender, rest, finished
        self._jobs: queue.Queue[tuple[Callable[[Any], Any], Future[Any]] | None] = queue.Queue()
        self._held: contextlib.AbstractContextManager[Any] | None = None
        self._mender: Any = None
        self.stale = False
        self.finishing = False
        self._rests = True
        self.opened: Future[None] = Future()
        self._thread = threading.Thread(target=self._work, name="the one writer")
        self._thread.start()
        try:
            self.opened.result(patience)
        except BaseException as error:
            if isinstance(error, FutureTimeoutError) and not self.opened.done():
                return
            self._jobs.put(None)
            self._thread.join()
            raise

    def submit(self, change: Callable[[Any], T]) -> Future[T]:
        """Make a change, given as a function of the mender; the future has its result, or its error.

        Errors of the future:
            OutputFailedError: the disk is full, read-only or failing. The output is opened anew for the next change,
                which brings what was begun to its end.
        """
        future: Future[T] = Future()
        self._jobs.put((change, future))
        return future

    def finish(self) -> Future[Any]:
        """Write lists and reports now."""
        return self.submit(self._finish)

    def close(self) -> None:
        """Make the changes that wait, write lists and reports where they are stale, and give the lock back.

        Raises:
            OutputFailedError: lists could not be written; they stay marked as stale, and the next command writes them.
        """
        last = self.submit(lambda mender: self._finish(mender) if mender.stale else None)
        self._jobs.put(None)
        self._thread.join()
        if self.opened.exception() is None:
            last.result()

    def _work(self) -> None:
        try:
            self._reopen()
        except BaseException as error:
            self.opened.set_exception(error)
            while (job := self._jobs.get()) is not None:
                job[1].set_exception(error)
            return
        self.opened.set_result(None)
        due = time.monotonic() + self._rest
        try:
            while True:
                try:
                    job = self._jobs.get(
                        timeout=max(0.0, due - time.monotonic()) if self.stale and self._rests else None
                    )
                except queue.Empty:
                    self._after_a_rest()
                else:
                    if job is None:
                        return
                    self._run(*job)
                due = time.monotonic() + self._rest
        finally:
            self._close()

    def _run(self, change: Callable[[Any], Any], future: Future[Any]) -> None:
        try:
            if self._mender is None:
                self._reopen()
            future.set_result(change(self._mender))
        except BaseException as error:
            if isinstance(error, OutputFailedError):
                self._close()
            future.set_exception(error)
        # Where the disk failed, what was begun is still to be followed.
        self.stale = self._mender is None or bool(self._mender.stale)
        self._rests = True

    def _finish(self, mender: Any) -> Any:
        self.finishing = True
        try:
            found = mender.finish()
        finally:
            self.finishing = False
        self._finished()
        return found

    def _after_a_rest(self) -> None:
        future: Future[Any] = Future()
        self._run(self._finish, future)
        if (error := future.exception()) is not None:
            log.warning("lists and report could not be written: %s", error)
            self._rests = False  # not again before the next change

    def _reopen(self) -> None:
        held = self._open()
        self._mender = held.__enter__()
        self._held = held
        self.stale = bool(self._mender.stale)

    def _close(self) -> None:
        held, self._held, self._mender = self._held, None, None
        if held is not None:
            with contextlib.suppress(OutputFailedError):
                held.__exit__(None, None, None)
