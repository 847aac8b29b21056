"""The server: it listens, answers in threads of its own, and ends cleanly."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib
import logging
import socket
import threading
from collections.abc import Callable
from typing import Any

from fgfast.errors import MissingExtraError, UsageError
from fgfast.review.app import application
from fgfast.review.security import Door, Guard
from fgfast.review.session import Review

log = logging.getLogger("fgfast")

# Seconds that answers under way have when the server ends.
_LAST_ANSWERS = 5
# Connections that wait to be accepted; a browser opens six.
_BACKLOG = 64


def require_packages() -> None:
    """Check that a server can be started, before anything is opened for it.

    Raises:
        MissingExtraError: starlette or uvicorn are not installed.
    """
    for package in ("starlette", "uvicorn"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise MissingExtraError(package, "review", "fgfast review") from error


class Server(contextlib.AbstractContextManager["Server"]):
    """Serves a review until it is closed; a context manager.

    Args:
        review: the review.
        host: the address to listen on.
        port: the port; 0 for any that is free.
        opened: called whenever a browser exchanged a token for a cookie.

    Raises:
        MissingExtraError: starlette or uvicorn are not installed.
        UsageError: the address or the port cannot be used.
    """

    def __init__(self, review: Review, host: str, port: int, opened: Callable[[], None] = lambda: None) -> None:
        require_packages()
        import uvicorn

        self._socket = _listening(host, port)
        self.host, self.port = host, int(self._socket.getsockname()[1])
        self.door = Door(host, self.port)
        try:
            config = uvicorn.Config(
                Guard(application(review), self.door, opened),
                http="h11",
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,  # addresses hold tokens
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_LAST_ANSWERS,
            )
            self._server: Any = uvicorn.Server(config)
            self._thread = threading.Thread(target=self._serve, name="server", daemon=True)
            self._thread.start()
        except BaseException:
            self._socket.close()
            raise

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening, and let answers under way end."""
        self._server.should_exit = True
        self._thread.join(2 * _LAST_ANSWERS)
        self._socket.close()

    @property
    def running(self) -> bool:
        """Whether it still answers."""
        return self._thread.is_alive()

    def new_address(self) -> str:
        """Return an address that opens the page once."""
        name = "127.0.0.1" if self.host in ("0.0.0.0", "::", "") else self.host
        name = f"[{name}]" if ":" in name else name
        return f"http://{name}:{self.port}/?token={self.door.new_token()}"

    def _serve(self) -> None:
        # Signals are for the main thread: uvicorn leaves them alone in another one.
        try:
            asyncio.run(self._server.serve(sockets=[self._socket]))
        except Exception as error:  # a bug of ours or uvicorn's; the main thread ends the review cleanly
            log.error("the server stopped", exc_info=error)


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        UsageError: the address or the port cannot be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
            found.listen(_BACKLOG)
        except BaseException:
            found.close()
            raise
    except (OSError, OverflowError, UnicodeError) as error:
        advice = "choose another --port, or leave it out for any that is free"
        if getattr(error, "errno", None) not in (errno.EADDRINUSE, errno.EACCES):
            advice = "give an address of this machine to --host"
        raise UsageError(f"cannot listen on {host} port {port} ({error}): {advice}") from error
    return found
