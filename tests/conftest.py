"""Settings of the test suite."""

from __future__ import annotations

import os
import tempfile

from hypothesis import settings

# With pytest-xdist each process has one core; libraries that read this later would use all of them in every process.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Not the key of the one who runs the tests: it would be made, and it would be used.
_STATE = tempfile.TemporaryDirectory(prefix="fgfast-state-")
os.environ["XDG_STATE_HOME"] = _STATE.name

# Deadlines fail on busy machines, not on slow code; the gate runs the same examples each time.
settings.register_profile("fgfast", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("fgfast")
