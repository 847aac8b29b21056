"""Recipes: how a classifier is trained, as frozen data with its source.

What a source does not say is ours, and `Recipe.source` says which part that is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from fgfast.errors import UnknownNameError, UsageError


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a classifier is trained.

    Attributes:
        name: of the recipe.
        source: where it comes from, and which part of it is ours.
        epochs: passes over the training set.
        batch: samples per step of the optimiser.
        optimizer: "adamw" or "sgd" (with momentum 0.9).
        lr: peak learning rate.
        weight_decay: of weights; biases, norms and position embeddings have none.
        schedule: "cosine": linear warm-up, then down to 0; "one-cycle": cosine up to the peak, then down to 0.
        warmup: epochs until the peak; may be a fraction.
        layer_decay: factor of the learning rate from one layer, or stage, to the one before it; 1 for none.
        head_lr: factor of the classifier's learning rate.
        label_smoothing: share of the target that is spread over all classes.
        drop_path: rate of stochastic depth.
        mixup, cutmix: parameters of their Beta distributions; 0 for without. With both, each batch draws one.
        frozen: whether only the classifier is trained.
        clip: largest norm of the gradient; 0 for no limit.
        bf16: whether a GPU computes in bfloat16 where that is exact enough (autocast); a CPU never does.
        image_size: side of the model's input in pixels; 0 for the model's own.
        crop: what augmentation crops: "scale": a part of at least `least` of the area, resized; "window": a window of
            the input's size from the image resized to `resize`; "shift": a window shifted by at most `shift` pixels.
        least: see `crop`.
        resize: side of the resized image, in multiples of the input's side; of the test as well. 0 for the model's own.
        shift: pixels of the model's input.
        flip: whether half of the images are mirrored.
    """

    name: str
    source: str
    epochs: int
    batch: int
    optimizer: Literal["adamw", "sgd"]
    lr: float
    weight_decay: float = 0.05
    schedule: Literal["cosine", "one-cycle"] = "cosine"
    warmup: float = 0.0
    layer_decay: float = 1.0
    head_lr: float = 1.0
    label_smoothing: float = 0.0
    drop_path: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    frozen: bool = False
    clip: float = 0.0
    bf16: bool = True
    image_size: int = 0
    crop: Literal["scale", "window", "shift"] = "scale"
    least: float = 0.5
    resize: float = 0.0
    shift: int = 0
    flip: bool = True

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 2:
            raise UsageError(f"a training needs an epoch and a batch of two at least, not {self.epochs}, {self.batch}")

    def describe(self) -> Mapping[str, Any]:
        """Return all of it but the source, as plain values: two recipes are the same if these are."""
        return {name: value for name, value in asdict(self).items() if name != "source"}


_MASKING = (
    "Masking Strategies (arXiv 2308.12127), README of its code: 518 px, {}; ours are batch, weight decay, crop, the "
    "parameters of mixup and cutmix"
)
RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "quick",
        "ours: a fine-tuning of 20 epochs that most backbones bear; 2408.01998 does not publish its own",
        epochs=20,
        batch=64,
        optimizer="adamw",
        lr=1e-4,
        warmup=2,
        layer_decay=0.75,
        head_lr=10,
        label_smoothing=0.1,
        drop_path=0.1,
        clip=1.0,
    ),
    Recipe(
        "masking-2308-frozen",
        _MASKING.format("AdamW 1e-3, 90 epochs, backbone frozen"),
        epochs=90,
        batch=128,
        optimizer="adamw",
        lr=1e-3,
        frozen=True,
        image_size=518,
    ),
    Recipe(
        "masking-2308",
        _MASKING.format("AdamW 4e-6, classifier x1000, 300 epochs, 20 of warm-up, drop path 0.1, mixup and cutmix"),
        epochs=300,
        batch=128,
        optimizer="adamw",
        lr=4e-6,
        warmup=20,
        head_lr=1000,
        drop_path=0.1,
        mixup=0.8,
        cutmix=1.0,
        image_size=518,
    ),
    Recipe(
        "transfg",
        "TransFG (arXiv 2103.07976): 600 -> 448 px, SGD 0.03, batch 16, 10,000 steps, 500 of warm-up. CUB's 5,994 "
        "training images give 375 steps an epoch: 27 epochs are 10,125 steps. Their loss of contrast is left out",
        epochs=27,
        batch=16,
        optimizer="sgd",
        lr=3e-2,
        weight_decay=0.0,
        warmup=1.3,
        label_smoothing=0.0,
        clip=1.0,
        image_size=448,
        crop="window",
        resize=600 / 448,
    ),
    Recipe(
        "drawn",
        "ours: for the drawn birds of bench/drawn_birds.py, 64 px, from random weights",
        epochs=8,
        batch=32,
        optimizer="adamw",
        lr=4e-3,
        schedule="one-cycle",
        warmup=1.6,
        label_smoothing=0.1,
        image_size=64,
        crop="shift",
        shift=6,
        resize=1.0,
    ),
)


def recipe(name: str, **changed: Any) -> Recipe:
    """Return a recipe; what is changed is in its name.

    Raises:
        UnknownNameError: there is none of this name.
    """
    for one in RECIPES:
        if one.name == name:
            changes = {key: value for key, value in changed.items() if value is not None}
            changes = {key: value for key, value in changes.items() if getattr(one, key) != value}
            said = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in sorted(changes.items()))
            return replace(one, name=f"{name}, {said}", **changes) if changes else one
    raise UnknownNameError("recipe", name, [one.name for one in RECIPES])
