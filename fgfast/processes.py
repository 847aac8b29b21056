"""Every process that fgfast starts: programs of the system, worker processes, and functions in a process of their own.

None of them looks for its program, or for a Python module, in the current folder, which may be anybody's.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

from fgfast import child as _child
from fgfast.child import ChildError as ChildError
from fgfast.child import ChildFailedError as ChildFailedError
from fgfast.child import Limits
from fgfast.child import MemoryExceededError as MemoryExceededError
from fgfast.child import TimeExceededError as TimeExceededError

# `python -c` puts the current folder first on the import path, but only after everything that Python itself needs is
# imported. The first statement replaces the path, before anything else is imported.
_PATH_FIRST = "import sys; sys.path[:] = sys.argv[1:]; del sys.argv[1:]; "
_SERVE = "from fgfast.child import serve; serve()"
# A child has one thread: the buffers of further ones (BLAS, the arenas of malloc(3)) would count against its memory.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "MALLOC_ARENA_MAX"), "1")
# SAM's takes more later (fgfast.review): threads that spin while they wait take four times the decoder's CPU time.
_ONE_THREAD["OMP_WAIT_POLICY"] = "PASSIVE"
# A process gets no Ctrl-C: its parent ends it.
_APART: dict[str, Any] = (
    {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    if sys.platform == "win32"
    else {"start_new_session": True}
)
# Bytes of output that are kept of a program, of each of its two streams.
_OUTPUT = 1 << 20
# Bytes that Python and its imports may take where they cannot be told from what a function takes.
_IMPORTS = 256 << 20
# Whether a child can cap its own memory.
_CAPS = bool(sys.platform.startswith("linux"))
# Seconds between two looks at a child, and those that a killed process has for ending, and its output for arriving.
_LOOK, _END = 0.05, 10.0


def import_path() -> list[str]:
    """Return this process's import path without the current folder, unless fgfast itself is imported from there.

    A relative entry counts as the current folder's: it is one, or lies in it.
    """
    own, here = os.path.realpath(Path(__file__).parent.parent), os.path.realpath(os.curdir)
    path = []
    for entry in map(str, sys.path):
        real = os.path.realpath(entry or os.curdir)
        if real == own or (Path(entry).is_absolute() and real != here):
            path.append(str(Path(entry).absolute()))
    return path


def find(program: str) -> str:
    """Return the absolute path of a program, which is searched in the absolute folders of PATH alone.

    Raises:
        FileNotFoundError: it is in none of them.
    """
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        # `shutil.which` of a bare name would look into the current folder first on Windows.
        if Path(folder).is_absolute() and (path := shutil.which(str(Path(folder) / program))):
            return path
    raise FileNotFoundError(f"there is no program {program!r} in the folders of PATH")


def run(
    command: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, without a shell and without input.

    Args:
        command: the program's name, or its absolute path, and its arguments.
        seconds: the most seconds it may take; it is killed then.
        environment: variables set for it beside this process's own.

    Returns:
        Its exit status, and the first MiB of its output and of its errors, as text.

    Raises:
        FileNotFoundError: there is no such program.
        OSError: it cannot be started.
        TimeExceededError: it takes too long.
    """
    program = command[0] if Path(command[0]).is_absolute() else find(command[0])
    process = subprocess.Popen(
        [program, *command[1:]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **(environment or {})},
        **_APART,
    )
    return _finish(command[0], process, seconds)


def run_python(code: str, seconds: float) -> subprocess.CompletedProcess[str]:
    """Run code in a Python of its own, whose import path is `import_path()`; see `run`."""
    return _finish("Python", start_python(code, import_path(), stdin=subprocess.DEVNULL), seconds)


def start_python(
    code: str,
    path: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
    stdin: int = subprocess.PIPE,
    stdout: int | None = subprocess.PIPE,
    stderr: int | None = subprocess.PIPE,
) -> subprocess.Popen[bytes]:
    """Start code in a Python of its own, which gets no Ctrl-C.

    Args:
        code: one line of Python.
        path: the only folders that it imports from; by default this process's own, so that both see the same modules
            (of the current folder, too, where this process has it: a notebook's own modules).
        environment: variables set for it beside this process's own.
        stdin, stdout, stderr: a pipe, subprocess.DEVNULL, or None for this process's own.
    """
    variables = {**os.environ, **(environment or {}), "PYTHONSAFEPATH": "1"}
    if path is None:
        path = [str(entry) for entry in sys.path]
    else:
        variables.pop("PYTHONPATH", None)
    command = [sys.executable, "-c", _PATH_FIRST + code, *path]
    return subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, env=variables, **_APART)


