"""Who may speak with the server: checks before any request is handled, and the headers of every answer.

The server listens on this machine alone unless told otherwise, but every page in the person's browser can send requests
to it, and a name that a stranger owns can be made to point to it (DNS rebinding). So a request needs the right Host, no
foreign Origin, and a cookie that is given once in exchange for the token in the printed address.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import secrets
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from html import escape
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlencode

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_POLICY = "; ".join(
    (
        *("default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' blob:", "connect-src 'self'"),
        *("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"),
    )
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
_HEADERS_BYTES = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")

# 256 bits, which nobody guesses.
_TOKEN_BYTES = 32
LARGEST_BODY = 32 << 20
"""Most bytes of a request: the runs of six million edges in base64."""
LARGEST_PLAIN_BODY = 1 << 20
"""Most bytes of a request without masks: some 100,000 numbers of samples."""
_WITH_MASKS = ("/propose", "/refine", "/decide")


class Door:
    """The tokens that were printed, and the cookies that were given for them.

    Args:
        port: the server's; cookies do not tell ports apart, so the cookie's name does.
        host: the address that it listens on.
    """

    def __init__(self, host: str, port: int) -> None:
        self.cookie = f"fgfast_review_{port}"
        self._host = host.strip("[]").lower()
        self._names = {*_LOOPBACK_NAMES, self._host}
        if not is_loopback(host):
            self._names.add(socket.gethostname().lower())
        self._lock = Lock()
        self._tokens: set[bytes] = set()
        self._sessions: set[bytes] = set()

    def new_token(self) -> str:
        """Return a token that opens the door once."""
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        with self._lock:
            self._tokens.add(_digest(token))
        return token

    def exchange(self, token: str) -> str | None:
        """Return a session's secret for a token, which is no longer valid then; None for any other text."""
        with self._lock:
            if (found := _among(token, self._tokens)) is None:
                return None
            self._tokens.discard(found)
            session = secrets.token_urlsafe(_TOKEN_BYTES)
            self._sessions.add(_digest(session))
            return session

    def knows(self, session: str) -> bool:
        """Whether this is the secret of a session."""
        with self._lock:
            return _among(session, self._sessions) is not None

    def admits(self, host: str) -> bool:
        """Whether a Host header names this server. Any port is right: a tunnel (ssh -L) has one of its own.

        Where the server listens on other addresses than this machine's own, any address in numbers is right, too: a
        name is what DNS rebinding needs.
        """
        name = _name_of(host)
        return name is not None and (name in self._names or (not is_loopback(self._host) and _is_address(name)))


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _name_of(host: str) -> str | None:
    """Return the name in a Host header, without its port; None where it is malformed."""
    if host.startswith("["):
        name, bracket, port = host[1:].partition("]")
        port = port.removeprefix(":") if port.startswith(":") else port and "?"
        good = bool(bracket)
    else:
        name, _, port = host.partition(":")
        good = bool(name)
    return name.lower() if good and (not port or (port.isascii() and port.isdigit())) else None


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _among(secret: str, known: set[bytes]) -> bytes | None:
    """Return the digest of a secret if it is known; the time does not tell how much of it is right."""
    mine = _digest(secret)
    return next((one for one in known if hmac.compare_digest(one, mine)), None)


