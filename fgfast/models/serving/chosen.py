"""What models chose in this process after a look at the machine, in sentences for the reasons of a run."""

from __future__ import annotations

# In the order of the choices. A dict, because a sentence is said once.
_SENTENCES: dict[str, None] = {}


def say(sentence: str) -> None:
    """Add a sentence, without the full stop."""
    _SENTENCES[sentence] = None


def sentences() -> list[str]:
    """Return what was said so far."""
    return list(_SENTENCES)