def call(function: str, *arguments: Any, memory: int, seconds: float) -> Any:
    """Call a function in a process of its own, with limits; what it reads may be hostile.

    The process imports nothing from the current folder and cannot write files. Nothing it sends back is executed: only
    plain values pass, which are None, numbers, text, bytes, lists, tuples, sets, dicts, paths, and NumPy arrays and
    scalars of numbers, text, dates, or (arrays of objects) of plain values, without named fields.

    Linux caps its address space. Elsewhere this process looks at its memory 20 times a second, and kills it when it has
    too much: it can exceed the cap for a moment.

    Args:
        function: "fgfast.module:function".
        arguments: its arguments; anything that can be pickled.
        memory: bytes that it may take, beyond what its imports take, and bytes of its result.
        seconds: the most seconds it may take, with its start and its imports.

    Raises:
        the errors of fgfast.errors that the function raises.
        MemoryExceededError: it needs more memory.
        TimeExceededError: it takes longer.
        ChildFailedError: it crashes, raises another error, or returns a value that is not plain.
    """
    with Child(memory) as child:
        return child.call(function, *arguments, seconds=seconds)


def open_in_browser(address: str) -> bool:
    """Open an address in the person's browser; return whether one was started. None is where there is no desktop."""
    import webbrowser

    # Without a desktop, Python would start a browser of the terminal, which would take the terminal away.
    desktop = sys.platform in ("win32", "darwin") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    try:
        return bool(desktop) and webbrowser.open(address)
    except (webbrowser.Error, OSError):
        return False


class Child:
    """A Python process that calls functions for this one, one after the other; a context manager.

    Args:
        memory: bytes that it may take; see `call`. None: it is trusted, without limits, and any value passes.
    """

    def __init__(self, memory: int | None = None) -> None:
        trusted = memory is None
        self._memory = memory
        self._process = start_python(
            _SERVE, import_path(), {} if trusted else _ONE_THREAD, stderr=None if trusted else subprocess.DEVNULL
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        _kill(self._process)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def call(self, function: str, *arguments: Any, seconds: float | None = None) -> Any:
        """Return a function's result; see `call`, the function of this module."""
        watch = _Watch(self._process, Limits(self._memory, seconds))
        try:
            report = self._report(function, arguments, watch.limits)
        except (OSError, EOFError) as error:
            watch.end()
            raise watch.error(function) from error
        finally:
            watch.end()
        return _child.result_of(report, function, trusted=self._memory is None)

    def _report(self, function: str, arguments: tuple[Any, ...], limits: Limits) -> bytes:
        assert self._process.stdin and self._process.stdout
        _child.send(self._process.stdin, pickle.dumps((function, arguments, limits)))
        largest = sys.maxsize if limits.memory is None else limits.memory + _child.REPORT
        return _child.receive(self._process.stdout, largest)


class _Watch:
    """Kills a child that takes more than its limits."""

    def __init__(self, process: subprocess.Popen[bytes], limits: Limits) -> None:
        self.limits = limits
        self._process = process
        self._over = threading.Event()
        self._exceeded: Literal["", "time", "memory"] = ""
        if limits.memory is not None or limits.seconds is not None:
            threading.Thread(target=self._look, name="watch of a child", daemon=True).start()

    def end(self) -> None:
        self._over.set()

    def error(self, function: str) -> ChildError:
        """Return why the child ended."""
        _kill(self._process)
        status = self._process.returncode
        if self._exceeded == "time" or status == -getattr(signal, "SIGXCPU", 0):
            return TimeExceededError(f"{function} takes longer than {self.limits.seconds:g} seconds")
        if self._exceeded == "memory":
            return MemoryExceededError(f"{function} needs more memory than it may have")
        return ChildFailedError(f"{function} ended its process (exit status {status}), perhaps for want of memory")

    def _look(self) -> None:
        end = None if self.limits.seconds is None else time.monotonic() + self.limits.seconds
        while not self._over.wait(_LOOK):
            if end is not None and time.monotonic() > end:
                self._exceeded = "time"
            elif self._too_large():
                self._exceeded = "memory"
            if self._exceeded:
                self._process.kill()
                return

    def _too_large(self) -> bool:
        if self.limits.memory is None or _CAPS:
            return False
        import psutil

        try:
            return bool(psutil.Process(self._process.pid).memory_info().rss > self.limits.memory + _IMPORTS)
        except psutil.Error:
            return False


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process, and on POSIX what it started; wait for its end."""
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_END)


def _finish(program: str, process: subprocess.Popen[bytes], seconds: float) -> subprocess.CompletedProcess[str]:
    """Wait for a process; return its output."""
    kept: list[list[bytes]] = [[], []]
    threads = [
        threading.Thread(target=_keep, args=(stream, into), daemon=True)
        for stream, into in zip((process.stdout, process.stderr), kept, strict=True)
    ]
    for thread in threads:
        thread.start()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        raise TimeExceededError(f"{program} takes longer than {seconds:g} seconds") from None
    finally:
        _kill(process)
        for thread in threads:
            thread.join(_END)
    output, errors = (b"".join(into).decode("utf-8", "replace") for into in kept)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def _keep(stream: IO[bytes], into: list[bytes]) -> None:
    """Read a stream to its end; keep its beginning."""
    room = _OUTPUT
    with stream:
        while block := stream.read(1 << 16):
            into.append(block[:room])
            room -= len(into[-1])
