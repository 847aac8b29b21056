"""The description of one setting; the settings themselves are in fgfast.config."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fgfast.errors import UnknownNameError, UsageError

WHOLE = ("int", "int | None")  # annotations of settings that are whole numbers


@dataclass(frozen=True, slots=True)
class Setting:
    """The description of one setting, for its check, the command line and the docs.

    Attributes:
        help: a sentence that says what the setting does.
        choices: returns the allowed values, where they are names.
        least, most: bounds of a number.
        unset: the default in words, where it is None.
        result: whether results depend on it, so that a run is only resumed with the same value.
        aliases: other names of allowed values.
        idle: returns why a value has no effect beside the other settings, "" where it has one. It is only asked about
            a value that is not the default.
    """

    help: str
    choices: Callable[[], Sequence[str]] | None = None
    least: float | None = None
    most: float | None = None
    unset: str = ""
    result: bool = True
    aliases: Mapping[str, str] = field(default_factory=dict)
    idle: Callable[[Any], str] = lambda settings: ""

    def check(self, name: str, value: object, whole: bool) -> None:
        """Raise UsageError unless the value of the setting `name` is allowed; `whole` allows whole numbers only."""
        if self.choices is not None and value not in self.choices():
            raise UnknownNameError(name, str(value), self.choices())
        if self.least is None or value is None:
            return
        fits = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        most = math.inf if self.most is None else self.most
        if not fits or not self.least <= value <= most:  # type: ignore[operator]
            bounds = f"of at least {self.least:g}" if self.most is None else f"from {self.least:g} to {self.most:g}"
            raise UsageError(f"{name} must be a {'whole ' if whole else ''}number {bounds}, not {value!r}")
