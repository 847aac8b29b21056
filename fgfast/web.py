"""The web as fgfast reads it: addresses of http and https alone, and never from https to http."""

from __future__ import annotations

import re
import urllib.request
from http.client import HTTPResponse
from typing import Any
from urllib.parse import urljoin

from fgfast.errors import DownloadError


def is_url(text: object) -> bool:
    """Whether a text is an address that `read_url` fetches."""
    return isinstance(text, str) and text.lower().startswith(("http://", "https://"))


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a server to other addresses of http and https, but never from https to http."""

    def http_error_302(self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any) -> Any:
        """Refuse what urllib would report as an error of HTTP, and try again."""
        _check_redirect(req, urljoin(req.full_url, headers.get("location") or headers.get("uri") or ""))
        return super().http_error_302(req, fp, code, msg, headers)

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Check the address as urllib will open it."""
        _check_redirect(req, newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _check_redirect(request: urllib.request.Request, to: str) -> None:
    if not is_url(to) or (request.type == "https" and not to.lower().startswith("https://")):
        raise DownloadError(
            f"{request.full_url} leads to {to}, which is not fetched: an address may lead to https, and http to http. "
            "Try again from another network, or set FGFAST_MIRROR to the address of a mirror's folder."
        )


def opener() -> urllib.request.OpenerDirector:
    """Return what opens addresses of http and https, and nothing else (urllib's own also knows file:, ftp:, data:)."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        _Redirects,
    ):
        opener.add_handler(handler())
    return opener


def length(response: HTTPResponse) -> int | None:
    """Return the length that the server promises; None where it promises none."""
    length = response.headers.get("Content-Length") or ""
    return int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None
