"""The command `fgfast` as a person runs it, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def fgfast(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fgfast", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "FGFAST_DATA": "", **environment},
        timeout=120,
        check=False,
    )
