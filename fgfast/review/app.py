"""The requests of the page, and their answers. docs/review.md has the table of them.

Each answer is made in a thread, so that the loop that speaks with the browser never waits.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor
from importlib.resources import files
from typing import Any

import numpy as np

from fgfast import __version__
from fgfast.errors import (
    FgfastError,
    ImageRefusedError,
    MissingExtraError,
    OutputFailedError,
    OutputLockedError,
    SampleError,
    SupersededError,
    UsageError,
)
from fgfast.io.decisions import CAUSES
from fgfast.io.report import visible
from fgfast.records import Size
from fgfast.review import requests
from fgfast.review.clicks import propose
from fgfast.review.deciding import decide, undo, writer_of
from fgfast.review.entry_images import mask_of
from fgfast.review.items import about, stamp
from fgfast.review.mask_runs import decode_runs, encode_runs
from fgfast.review.preparing import prepare
from fgfast.review.reading import Reading
from fgfast.review.refining import refine
from fgfast.review.session import Review

log = logging.getLogger("fgfast")

_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
}
_FOREVER = "private, max-age=31536000, immutable"


def application(review: Review) -> Any:
    """Return the ASGI application of a review, without its door (fgfast.review.security).

    Raises:
        MissingExtraError: starlette is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.routing import Route
    except ImportError as error:
        raise MissingExtraError("starlette", "review", "fgfast review") from error
    answers = _Answers(review)
    page = _page()
    routes = [
        Route("/", _static(page, "index.html")),
        Route("/static/{name:path}", _static(page)),
        *(
            Route(f"/api{path}", _answered(getattr(answers, name), review), methods=[method])
            for method, path, name in (
                ("GET", "/state", "state"),
                ("GET", "/queue", "queue"),
                ("GET", "/items", "items"),
                ("GET", "/items/{id}/image", "image"),
                ("GET", "/items/{id}/mask", "mask"),
                ("GET", "/items/{id}/history", "history"),
                ("GET", "/changes", "changes"),
                ("POST", "/items/{id}/propose", "propose"),
                ("POST", "/items/{id}/refine", "refine"),
                ("POST", "/decide", "decide"),
                ("POST", "/undo", "undo"),
                ("POST", "/later", "later"),
                ("POST", "/finish", "finish"),
                ("POST", "/prepare", "prepare"),
            )
        ),
    ]
    handlers = {404: _no_such, 405: _no_such, Exception: _broken}
    return Starlette(routes=routes, exception_handlers=handlers)


class _Asked:
    """A request: the number in its path, what its address asks for, and its content."""

    def __init__(self, request: Any) -> None:
        self.number = requests.number(request.path_params["id"], "id") if "id" in request.path_params else 0
        self.query: dict[str, str] = dict(request.query_params)
        self._body: bytes = request.scope.get("state", {}).get("body", b"")

    @property
    def content(self) -> dict[str, Any]:
        return requests.content(self._body)


class _Answers:
    """A method per request; each returns what becomes JSON, or (bytes, media type, whether it may be kept)."""

    def __init__(self, review: Review) -> None:
        self.review = review

    def state(self, asked: _Asked) -> Any:
        review, entries = self.review, self.review.entries
        counts, writer = entries.flag_counts(), review.writer
        model = review.segmenting
        return {
            "title": review.title,
            "version": __version__,
            "who": review.who,
            "total": len(entries),
            "decided": len(entries.causes),
            "later": len(entries.later),
            "left": entries.left(),
            "minutes": round(review.minutes(), 1),
            "readonly": writer is None,
            "stale": writer is not None and writer.stale,
            "finishing": writer is not None and writer.finishing,
            "opening": writer is not None and not writer.opened.done(),
            "last": review.refresh()[0],
            "model": {
                "name": model.name if model else "",
                "can": sorted(model.can) if model else [],
                "ready": model is not None,
                "reason": model.reason if model else "",
            },
            "classes": entries.columns.classes,
            "splits": entries.columns.splits,
            "statuses": entries.counts(),
            "flags": [{"name": n, "sentence": entries.sentences[n], "count": count} for n, count in counts.items()],
            "flags_known": entries.known,
            "causes": list(CAUSES),
            "histogram": entries.histogram(),
        }

    def queue(self, asked: _Asked) -> Any:
        entries = self.review.entries
        found = entries.query(requests.query(asked.query))
        ids = np.asarray(entries.columns.ids[found], "<u4").tobytes()
        doubts = entries.doubt_bytes(found).tobytes()
        return {"count": len(found), "ids": _base64(ids), "doubts": _base64(doubts)}

    def items(self, asked: _Asked) -> Any:
        return self.review.items(requests.item_numbers(asked.query.get("ids", "")))

    def image(self, asked: _Asked) -> Any:
        kind, side = requests.image(asked.query)
        encoded, mark = self.review.images.image(asked.number, kind, side)
        return encoded.data, encoded.kind, asked.query.get("v") == mark

    def mask(self, asked: _Asked) -> Any:
        record = self.review.read(Reading.record, asked.number).result()
        bits = mask_of(record.outcome)
        if bits is None:
            raise SampleError("no mask", f"{record.outcome.key} has no mask")
        answer = {"size": list(bits.shape), "runs": encode_runs(bits)}
        fresh = asked.query.get("v") == stamp(record.outcome, record.revision)
        return json.dumps(answer).encode(), "application/json", fresh

    def history(self, asked: _Asked) -> Any:
        return [about(decision) for decision in self.review.read(Reading.history, asked.number).result()]

    def changes(self, asked: _Asked) -> Any:
        last, ids = self.review.changes(requests.number(asked.query.get("since", "0"), "since"))
        return {"last": last, "ids": ids}

    def propose(self, asked: _Asked) -> Any:
        return propose(self.review, asked.number, asked.content)

    def refine(self, asked: _Asked) -> Any:
        content = asked.content
        size = self._size(asked.number)
        by = requests.number(content.get("by", 1), "by")
        bits = refine(decode_runs(content.get("runs"), size), str(content.get("op")), by)
        return {"size": list(size), "runs": encode_runs(bits)}

    def _size(self, number: int) -> Size:
        o = self.review.read(Reading.outcome, number).result()
        if o.size is None:
            raise UsageError(f"{o.key} was never decoded, so it can have no mask")
        return o.size

    def decide(self, asked: _Asked) -> Any:
        return {"results": decide(self.review, requests.wishes(asked.content))}

    def undo(self, asked: _Asked) -> Any:
        wanted = requests.numbers(asked.content.get("numbers"), "numbers", requests.MOST_AT_ONCE)
        return {"results": undo(self.review, wanted)}

    def later(self, asked: _Asked) -> Any:
        content, entries = asked.content, self.review.entries
        for number in requests.numbers(content.get("ids"), "ids", requests.MOST_AT_ONCE):
            if (index := entries.index(number)) is None:
                raise UsageError(f"there is no entry {number}")
            if content.get("later") is True:
                entries.later.add(index)
            else:
                entries.later.discard(index)
        return {}

    def finish(self, asked: _Asked) -> Any:
        writer_of(self.review).finish().result()
        return {"counts": self.review.entries.counts()}

    def prepare(self, asked: _Asked) -> Any:
        wanted = requests.numbers(asked.content.get("ids"), "ids", requests.MOST_ITEMS)
        prepare(self.review, wanted)
        return {}


