"""What a person sees: every text that fgfast prints or logs on a terminal goes through here.

Names, headers and reasons come from anybody's files. A terminal obeys some characters (it clears, colours, overwrites,
reverses, writes the clipboard); they are shown as escapes instead. As a library, fgfast logs and raises raw texts.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from fgfast.errors import FgfastError

# C0 but tab and newline, DEL, C1; marks, embeddings, overrides and isolates of bidirectional text; the line and
# paragraph separators; halves of surrogate pairs, which stand for bytes of a name that are no text.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_INDENT = "  "
# Characters of an unexpected error's text.
_LONGEST = 500


def plain(text: str) -> str:
    """Return a text in which no character commands a terminal: \\x1b, \\u202e. Newlines and tabs remain."""
    return _CONTROL.sub(_escape, text)


def line(text: str) -> str:
    """Return a text as one line: like `plain`, with newlines as \\n. For texts that hold a name."""
    return plain(text).replace("\n", "\\n")


def message(text: str) -> str:
    """Return a message of one or more lines: like `plain`, with its further lines indented.

    A name may hold a newline, and after it what looks like a message of its own.
    """
    return plain(text).replace("\n", f"\n{_INDENT}")


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def say(text: str) -> None:
    """Print a text on standard output."""
    click.echo(_written(plain(text), sys.stdout))


def note(text: str) -> None:
    """Print a text on standard error."""
    click.echo(_written(plain(text), sys.stderr), err=True)


def say_json(text: str) -> None:
    """Print JSON, as `json.dumps` makes it, on standard output. It holds no control character but DEL, raw."""
    click.echo(text.replace("\x7f", "\\u007f"))


def say_path(path: Path) -> None:
    """Print a path on standard output: exactly for another program, escaped for a person."""
    if sys.stdout.isatty():
        say(line(str(path)))
    else:
        click.echo(os.fsencode(path))


def _written(text: str, stream: Any) -> str:
    """Return a text whose characters the stream can encode."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def report(error: Exception) -> int:
    """Print an error as a message, and log its traceback; return the exit code."""
    known = isinstance(error, (FgfastError, OSError))  # an OSError: a folder that may not be read, a disk that fails
    level = logging.DEBUG if known else logging.INFO
    logging.getLogger("fgfast").log(level, "where it happened", exc_info=error)
    note(message(f"error: {error if known else _unexpected(error)}"))
    return error.exit_code if isinstance(error, FgfastError) else 1


def _unexpected(error: Exception) -> str:
    """Describe an error that is none of fgfast's: a bug of it, or of a library."""
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    places = [(str(f.f_globals.get("__name__")), number) for f, number in traceback.walk_tb(error.__traceback__)]
    module, number = next((place for place in reversed(places) if place[0].startswith("fgfast.")), places[-1])
    text = f": {str(error)[:_LONGEST]}" if str(error) else ""
    return (
        f"internal error in {module}, line {number}: {type(error).__name__}{text}\n"
        "Please report it, with what the same command prints with -vv, and what fgfast doctor prints."
    )


class Formatter(logging.Formatter):
    """Formats log records, and the tracebacks in them, for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return _written(message(super().format(record)), sys.stderr)


@contextmanager
def _escaped() -> Iterator[None]:
    """Escape the messages of click's own errors, which quote what the command line holds: names that a shell found."""
    try:
        yield
    except click.ClickException as error:
        if "format_message" not in vars(error):  # of an outer command, too
            text = _written(message(error.format_message()), sys.stderr)
            error.format_message = lambda: text  # type: ignore[method-assign]
        raise


class Command(click.Command):
    """A command whose usage errors are fit for a terminal."""

    def make_context(self, *args: Any, **more: Any) -> click.Context:
        with _escaped():
            return super().make_context(*args, **more)

    def invoke(self, ctx: click.Context) -> Any:
        with _escaped():
            return super().invoke(ctx)


class Group(Command, click.Group):
    """A group of commands, which covers the errors of all of them."""
