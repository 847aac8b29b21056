"""A stub of a server with OpenAI's chat format, on this machine: it counts what it is asked, and answers as told."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Reply(NamedTuple):
    status: int
    body: bytes
    headers: dict[str, str] = {}  # noqa: RUF012  # never changed


def said(text: Any, **choice: Any) -> Reply:
    """A chat completion with this text."""
    message = {"role": "assistant", "content": text, **choice.pop("message", {})}
    choices = [{"index": 0, "finish_reason": "stop", "message": message, **choice}]
    found = {"id": "1", "object": "chat.completion", "created": 1, "model": "stub", "choices": choices}
    return Reply(200, json.dumps({**found, "usage": {"prompt_tokens": 7, "completion_tokens": 3}}).encode())


def failed(status: int, **headers: str) -> Reply:
    """An error; the client waits for a hundredth of a second and tries again, where it does."""
    return Reply(
        status, json.dumps({"error": {"message": f"stub says {status}"}}).encode(), {"retry-after-ms": "10", **headers}
    )


@dataclass
class Asked:
    """What a stub was asked.

    Attributes:
        images: SHA-256 of the JPEG -> how often it was answered.
        texts: the questions.
        requests: the bodies, in order.
        keys: the headers Authorization.
        times: when each request came, in seconds.
    """

    images: Counter[str] = field(default_factory=Counter)
    texts: set[str] = field(default_factory=set)
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    times: list[float] = field(default_factory=list)
    address: str = ""


@contextmanager
def stub(reply: Callable[[int], Reply], seconds: float = 0.0) -> Iterator[Asked]:
    """Serve; `reply` gets the number of the request, from 0. Each takes some seconds."""
    asked, lock = Asked(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                number = len(asked.requests)
                asked.requests.append(request)
                asked.times.append(time.monotonic())
                asked.keys.add(self.headers["authorization"])
            answer = reply(number)
            (content,) = [message["content"] for message in request["messages"]]
            image = next(part["image_url"]["url"] for part in content if part["type"] == "image_url")
            assert image.startswith("data:image/jpeg;base64,")
            jpeg = base64.b64decode(image.partition(",")[2])
            time.sleep(seconds)
            with lock:
                asked.texts |= {part["text"] for part in content if part["type"] == "text"}
                if answer.status == 200:
                    asked.images[hashlib.sha256(jpeg).hexdigest()] += 1
            try:
                self.send_response(answer.status)
                headers = {
                    "content-type": "application/json",
                    "content-length": str(len(answer.body)),
                    **answer.headers,
                }
                for name, value in headers.items():
                    if value:
                        self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)
            except OSError:
                pass  # who asked is gone, as in a test that kills

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    asked.address = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