def _answered(make: Callable[[_Asked], Any], review: Review) -> Callable[[Any], Awaitable[Any]]:
    """Return the endpoint that answers with what a function returns, or with its error in a sentence."""
    from starlette.responses import Response

    async def endpoint(request: Any) -> Any:
        review.asked()
        try:
            waits = request.method == "POST"
            made = await _in_thread(review.waiting if waits else review.answering, lambda: make(_Asked(request)))
        except (Exception, asyncio.CancelledError) as error:
            status, sentence = _problem(error)
            return Response(_json({"error": sentence}), status, media_type="application/json")
        if not isinstance(made, tuple):
            return Response(_json(made), media_type="application/json")
        data, kind, keep = made
        return Response(data, media_type=kind, headers={"cache-control": _FOREVER if keep else "no-store"})

    return endpoint


async def _in_thread(executor: Executor, make: Callable[[], Any]) -> Any:
    return await asyncio.get_running_loop().run_in_executor(executor, make)


def _json(content: Any) -> bytes:
    # Half characters in names become words, and numbers that are none text: neither is JSON.
    return json.dumps(visible(content), allow_nan=False).encode()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _problem(error: BaseException) -> tuple[int, str]:
    """Return the status of an error, and its sentence."""
    if isinstance(error, asyncio.CancelledError):
        return 503, "the server is ending; what was sent is carried out first: start fgfast review again, and look"
    from fgfast.review.clicks import SegmenterUnavailableError

    kinds: tuple[tuple[type[Exception], int], ...] = (
        (OutputLockedError, 423),
        (SegmenterUnavailableError, 503),
        (SupersededError, 409),
        (OutputFailedError, 507),
        (ImageRefusedError, 413),
        (SampleError, 404),
        (UsageError, 400),
        (FgfastError, 500),
    )
    for kind, status in kinds:
        if isinstance(error, kind):
            return status, str(error)
    log.error("a request failed", exc_info=error)
    return 500, f"an internal error ({type(error).__name__}); the terminal of fgfast review shows it. Please report it"


async def _no_such(request: Any, error: Any) -> Any:
    from starlette.responses import JSONResponse

    return JSONResponse({"error": "there is nothing at this address"}, 404)


async def _broken(request: Any, error: Exception) -> Any:
    from starlette.responses import JSONResponse

    status, sentence = _problem(error)
    return JSONResponse({"error": sentence}, status)


def _page() -> dict[str, tuple[bytes, str]]:
    """Return the page's files: name -> content, media type. Nothing else is served, whatever an address says."""
    return dict(_below(files("fgfast.review").joinpath("page"), ""))


def _below(folder: Any, start: str) -> Iterator[tuple[str, tuple[bytes, str]]]:
    for entry in folder.iterdir() if folder.is_dir() else ():
        suffix = "." + entry.name.rpartition(".")[2]
        if entry.is_dir():
            yield from _below(entry, f"{start}{entry.name}/")
        elif suffix in _KINDS:
            yield start + entry.name, (entry.read_bytes(), _KINDS[suffix])


def _static(page: dict[str, tuple[bytes, str]], only: str = "") -> Callable[[Any], Awaitable[Any]]:
    from starlette.responses import Response

    async def endpoint(request: Any) -> Any:
        found = page.get(only or request.path_params["name"])
        if found is None:
            return await _no_such(request, None)
        return Response(found[0], media_type=found[1], headers={"cache-control": "no-cache"})

    return endpoint
