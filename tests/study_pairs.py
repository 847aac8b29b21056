"""Small sets of drawn pairs for studies: no data set on disk, exact masks."""

from __future__ import annotations

import drawn_birds

from fgfast.studies.pairs import ArrayPairs


def birds(train: int = 32, test: int = 16, seed: int = 0, own: float = drawn_birds.OWN) -> ArrayPairs:
    """Drawn birds, as a data set of two splits."""
    first, second = drawn_birds.draw(train, 2 * seed, own), drawn_birds.draw(test, 2 * seed + 1, own)
    keys = [f"{split}/{n:04d}.png" for split, count in (("train", train), ("test", test)) for n in range(count)]
    return ArrayPairs.of(
        keys,
        drawn_birds.CLASSES,
        [*first.labels.tolist(), *second.labels.tolist()],
        ["train"] * train + ["test"] * test,
        [*first.images, *second.images],
        [*first.masks, *second.masks],
    )
