"""Structured values in the cells of a table, as JSON writes them or as Python and NumPy print them."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable
from typing import Any, Literal

Notation = Literal["plain", "json", "python"]

# What a structured value may begin with; any other text is just text.
_STARTS = ("[", "{", "(", "array(", "tensor(", "np.", "numpy.", "torch.", "list(", "tuple(", "dict(")
# Where white space separates two items of a printed array, which has no commas.
_BETWEEN_ITEMS = re.compile(r"(?<=[\d.\]nf])\s+(?=[\d.\[+\-ni])")
_NAMES = {
    "nan": math.nan,
    "NaN": math.nan,
    "inf": math.inf,
    "Infinity": math.inf,
    "null": None,
    "true": True,
    "false": False,
}
# Calls in printed values whose first argument is the value; the others are types, shapes and devices.
_CALLS = re.compile(r"array|asarray|tensor|list|tuple|bool_?|str_|u?int\d*|float\d*")
# Lists and dicts in a JSON text: an empty one of 3 bytes takes 70 bytes. LVIS, the largest with masks, has 6 million.
_MOST_LISTS = 20_000_000
# Values in a JSON text: a number of 2 bytes takes 32. LVIS's 1.1 GB have room for 150 million.
_MOST_VALUES = 250_000_000
# Letters of a value as Python prints it, whose syntax tree takes 100 bytes a letter.
_LONGEST_PRINTED = 1 << 20
# Texts that stand for a value that is not there, in lower case; pandas' read_csv, na_values.
_MISSING = frozenset(("", "nan", "none", "null", "na", "n/a", "<na>", "#n/a", "-nan"))


class TooDeepError(ValueError):
    """A text is nested too deeply, or holds too many lists and dicts, to be read."""


def from_json(text: str | bytes) -> Any:
    """Return the value of a JSON text, in whose place anything may be.

    Raises:
        TooDeepError: it is nested too deeply, or holds too many lists and dicts.
        ValueError: it is not JSON.
    """
    opening, comma = ((b"[", b"{"), b",") if isinstance(text, bytes) else (("[", "{"), ",")
    if sum(map(text.count, opening)) > _MOST_LISTS:  # type: ignore[arg-type]
        raise TooDeepError(f"it holds more than {_MOST_LISTS:,} lists and dicts")
    if text.count(comma) > _MOST_VALUES:  # type: ignore[arg-type]
        raise TooDeepError(f"it holds more than {_MOST_VALUES:,} values")
    try:
        return json.loads(text)
    except RecursionError:
        raise TooDeepError("it is nested too deeply") from None
    except MemoryError:
        raise TooDeepError("it needs more memory than there is") from None


def missing(value: object) -> bool:
    """Whether a cell is empty: None, not a number, blank, or one of pandas' words for that."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and value.strip().lower() in _MISSING)


def decode(text: str) -> tuple[Any, Notation]:
    """Return the value that a text holds, and its notation; text that is not structured is returned as it is.

    Raises:
        ValueError: the text begins like a structured value, but cannot be read as one.
    """
    body = text.strip()
    if not body.startswith(_STARTS):
        return text, "plain"
    try:
        return from_json(body), "json"
    except TooDeepError:
        raise
    except ValueError:
        pass
    if len(body) > _LONGEST_PRINTED:
        raise ValueError(f"it is no JSON, and longer than {_LONGEST_PRINTED:,} letters")
    if all(map(numeric, re.sub(r"[\[\]]", " ", body).split())):
        body = _BETWEEN_ITEMS.sub(", ", body)
    try:
        return _value(ast.parse(body, mode="eval").body), "python"
    except (SyntaxError, RecursionError, MemoryError):
        raise ValueError("it is neither JSON nor a Python value") from None


def encode(value: Any, notation: Notation) -> str:
    """Return a value as text; arrays that Python printed become lists."""
    return repr(value) if notation == "python" else json_text(value)


def through(value: Any, change: Callable[[Any], Any]) -> Any:
    """Change a value, or the value that a text holds; return it in the same notation, unchanged text as it was.

    Raises:
        ValueError: the text cannot be read, or `change` raises it.
    """
    if not isinstance(value, str):
        return change(value)
    decoded, notation = decode(value)
    new = change(decoded)
    return new if notation == "plain" else value if new == decoded else encode(new, notation)


def is_number(value: object) -> bool:
    """Whether a value is a finite number, not a truth value."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and value.bit_length() < 64


def numeric(value: object) -> bool:
    """Whether a value is a number, or a text that holds one."""
    if not isinstance(value, str):
        return is_number(value)
    try:
        float(value)
    except ValueError:
        return False
    return True


def like(old: Any, value: float) -> Any:
    """Return a number, rounded to four digits, as the old value was: whole where it stays whole, text where it was."""
    if isinstance(old, str):
        whole = value == int(value) and not re.search(r"\D", old.strip())
        return str(int(value) if whole else round(value, 4))
    return int(value) if isinstance(old, int) and value == int(value) else round(value, 4)


def json_text(value: Any) -> str:
    """Return a value as JSON, with letters of other scripts as they are."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text) else json.dumps(value)


def _value(node: ast.expr) -> Any:
    """Return the value of a node; nothing is executed."""
    match node:
        case ast.Constant(value=value) if value is Ellipsis:
            raise ValueError("it was shortened with ... when it was printed")
        case ast.Constant(value=int(value)) if value.bit_length() > 64:
            raise ValueError("it holds a whole number of more than 64 bits")
        case ast.Constant(value=value) if not isinstance(value, (bytes, complex)):
            return value
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_value(item) for item in items]
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {str(_value(k)): _value(v) for k, v in zip(keys, values, strict=True) if k is not None}
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _number(operand)
        case ast.Name(id=name) if name in _NAMES:
            return _NAMES[name]
        case ast.Call(func=function, args=[first, *_]) if _CALLS.fullmatch(_name(function)):
            return _value(first)
        case ast.Call(func=function, args=[], keywords=keywords) if _name(function) == "dict":
            return {str(k.arg): _value(k.value) for k in keywords}
    raise ValueError(f"it holds {ast.unparse(node)[:40]!r}, which is not a value")


def _number(node: ast.expr) -> float:
    value = _value(node)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("it has a sign before something that is not a number")
    return value


def _name(function: ast.expr) -> str:
    """Return the last name of a function: array of np.array."""
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
