"""A server on this machine that stands in for the official ones: whole files, broken transfers, errors."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fgfast import transfer


class Mirror(ThreadingHTTPServer):
    """Serves `files`; the first `breaks` transfers end after half of their bytes; `codes` are answered first.

    `moved` leads from a name to another address; with `lengths` off, the server does not say how much it sends.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files: dict[str, bytes] = {}
        self.breaks, self.ranges = 0, True
        self.codes: list[int] = []
        self.moved: dict[str, str] = {}
        self.lengths = True
        self.asked: list[str | None] = []


class _Answer(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        if to := self.server.moved.get(self.path.lstrip("/")):
            self.send_response(302)
            self.send_header("Location", to)
            self.end_headers()
            return
        content = self.server.files.get(self.path.lstrip("/"))
        if self.server.codes or content is None:
            self.send_error(self.server.codes.pop(0) if self.server.codes else 404)
            return
        start = int(re.findall(r"\d+", asked)[0]) if asked and self.server.ranges else 0
        if start and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        rest = content[start:]
        if self.server.lengths:
            self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if self.server.breaks:
            self.server.breaks -= 1
            rest = rest[: len(rest) // 2]
        self.wfile.write(rest)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """Start a server as FGFAST_MIRROR, and do not wait between attempts."""
    with Mirror() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        monkeypatch.setenv("FGFAST_MIRROR", f"http://127.0.0.1:{server.server_address[1]}/")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.delenv("FGFAST_OFFLINE", raising=False)
        monkeypatch.setattr(transfer, "BACKOFF", 0.0)
        yield server
        server.shutdown()
        thread.join()
