"""The training loop, in plain torch.

One cell is trained by one process on one device: nothing is gathered, nothing is distributed. Random numbers of an
epoch depend on the seed and the epoch alone, so that a training that was killed goes on from its last epoch as if it
never had been: on a CPU bit for bit.

Import this module only where a model is at hand: it imports torch.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fgfast import seeds
from fgfast.errors import UsageError
from fgfast.studies.cell import Strategy
from fgfast.studies.loading import Batch
from fgfast.studies.models import Backbone
from fgfast.studies.recipes import Recipe
from fgfast.studies.transforms import mixed_batch

# The one-cycle schedule begins at this part of the peak and ends at this part of its beginning (Smith and Topin,
# arXiv 1708.07120; the values are torch's).
_BEGINS, _ENDS = 1 / 25, 1e-4


class Training:
    """A classifier in training.

    Args:
        model: on its device.
        recipe: how.
        strategy: what of it is the model's: pixels are masked before.
        seed: of dropout, stochastic depth and mixing.
        steps: steps of an epoch.
        device: "cpu", "cuda:0", ...
        parts: into how many parts a batch is divided, where it does not fit into the device's memory.
    """

    def __init__(
        self, model: Backbone, recipe: Recipe, strategy: Strategy, seed: int, steps: int, device: str, parts: int = 1
    ) -> None:
        self.model, self.recipe, self.strategy = model, recipe, strategy.within
        self._seed, self._steps, self._device, self._parts = seed, steps, device, parts
        model.check(self.strategy)
        self.classes = int(head_of(model).out_features)
        for parameter in model.parameters():
            parameter.requires_grad_(not recipe.frozen)
        for parameter in head_of(model).parameters():
            parameter.requires_grad_()
        self.optimizer = _optimizer(model, recipe)

    def epoch(self, number: int, batches: Iterable[Batch]) -> Iterator[float]:
        """Train one epoch, and yield the loss of each step.

        Raises:
            UsageError: the loss is no longer a number.
        """
        self.model.train()
        if self.recipe.frozen:
            self.model.eval()  # neither statistics of batches nor stochastic depth change what is frozen
        torch.manual_seed(seeds.number(self._seed, "epoch", str(number)) % 2**63)
        for step, batch in enumerate(batches):
            rate = lr_factor(number * self._steps + step, self._steps, self.recipe)
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.lr * rate * group["lr_scale"]
            yield self._step(batch, seeds.number(self._seed, "step", str(number), str(step)))

    def _step(self, batch: Batch, seed: int) -> float:
        x, mask, y = (some.to(self._device, non_blocking=True) for some in (batch.x, batch.mask, batch.y))
        x, mask, target = mixed_batch(x, mask, y, self.classes, self.recipe.mixup, self.recipe.cutmix, seed)
        total = 0.0
        for part in torch.arange(len(y), device=x.device).chunk(self._parts):
            with self._autocast():
                logits = self.model(x[part], mask[part], self.strategy)
            loss = functional.cross_entropy(
                logits.float(), target[part], label_smoothing=self.recipe.label_smoothing
            ) * (len(part) / len(y))
            loss.backward()
            total += float(loss.detach())
        if not math.isfinite(total):
            raise UsageError(
                f"the loss is {total}: the training has diverged. Use a lower learning rate (--lr), or another recipe"
            )
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total

    def _autocast(self) -> Any:
        if not self.recipe.bf16 or not self._device.startswith("cuda"):
            return contextlib.nullcontext()
        return torch.autocast("cuda", torch.bfloat16)


def head_of(model: Backbone) -> Any:
    """Return the classifier of a backbone, a linear layer."""
    return model.timm.get_classifier()


def lr_factor(step: int, steps: int, recipe: Recipe) -> float:
    """Return the part of the peak learning rate of a step.

    Args:
        step: from 0 on, over all epochs.
        steps: of an epoch.
        recipe: its schedule.
    """
    total, rising = recipe.epochs * steps, recipe.warmup * steps
    if recipe.schedule == "one-cycle":
        if step < rising:
            return _cosine(_BEGINS, 1.0, step / rising)
        return _cosine(1.0, _BEGINS * _ENDS, (step - rising) / max(1.0, total - 1 - rising))
    if step < rising:
        return (step + 1) / (rising + 1)
    return _cosine(1.0, 0.0, (step - rising) / max(1.0, total - rising))


def _cosine(first: float, last: float, part: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * min(1.0, part))) / 2


def _optimizer(model: Backbone, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimiser; each of its groups has its factor of the learning rate as `lr_scale`."""
    from timm.optim import param_groups_layer_decay

    head = set(map(id, head_of(model).parameters()))
    groups = []
    for group in param_groups_layer_decay(
        model.timm,
        recipe.weight_decay,
        no_weight_decay_list=model.timm.no_weight_decay() if hasattr(model.timm, "no_weight_decay") else (),
        layer_decay=recipe.layer_decay,
    ):
        scale = float(group.get("lr_scale", 1.0))
        for ours, factor in ((True, recipe.head_lr), (False, scale)):
            some: list[Tensor] = [p for p in group["params"] if p.requires_grad and (id(p) in head) == ours]
            if some:
                groups.append({"params": some, "weight_decay": group["weight_decay"], "lr_scale": factor})
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, recipe.lr, momentum=0.9)
    return torch.optim.AdamW(groups, recipe.lr)
