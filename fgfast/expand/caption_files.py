"""The files about all captions: lines for OpenAI and for Hugging Face, all captions, and a page to read them on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from html import escape
from itertools import groupby
from operator import itemgetter
from typing import IO, Any

from fgfast.expand.caption_server import messages, url_of
from fgfast.expand.kind import Ending
from fgfast.files import read_regular
from fgfast.writing import Target, replacing

TABLE = "captions"
COLUMNS: Mapping[str, str] = {
    "view": "string",
    "question": "string",
    "caption": "string",
    "model": "string",
    "end": "string",
    "cut": "bool",
    "question_tokens": "int32",
    "caption_tokens": "int32",
}
# OpenAI's batch files hold at most 50,000 requests and 200 MB (its guide to the Batch API); a tenth is left free.
_BATCH_REQUESTS, _BATCH_BYTES = 50_000, 180_000_000
# Images on the page: enough to judge, few enough for any browser.
_ON_PAGE = 200
# Bytes of an image that was written; 8192 x 8192 px of noise have less.
_MOST_IMAGE = 1 << 28

_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

_HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src 'self' file:; style-src 'unsafe-inline'\
; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>Captions</title>
<style>body{font:16px/1.4 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem}
h2{font-size:1rem;border-top:1px solid #bbb;padding-top:1rem;overflow-wrap:anywhere}
.views{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0;flex:1 1 16rem;max-width:24rem}
img{max-width:100%;max-height:20rem;border:1px solid #bbb}figcaption{overflow-wrap:anywhere}
figcaption{max-height:20rem;overflow:auto}small{color:#555}</style></head><body><h1>Captions</h1>
"""


def finish(ending: Ending, embed: bool, more: Mapping[str, Any]) -> list[str]:
    """Write the files about all captions.

    captions.jsonl has a line per question: key, label, split, image, and the columns of the table. huggingface.jsonl
    has the same as chats of transformers and TRL, with the answer where there is one. openai.jsonl has requests of
    OpenAI's Batch API, whose images are paths, or data: URLs with `embed`; these are in as many files as the API's
    limits demand.

    Args:
        ending: the end of the expansion.
        embed: whether images are put into the requests.
        more: what each request has besides its messages: the model's name, the most tokens of an answer.

    Returns:
        The paths of the files.
    """
    with contextlib.ExitStack() as files:
        whole = files.enter_context(replacing(ending.target("captions.jsonl")))
        chats = files.enter_context(replacing(ending.target("huggingface.jsonl")))
        page = files.enter_context(replacing(ending.target("captions.html")))
        batches = files.enter_context(Batches(ending, embed))
        page.write(_HEAD.encode())
        count = 0
        for count, (key, rows) in enumerate(groupby(_rows(ending), itemgetter("key")), 1):
            found = list(rows)
            if count <= _ON_PAGE:
                page.write(_figures(key, found).encode())
            for row in found:
                _line(whole, row)
                _line(chats, _chat(row))
                batches.add(row, more)
        page.write(f"<p>{min(count, _ON_PAGE):,} of {count:,} images.</p></body></html>\n".encode())
    return ["captions.jsonl", "huggingface.jsonl", "captions.html", *batches.paths]


def _rows(ending: Ending) -> Iterator[dict[str, Any]]:
    """Yield the rows of the table with the path of the image, relative to the output."""
    below = {outcome.key: outcome.twin for outcome in ending.outcomes}
    for row in ending.rows(TABLE):
        about = {name: row[name] for name in ("key", "label", "split")}
        yield {**about, "image": f"{row['view']}/{below[row['key']]}", **row}


def _line(file: IO[bytes], value: Mapping[str, Any]) -> None:
    # A name may hold bytes that are no text.
    file.write(_json(value).encode("utf-8", "backslashreplace") + b"\n")


def _chat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as a chat of transformers, with the image by its path, and a column of images as TRL has it."""
    parts = [{"type": "image", "path": row["image"]}, {"type": "text", "text": row["question"]}]
    turns: list[dict[str, Any]] = [{"role": "user", "content": parts}]
    if row["caption"]:
        turns.append({"role": "assistant", "content": [{"type": "text", "text": row["caption"]}]})
    return {"id": _id(row), "images": [row["image"]], "messages": turns}


def _id(row: Mapping[str, Any]) -> str:
    return f"{row['key']}#{row['view']}"


class Batches(contextlib.AbstractContextManager["Batches"]):
    """The files of requests for OpenAI's Batch API; a new one begins where the API's limits demand it.

    Attributes:
        paths: of the files, relative to the output.
    """

    def __init__(self, ending: Ending, embed: bool) -> None:
        """Write below the output of an expansion; see `finish`."""
        self._ending, self._embed = ending, embed
        self._files = contextlib.ExitStack()
        self._file: IO[bytes] | None = None
        self._lines = self._bytes = 0
        self.paths: list[str] = []

    def add(self, row: Mapping[str, Any], more: Mapping[str, Any]) -> None:
        """Add the request of a row."""
        url = self._url(row["image"])
        request = {
            "custom_id": _id(row),
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {**more, "messages": messages(row["question"], url)},
        }
        line = _json(request).encode("utf-8", "backslashreplace") + b"\n"
        full = self._lines >= _BATCH_REQUESTS or self._bytes + len(line) > _BATCH_BYTES
        if self._file is None or (self._embed and full):
            self._begin()
        assert self._file is not None
        self._file.write(line)
        self._lines, self._bytes = self._lines + 1, self._bytes + len(line)

    def _url(self, image: str) -> str:
        if not self._embed:
            return image
        return url_of(read_regular(self._ending.target(image).path, _MOST_IMAGE))

    def _begin(self) -> None:
        self._files.close()
        self._lines = self._bytes = 0
        self.paths.append(f"openai-{len(self.paths) + 1:05d}.jsonl" if self._embed else "openai.jsonl")
        target: Target = self._ending.target(self.paths[-1])
        self._file = self._files.enter_context(replacing(target))

    def __exit__(self, *exc: Any) -> None:
        # After an error the last file is not finished, and gone.
        self._files.__exit__(*exc)


def _figures(key: str, rows: list[dict[str, Any]]) -> str:
    """Return the images of a sample with what was said about each, as HTML; whatever a model said is text."""
    figures = []
    for row in rows:
        said = row["question"] if row["caption"] is None else row["caption"] or "(no caption)"
        figures.append(
            f'<figure><img loading="lazy" alt="" src="{escape(_path(row["image"]))}">'
            f"<figcaption><small>{escape(row['view'])}</small><br>{escape(said)}</figcaption></figure>"
        )
    return f'<h2>{escape(key)}</h2><div class="views">{"".join(figures)}</div>\n'


def _path(image: str) -> str:
    """Return a path as a relative address."""
    from urllib.parse import quote

    return quote(image.encode("utf-8", "surrogateescape"))
