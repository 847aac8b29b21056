"""Must be loaded before torch is."""

from __future__ import annotations

import os

# On cores that others use too, OpenMP's busy waiting makes small operations take seconds; asleep they cost
# 15 % more.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
