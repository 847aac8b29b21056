"""Settings of the test suite."""

from __future__ import annotations

import os

from hypothesis import settings

# With pytest-xdist each process has one core; libraries that read this later would use all of them in every process.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Deadlines fail on busy machines, not on slow code; the gate runs the same examples each time.
settings.register_profile("fgfast", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("fgfast")