class Guard:
    """The application behind its door.

    Args:
        app: the application.
        door: what opens it.
        opened: called whenever a token was exchanged.
    """

    def __init__(self, app: App, door: Door, opened: Callable[[], None] = lambda: None) -> None:
        self._app, self._door, self._opened = app, door, opened

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        send = _with_headers(send)
        headers = _headers(scope)
        if problem := self._foreign(scope, headers):
            await _refuse(send, *problem)
        elif scope["path"] == "/" and scope["method"] == "GET" and b"token=" in scope["query_string"]:
            await self._exchange(scope, send)
        elif not self._door.knows(_cookie(headers.get("cookie", ""), self._door.cookie)):
            await (_refuse_page if scope["path"] == "/" else _refuse)(send, 401, _NO_SESSION)
        elif scope["method"] == "POST":
            await self._post(scope, headers, receive, send)
        elif scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
        else:
            await _refuse(send, 400, f"the method must be GET, HEAD or POST, not {scope['method'][:20]}")

    def _foreign(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Return why a request comes from elsewhere; None where it does not."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._door.admits(host):
            return 403, f"the Host header must name this server, not {host[:200]!r}; open the address that was printed"
        if origin is not None and origin.lower() != f"{scope.get('scheme', 'http')}://{host}".lower():
            return 403, f"the request comes from {origin[:200]!r}, another page; open the address that was printed"
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and scope["path"] != "/":
            return 403, "the request comes from another page; open the address that was printed"
        if scope["method"] == "POST" and origin is None:
            return 403, "a change needs an Origin header, which every browser sends"
        return None

    async def _exchange(self, scope: Scope, send: Send) -> None:
        """Give a cookie for the token in the address, and go to the address without it."""
        asked = parse_qs(scope["query_string"].decode("ascii", "replace"), keep_blank_values=True)
        session = self._door.exchange(asked.pop("token", [""])[0])
        if session is None:
            await _refuse_page(send, 401, _USED)
            return
        self._opened()
        rest = urlencode(asked, doseq=True)
        cookie = f"{self._door.cookie}={session}; Path=/; HttpOnly; SameSite=Strict"
        headers = [(b"location", b"/" + (f"?{rest}".encode() if rest else b"")), (b"set-cookie", cookie.encode())]
        await send({"type": "http.response.start", "status": 303, "headers": [*headers, (b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async def _post(self, scope: Scope, headers: dict[str, str], receive: Receive, send: Send) -> None:
        """Pass a request with content on when it is JSON, of a bounded length."""
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            await _refuse(send, 400, "a change must be JSON (Content-Type: application/json)")
            return
        most = LARGEST_BODY if scope["path"].endswith(_WITH_MASKS) else LARGEST_PLAIN_BODY
        length = headers.get("content-length", "0")
        too_long = f"a request may have at most {most:,} bytes; send fewer masks at once"
        if not (length.isascii() and length.isdigit() and len(length) < 20):
            await _refuse(send, 400, "the Content-Length is no number")
            return
        body, so_far, more = [], 0, int(length) <= most
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body.append(message.get("body", b""))
            so_far += len(body[-1])
            if so_far > most:
                break
            more = message.get("more_body", False)
        if int(length) > most or so_far > most:
            await _refuse(send, 413, too_long, (b"connection", b"close"))
            return
        scope["state"] = {**scope.get("state", {}), "body": b"".join(body)}
        await self._app(scope, receive, send)


_NO_SESSION = (
    "this browser is not known to the server, which may have been started again: open the address that fgfast review "
    "printed; Enter in its terminal prints a new one"
)
_USED = (
    "this address was used before, or is another server's, and each opens the page once: press Enter in the terminal "
    "of fgfast review for a new one, or start it again. In the browser that used it, the page is at the address "
    "without the token"
)


def _headers(scope: Scope) -> dict[str, str]:
    """Return the headers; of one that comes twice, both values, which are then neither."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found


def _cookie(header: str, name: str) -> str:
    """Return the value of a cookie; empty where it is absent."""
    for part in header.split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            return value
    return ""


def _with_headers(send: Send) -> Send:
    """Add the headers of safety to an answer."""

    async def wrapped(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            there = list(message.get("headers", ()))
            names = {name.lower() for name, _ in there}
            extra = _HEADERS_BYTES if b"cache-control" in names else [*_HEADERS_BYTES, (b"cache-control", b"no-store")]
            message = {**message, "headers": [*there, *extra]}
        await send(message)

    return wrapped


async def _refuse(send: Send, status: int, why: str, *more: tuple[bytes, bytes]) -> None:
    await _answer(send, status, b"application/json", json.dumps({"error": why}).encode(), *more)


async def _refuse_page(send: Send, status: int, why: str) -> None:
    """Refuse with a page for a person. Its link helps where the cookie was not sent because another page led here."""
    text = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>fgfast review</title>'
        f'<h1>fgfast review</h1><p>{escape(why[0].upper() + why[1:])}.</p><p><a href="/">Open the page</a></p></html>'
    )
    await _answer(send, status, b"text/html; charset=utf-8", text.encode())


async def _answer(send: Send, status: int, kind: bytes, body: bytes, *more: tuple[bytes, bytes]) -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
