"""The server of `fgfast review`, from its first line to its last."""

from __future__ import annotations

import contextlib
import getpass
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from fgfast.cli.interruption import Interruption
from fgfast.terminal import line, note, say

# Seconds between two looks at the server's thread.
_LOOK = 1.0


def serve(
    out: Path, *, root: Path | None, host: str, port: int, open_browser: bool, read_only: bool, prepare: int, who: str
) -> None:
    """Serve an output until a signal ends it.

    Args:
        out: the output folder.
        root: the data set's folder, where it has moved since.
        host, port: where it listens; port 0 for any that is free.
        open_browser: whether the page is opened.
        read_only: whether nothing may be changed.
        prepare: of so many entries, the most doubtful, the model looks at the images before the page opens.
        who: name of the person, for decisions; empty for the user's.
    """
    from fgfast.processes import open_in_browser
    from fgfast.review.opening import opening_of
    from fgfast.review.preparing import prepare_before
    from fgfast.review.security import is_loopback
    from fgfast.review.server import Server, require_packages
    from fgfast.review.session import Review

    require_packages()
    opening = opening_of(out, root, read_only, who or _user())
    with (
        Interruption("decisions are kept; lists and report are written first") as interruption,
        Review(opening) as review,
        Server(review, host, port, lambda: note(_OPENED)) as server,
    ):
        entries = review.entries
        say(
            line(f"{review.title}: {len(entries):,} images, {entries.left():,} flagged ones left to look at, ")
            + line(f"{len(entries.causes):,} decided, in {out}" + (" (read-only)" if read_only else ""))
        )
        if not is_loopback(host):
            note(f"anybody who reaches {host} and has the address below can decide; nothing is encrypted")
        if prepare:
            note(line(prepare_before(review, prepare, _prepared_so_far(interruption.stop))))
        address = server.new_address()
        say(f"Open {address}")
        say("Ctrl-C ends it." + (" Enter prints a new address; each opens the page once." if _has_keyboard() else ""))
        sys.stdout.flush()
        if open_browser:
            open_in_browser(address)
        with _on_enter(lambda: say(f"Open {server.new_address()}")):
            while server.running and not interruption.stop.wait(_LOOK):
                pass


_OPENED = "a browser opened the page; its address does not open another one"


# Seconds between two lines of progress.
_PROGRESS = 5.0


def _prepared_so_far(stop: threading.Event) -> Callable[[int, int], bool]:
    """Return what prints how many images are prepared, now and then, and says whether to go on."""
    due = time.monotonic() + _PROGRESS

    def go_on(done: int, total: int) -> bool:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + _PROGRESS
            note(f"preparing: {done:,} of {total:,} images")
        return not stop.is_set()

    return go_on


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"


def _has_keyboard() -> bool:
    """Whether this process may read what is typed: it is in the foreground of a terminal."""
    try:
        return os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp()
    except (OSError, AttributeError):
        return False


@contextlib.contextmanager
def _on_enter(do: Callable[[], None]) -> Iterator[None]:
    """Do something whenever Enter is pressed."""
    if not _has_keyboard():
        yield
        return
    # A process that goes to the background later reads nothing, instead of being stopped.
    before = signal.signal(signal.SIGTTIN, signal.SIG_IGN) if hasattr(signal, "SIGTTIN") else None

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                do()

    threading.Thread(target=watch, name="keyboard", daemon=True).start()
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTTIN, before)
