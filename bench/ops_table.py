"""Prints the table of docs/performance.md from a result of `fgfast bench ops`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fgfast.bench.op_cases import NATIVE
from fgfast.bench.ops import FASTER
from fgfast.bench.result import Row, rows_of
from fgfast.bench.text import figure


def markdown(result: Mapping[str, Any]) -> str:
    """Write a result as a table of Markdown: a line per case, with milliseconds, and ratios to the native op."""
    groups: dict[str, dict[str, Row]] = {}
    for row in rows_of(result):
        groups.setdefault(row.group, {})[row.name] = row
    lines = ["| op | native, ms | others, ms |", "| --- | --- | --- |"]
    for group, own in groups.items():
        others = [
            f"{name} {figure(row.value)} ({figure(own[f'{FASTER} {name}'].value)} times)"
            for name, row in own.items()
            if f"{FASTER} {name}" in own
        ]
        if NATIVE in own:
            lines.append(f"| {group} | {figure(own[NATIVE].value)} | {', '.join(others)} |")
    return "\n".join(lines)


def main() -> None:
    """Read the command line and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path, help="The result that --json or --save wrote.")
    print(markdown(json.loads(parser.parse_args().file.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
