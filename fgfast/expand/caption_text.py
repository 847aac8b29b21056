"""Texts of models, which may hold anything: made plain, bounded, and without secrets."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass
from typing import Any

from fgfast.errors import SampleError

MOST_CHARACTERS = 4000
"""Characters of a caption that are kept: some 1,000 tokens, more than a caption has."""
ENDS = ("stop", "length", "content_filter", "refusal")
"""Why a model stopped, as the chat format names it; every other reason is "other"."""
# Kept of what Unicode calls format characters: joiners, without which Persian, Indic scripts and emoji are misspelt.
_JOINERS = "\u200c\u200d"
# A secret shorter than this could be part of any word, and is none.
_SHORTEST_SECRET = 8


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said about one image.

    Attributes:
        text: plain text on one line; empty where it said nothing.
        end: why it stopped, of `ENDS`, or "other".
        cut: whether more was said than is kept.
        asked_tokens, said_tokens: as the model counts them; None where it does not.
    """

    text: str
    end: str
    cut: bool = False
    asked_tokens: int | None = None
    said_tokens: int | None = None

    @property
    def flags(self) -> tuple[str, ...]:
        """Reasons to doubt it."""
        found = ("caption cut",) if self.cut or self.end == "length" else ()
        return found if self.text else (*found, "no caption")


def plain(text: str, secret: str = "", most: int = MOST_CHARACTERS) -> tuple[str, bool]:
    """Return a text on one line without control characters, and whether it had to be cut.

    Control, format and unassigned characters, line ends and runs of spaces become one space: none can move a terminal's
    cursor or turn the direction of what follows.

    Args:
        text: any text.
        secret: what must not appear in it.
        most: characters that are kept.
    """
    if len(secret) >= _SHORTEST_SECRET:
        text = text.replace(secret, "***")
    # What is cut off need not be looked at; a space may stand for several characters.
    text, rest = text[: 4 * most], len(text) > 4 * most
    shown = "".join(c if c in _JOINERS or not unicodedata.category(c).startswith("C") else " " for c in text)
    line = " ".join(shown.split())
    return line[:most], rest or len(line) > most


def answer_in(body: bytes, secret: str = "") -> Answer:
    """Return the answer in the body of a chat completion, which a server may have filled with anything.

    Raises:
        SampleError: it is none; the message has no part of the body.
    """
    try:
        found = json.loads(body)
        choice = found["choices"][0]
        message = choice["message"]
        refused = message.get("refusal")
        text, end = _text(message.get("content")), choice.get("finish_reason")
        usage = found.get("usage")
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        raise SampleError("bad answer", "the server's answer is no chat completion, or is longer than 1 MiB") from None
    counts = usage if isinstance(usage, dict) else {}
    line, cut = plain(text, secret)
    end = "refusal" if refused and not line else end if end in ENDS else "other"
    return Answer(line, end, cut, _count(counts.get("prompt_tokens")), _count(counts.get("completion_tokens")))


def _text(content: Any) -> str:
    """Return the text of a message: a text, parts with texts, or nothing."""
    if isinstance(content, list):
        return " ".join(str(part["text"]) for part in content if part.get("type") == "text")
    if content is None or isinstance(content, str):
        return content or ""
    raise TypeError


def _count(value: Any) -> int | None:
    fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31
    return value if fits else None
