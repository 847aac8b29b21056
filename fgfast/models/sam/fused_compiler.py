"""The C compiler that Triton needs for the fused attention. Nothing here imports torch: `fgfast doctor` asks, too."""

from __future__ import annotations

import os
from contextlib import suppress

from fgfast import processes


def compiler() -> str:
    """Return the C compiler that Triton would take (triton/runtime/build.py); empty where there is none."""
    if named := os.environ.get("CC"):
        return named
    for program in ("gcc", "clang"):
        with suppress(FileNotFoundError):
            return processes.find(program)
    return ""
