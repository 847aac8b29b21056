"""Facts for a person and for bug reports: what this machine has, what fgfast uses of it, and whether that works.

    examine() gathers everything;  fgfast.doctor.text formats it;  fgfast.doctor.checks runs it

examine() does not raise: a broken topic is reported as such.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fgfast.doctor import advice, hardware, software, stores
from fgfast.doctor.findings import attempted


def examine() -> dict[str, Any]:
    """Facts by topic, as plain values for JSON. A topic that cannot be determined holds {"error": reason}."""
    topics: dict[str, Callable[[], Any]] = {
        "environment": software.environment,  # first: importing OpenCV changes it
        "fgfast": software.fgfast,
        "machine": hardware.machine,
        "gpus": hardware.gpus,
        "packages": software.packages,
        "weights": stores.weights,
        "graphs": stores.graphs,
        "disk": stores.disk,
        "convert": advice.choices,
    }
    facts = {topic: attempted(gather) for topic, gather in topics.items()}
    facts["next"] = attempted(lambda: advice.steps(facts))
    return facts
