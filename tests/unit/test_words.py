"""The words of the field: terms that this project invented for itself must not come back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = {".py", ".pyi", ".md", ".cc", ".cu", ".h", ".toml", ".txt", ".cff", ".css", ".js", ".html", ".svg"}
FOLDERS = ("fgfast", "engine", "export", "bench", "docs", "tests", ".ci")

INSTEAD = {
    "seat": "worker spec",
    "chair": "worker handle",
    "crew": "workers",
    "hire": "start",
    "flight": "in-flight item",
    "touched": "in-flight table; changed",
    "buried": "exit status",
    "settle": "commit",
    "foresee": "preflight",
    "made_with": "fingerprint",
    "made up": "random (weights)",
    "picture": "image",
}
"""Invented term -> the field's."""

# Identifiers count: SeatTable and seat_table hold the word, too.
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_OLD = re.compile(
    r"\b(?:(?:seat|chair|crew|hire|settle|foresee|picture)(?:e?[sd]|n)?|hiring|settling"
    r"|(?<!\bin )flights?|touched|buried|made up)\b"
)


def old_words(text: str) -> list[str]:
    """The invented terms in a text, in lower case."""
    words = re.sub(r"[-_\s]+", " ", _CAMEL.sub(" ", text)).lower()
    return re.findall("made_with", text) + _OLD.findall(words)


def texts() -> list[Path]:
    """What people read: documents, help and code. Results and fixtures of data are not."""
    loose = [path for path in ROOT.iterdir() if (path.is_file() and path.suffix in TEXT) or path.name == "Makefile"]
    below = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in TEXT]
    data = (ROOT / "bench/results", ROOT / "tests/data")
    return [path for path in loose + below if not any(folder in path.parents for folder in data)]


@pytest.mark.parametrize(
    "text",
    [
        "a seat of its own",
        "SeatTable",
        "two Pictures",
        "hired",
        "the flight",
        "made_with=3",
        "made-up weights",
        "settled",
    ],
)
def test_a_word_of_our_own_is_found(text: str) -> None:
    assert old_words(text)


@pytest.mark.parametrize(
    "text", ["items in flight", "InFlightItem", "in_flight", "season", "is made with NumPy", "untouched"]
)
def test_plain_english_is_not(text: str) -> None:
    assert not old_words(text)


def test_no_text_uses_them() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{number}": words
        for path in texts()
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if (words := old_words(line))
    }
    assert len(texts()) > 200
    assert not found, f"these words are not the field's; say instead: {INSTEAD}"
