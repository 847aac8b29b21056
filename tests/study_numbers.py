"""Random predictions in the form of a study: no model made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fgfast.studies.cell import Arm, Cell
from fgfast.studies.predictions import Predictions
from fgfast.studies.results import Study, Trained

NOTICE = "Random numbers, which no model predicted: this page shows the form of a study only."
SHARES: Mapping[tuple[str, Arm], Mapping[str, float]] = {
    ("resnet50", "x"): {"x": 0.8, "x_fg": 0.26, "mixed-same": 0.95, "mixed-rand": 0.32, "only-bg": 0.7},
    ("resnet50", "x_fg"): {"x": 0.37, "x_fg": 0.9, "mixed-same": 0.4, "mixed-rand": 0.38, "only-bg": 0.1},
    ("vit_base_patch16_224", "x"): {"x": 0.84, "x_fg": 0.53, "mixed-same": 0.9, "mixed-rand": 0.6, "only-bg": 0.5},
    ("vit_base_patch16_224", "x_fg"): {"x": 0.9, "x_fg": 0.99, "mixed-same": 0.9, "mixed-rand": 0.9, "only-bg": 0.1},
}
"""(backbone, trained on) -> test set -> share of the images that are right."""


def study(
    count: int = 200,
    seeds: Sequence[int] = (0, 1, 2),
    classes: Sequence[str] = tuple(f"bird {n}" for n in range(8)),
    key: str = "image {}",
    **more: object,
) -> Study:
    """Draw a study: images `key` with a number, of each class alike."""
    labels = np.arange(count) % len(classes)
    keys = [key.format(n) for n in range(count)]
    trained = []
    for place, ((backbone, train), shares) in enumerate(SHARES.items()):
        for seed in seeds:
            tests = {}
            for n, (arm, share) in enumerate(shares.items()):
                rng = np.random.default_rng((place, seed, n))
                wrong = rng.random(count) >= share
                predicted = np.where(wrong, (labels + 1) % len(classes), labels)
                tests[arm] = Predictions.of(keys, labels, predicted, rng.uniform(0.3, 1, count))
            trained.append(Trained(Cell("crossval", backbone, train, seed=seed), tests))
    return Study("crossval", "random numbers", tuple(classes), tuple(trained), notice=NOTICE, **more)  # type: ignore[arg-type]
