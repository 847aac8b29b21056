"""Random numbers of a sample: drawn from seed, kind and key, never from order, worker or batch."""

from __future__ import annotations

import hashlib

import numpy as np


def number(seed: int, *names: str) -> int:
    """Return a whole number, 0 .. 2^128 - 1, that depends on the seed and the names alone (SHA-256)."""
    text = "\0".join((str(seed), *names))
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:16], "little")


def generator(seed: int, *names: str) -> np.random.Generator:
    """Return a generator that depends on the seed and the names alone, as in `generator(seed, kind, key)`."""
    return np.random.Generator(np.random.PCG64(number(seed, *names)))
