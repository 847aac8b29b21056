"""`fgfast study crossval`: trained on X, X_FG and mixed-rand, tested on all arms (Table 2 and Fig. 7 of 2408.01998).

X against X_FG alone mixes two things, a background that is missing and a black one that is unknown. The BG-gap of
ImageNet-9, mixed-same minus mixed-rand, has neither, and leads the page.
"""

from __future__ import annotations

from collections.abc import Sequence

from fgfast.studies.cell import Arm, Cell
from fgfast.studies.grid import EvaluationSet

BACKBONES = ("vit_base_patch16_224", "resnet50", "swinv2_base_window8_256", "convnext_base")
"""Of the paper. Its "DINOv2 ViT-B/16" does not exist: DINOv2 has patches of 14 pixels, vit_base_patch14_dinov2."""
TRAINED_ON: tuple[Arm, ...] = ("x", "x_fg", "mixed-rand")
TESTS = tuple(EvaluationSet(arm, arm) for arm in ("x", "x_fg", "mixed-same", "mixed-rand", "only-bg"))


def cells(
    backbones: Sequence[str], trained_on: Sequence[Arm], recipe: str, seeds: Sequence[int], pretrained: bool
) -> tuple[Cell, ...]:
    """Return the trainings, seed by seed, so that a study that is stopped early has whole tables."""
    return tuple(
        Cell("crossval", backbone, arm, recipe=recipe, seed=seed, pretrained=pretrained)
        for seed in seeds
        for backbone in backbones
        for arm in trained_on
    )
