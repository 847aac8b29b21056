"""`fgfast review` as a person runs it: decided, killed, opened again; ended by signals; its terminal closed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

pytest.importorskip("uvicorn", reason="the extra review is not installed")
pytest.importorskip("starlette", reason="the extra review is not installed")


from small_review import Browser, small_run

from fgfast.io.lock import OutputLock

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return small_run(tmp_path)[0]


def _hears_hangups() -> None:
    """Undo what nohup does to the tests: a process whose parent ignores SIGHUP ignores it, too."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _own_terminal() -> None:
    import fcntl
    import termios

    _hears_hangups()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextmanager
def review(out: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], Browser]]:
    """Start the command, open its page."""
    command = [sys.executable, "-m", "fgfast", "review", str(out), "--no-open", *more]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        preexec_fn=_hears_hangups,
    ) as process:
        try:
            assert process.stdout is not None
            lines: list[str] = []
            while not (found := re.search(r"Open (http://127\.0\.0\.1:(\d+)/\?token=\S+)", lines[-1] if lines else "")):
                lines.append(process.stdout.readline())
                assert lines[-1], lines
            browser = Browser(int(found[2]))
            assert browser.open(found[1]).status == 303
            yield process, browser
        finally:
            process.kill()


def accept(browser: Browser, number: int) -> int:
    reply = browser.post("/api/decide", {"changes": [{"id": number, "seen": 0, "verdict": "accept"}]})
    assert reply.status == 200, reply.body
    return int(reply.json["results"][0]["number"])


def test_what_was_decided_is_there_after_a_kill(out: Path) -> None:
    with review(out) as (process, browser):
        assert accept(browser, 2) == 1
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        _, alive = psutil.wait_procs(children, 10)
        assert not alive
    with review(out) as (process, browser):
        state = browser.get("/api/state").json
        assert (state["decided"], state["last"], state["stale"]) == (1, 1, True)
        assert browser.get("/api/items?ids=2").json[0]["decision"]["verdict"] == "accept"
        before = (out / "fgfast/run.json").stat().st_mtime_ns
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert (out / "fgfast/run.json").stat().st_mtime_ns > before  # lists and report were written at the end
    with OutputLock(out / "fgfast/lock"):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_signals_end_it_and_what_it_started(out: Path, number: int) -> None:
    with review(out) as (process, browser):
        browser.get("/api/state")
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        assert process.wait(20) == 0
        _, alive = psutil.wait_procs(children, 10)
        assert not alive


def test_a_closed_terminal_ends_it(out: Path) -> None:
    import pty

    mother, daughter = pty.openpty()
    command = [sys.executable, "-m", "fgfast", "review", str(out), "--no-open"]
    process = subprocess.Popen(
        command, stdin=daughter, stdout=daughter, stderr=daughter, start_new_session=True,
        preexec_fn=_own_terminal,
    )  # fmt: skip
    try:
        os.close(daughter)
        text = ""
        while text.count("?token=") < 1 or "Enter" not in text:
            text += os.read(mother, 4096).decode()
        os.write(mother, b"\n")
        while text.count("?token=") < 2:  # Enter prints a new address
            text += os.read(mother, 4096).decode()
        os.close(mother)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def test_a_second_server_says_who_has_the_output_and_read_only_works_beside(out: Path) -> None:
    with review(out) as (_, first):
        command = [sys.executable, "-m", "fgfast", "review", str(out), "--no-open"]
        refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert refused.returncode == 2 and "another run" in refused.stderr
        with review(out, "--read-only") as (process, second):
            accept(first, 1)
            assert second.get("/api/changes?since=0").json == {"last": 1, "ids": [1]}
            started = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0 and time.monotonic() - started < 10
