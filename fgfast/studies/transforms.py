"""From a stored image and its mask to a model's input: torchvision's v2 transforms move both alike.

Import this module only where a model is at hand: it imports torch and torchvision.
"""

from __future__ import annotations

import importlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fgfast import seeds
from fgfast.errors import UnknownNameError
from fgfast.studies import torchvision_shim
from fgfast.studies.pairs import Pair
from fgfast.studies.recipes import Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from fgfast.studies.models import Input

torchvision_shim.declare()
functional: Any = importlib.import_module("torchvision.transforms.v2.functional")
tv_tensors: Any = importlib.import_module("torchvision.tv_tensors")
InterpolationMode: Any = importlib.import_module("torchvision.transforms").InterpolationMode

# Width to height of a part that augmentation crops: at most this, at least its inverse, as timm has it.
_SHAPE = math.log(4 / 3)
_FILTERS = {"bicubic": InterpolationMode.BICUBIC, "bilinear": InterpolationMode.BILINEAR}


class Prepare:
    """Pair -> normalised image, (3, H, W) float32, and mask, (1, H, W) float32: the share of subject in each pixel.

    The mask is resized by the same averages as the image. As a `tv_tensors.Mask`, torchvision would take the nearest
    pixel of it, without half a pixel's offset: masks would lie up to a pixel beside their images.

    Args:
        cfg: what the model was trained to see: its size, filter, mean, std and crop.
        recipe: of the training; a test crops the centre.
        train: whether to augment.
    """

    def __init__(self, cfg: Input, recipe: Recipe, train: bool) -> None:
        if cfg.interpolation not in _FILTERS:
            raise UnknownNameError("filter of a model's resize", cfg.interpolation, _FILTERS)
        self.mean, self.std = cfg.mean, cfg.std
        self._size, self._filter = cfg.image_size, cfg.interpolation
        self._side = max(min(self._size), math.floor(min(self._size) * (recipe.resize or 1 / cfg.crop_pct)))
        self._recipe = recipe if train else None

    def __call__(self, pair: Pair, *names: str, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Prepare a pair; augmentation depends on the seed and the names alone, as in `(key, epoch)`."""
        image = tv_tensors.Image(torch.from_numpy(pair.pixels).permute(2, 0, 1).contiguous())
        mask = tv_tensors.Image(torch.from_numpy(pair.mask)[None].float())
        if self._recipe is None:
            image, mask = self._resized(image, mask)
            image, mask = (functional.center_crop(some, list(self._size)) for some in (image, mask))
        else:
            image, mask = self._augmented(image, mask, seeds.generator(seed, "augment", *names))
        pixels = functional.normalize(
            functional.to_dtype(image, torch.float32, scale=True), list(self.mean), list(self.std)
        )
        return pixels.as_subclass(torch.Tensor), mask.as_subclass(torch.Tensor).clamp(0, 1)

    def _resized(self, image: Any, mask: Any) -> tuple[Any, Any]:
        kernel = _FILTERS[self._filter]
        return (
            functional.resize(image, [self._side], kernel, antialias=True),
            functional.resize(mask, [self._side], _FILTERS["bilinear"], antialias=True),
        )

    def _augmented(self, image: Any, mask: Any, rng: np.random.Generator) -> tuple[Any, Any]:
        recipe = self._recipe
        assert recipe is not None
        height, width = self._size
        if recipe.crop == "scale":
            window = _part(image.shape[-2], image.shape[-1], recipe.least, rng)
            image = functional.resized_crop(image, *window, [height, width], _FILTERS[self._filter], antialias=True)
            mask = functional.resized_crop(mask, *window, [height, width], _FILTERS["bilinear"], antialias=True)
        else:
            image, mask = self._resized(image, mask)
            if recipe.crop == "shift":
                image, mask = (functional.center_crop(some, [height, width]) for some in (image, mask))
                image, mask = (functional.pad(some, [recipe.shift], padding_mode="edge") for some in (image, mask))
            short = max(0, height - image.shape[-2]), max(0, width - image.shape[-1])
            top, left = (
                int(rng.integers(have + lacks - want + 1))
                for have, lacks, want in zip(image.shape[-2:], short, (height, width), strict=True)
            )
            # What an image lacks in height or width is padded with zeros by the crop, as much on one side as is drawn.
            image, mask = (functional.crop(some, top, left, height, width) for some in (image, mask))
        if recipe.flip and rng.random() < 0.5:
            image, mask = functional.horizontal_flip(image), functional.horizontal_flip(mask)
        return image, mask


def _part(height: int, width: int, least: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw a part of an image, top left height width: of `least` to all of its area, of shapes from 3:4 to 4:3.

    Where such a part does not fit, its longer side is the image's.
    """
    area = height * width * float(rng.uniform(least, 1.0))
    shape = math.exp(float(rng.uniform(-_SHAPE, _SHAPE)))
    h = min(height, max(1, round(math.sqrt(area / shape))))
    w = min(width, max(1, round(math.sqrt(area * shape))))
    return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w


def mixed_batch(
    x: Tensor, mask: Tensor, y: Tensor, classes: int, mixup: float, cutmix: float, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Mix each sample of a batch with another one: MixUp (arXiv 1710.09412) or CutMix (1905.04899), drawn evenly.

    CutMix cuts masks alike; MixUp shows both subjects, so that its mask is the union of both.

    Args:
        x: (B, 3, H, W).
        mask: (B, 1, H, W), 0..1.
        y: (B,) int64.
        classes: number of classes.
        mixup, cutmix: parameters of the Beta distributions; 0 for without.
        seed: of everything that is drawn.

    Returns:
        Images, masks, and targets (B, classes) float32 that sum to 1.
    """
    target = torch.nn.functional.one_hot(y, classes).float()
    if not (mixup or cutmix):
        return x, mask, target
    rng = seeds.generator(seed, "mix")
    other = torch.from_numpy(rng.permutation(len(y))).to(x.device)
    if cutmix and (not mixup or rng.random() < 0.5):
        part = float(rng.beta(cutmix, cutmix))
        height, width = x.shape[-2:]
        h, w = round(height * math.sqrt(1 - part)), round(width * math.sqrt(1 - part))
        cy, cx = int(rng.integers(height)), int(rng.integers(width))
        rows, columns = slice(max(0, cy - h // 2), cy - h // 2 + h), slice(max(0, cx - w // 2), cx - w // 2 + w)
        cut = torch.zeros(height, width, dtype=torch.bool, device=x.device)
        cut[rows, columns] = True
        x = torch.where(cut, x[other], x)
        mask = torch.where(cut, mask[other], mask)
        part = 1 - float(cut.float().mean())
    else:
        part = float(rng.beta(mixup, mixup))
        x = part * x + (1 - part) * x[other]
        mask = torch.maximum(mask, mask[other])
    return x, mask, part * target + (1 - part) * target[other]
