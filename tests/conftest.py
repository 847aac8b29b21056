"""Settings of the test suite."""

from __future__ import annotations

import os

from hypothesis import settings

# Deadlines fail on busy machines, not on slow code; the gate runs the same examples each time.
settings.register_profile("fgfast", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("fgfast")
