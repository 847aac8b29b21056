"""Results of checks, and facts that could not be gathered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check.

    Attributes:
        name: what was checked.
        state: "ok", "failed" or "skipped".
        detail: what was measured, or the reason for a failure or a skip.
        seconds: how long the check took.
    """

    name: str
    state: str
    detail: str
    seconds: float


class NotWorking(Exception):  # noqa: N818 - one_line prints it without its name
    """Something that is installed does not work; the message says how it fails and what to do."""


class Skipped(Exception):  # noqa: N818 - it is not an error
    """There is nothing to check; the message says why."""


def attempted(gather: Callable[[], Any]) -> Any:
    """Return what `gather` returns, or {"error": reason}: a broken package must not hide the other topics."""
    try:
        return gather()
    except Exception as error:
        return {"error": one_line(error)}


def one_line(error: BaseException) -> str:
    """The message of an exception on one line, after the exception's type unless the exception is fgfast's own."""
    text = " ".join(str(error).split())
    return text if text and type(error).__module__.startswith("fgfast") else f"{type(error).__name__}: {text}"
