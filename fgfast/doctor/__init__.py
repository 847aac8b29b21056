"""What this machine has, what fgfast makes of it, and whether it works: facts for a person and for a bug report.

    examine() gathers everything;  fgfast.doctor.text writes it down;  fgfast.doctor.checks tries it out

Nothing here raises: what is broken becomes a line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fgfast.doctor import advice, hardware, software, stores


def examine() -> dict[str, Any]:
    """Facts by topic, as plain values for JSON. A topic that cannot be found out holds {"error": why}."""
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


def attempted(gather: Callable[[], Any]) -> Any:
    """What `gather` returns, or {"error": why}: whatever a broken package raises, the other topics are still told."""
    try:
        return gather()
    except Exception as error:
        return {"error": one_line(error)}


def one_line(error: BaseException) -> str:
    """An exception as one line, with its kind where the message does not say what it is."""
    text = " ".join(str(error).split())
    return text if text and type(error).__module__.startswith("fgfast") else f"{type(error).__name__}: {text}"
