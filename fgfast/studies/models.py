"""Classifiers of a study: timm's, cut open where a strategy masks, with one way through each for any number of devices.

With strategy "none" and native pooling, logits are those of timm's own forward, bit for bit.

Import this module only where a model is needed: it imports torch.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import nn

from fgfast.errors import MissingExtraError, UnknownNameError, UsageError
from fgfast.studies import masking, torchvision_shim
from fgfast.studies import weights as weight_files
from fgfast.studies.cell import Pooling, Strategy

if TYPE_CHECKING:
    from torch import Tensor

Family = Literal["vit", "swin", "convnext", "resnet", "efficientnet"]
"""Of timm's classes; DINOv2 with and without registers is a "vit"."""

# timm's classes, by exact name: a subclass may have a forward of its own.
_FAMILIES: dict[str, Family] = {
    "VisionTransformer": "vit",
    "SwinTransformerV2": "swin",
    "ConvNeXt": "convnext",
    "ResNet": "resnet",
    "EfficientNet": "efficientnet",
}


@dataclass(frozen=True, slots=True)
class Input:
    """What a model was trained to see.

    Attributes:
        image_size: (H, W) in pixels.
        interpolation: of the resize, "bicubic" or "bilinear".
        mean: per channel, 0..1.
        std: per channel, 0..1.
        crop_pct: share of the resized image's shorter side that the centre crop keeps.
    """

    image_size: tuple[int, int]
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop_pct: float


@dataclass(frozen=True, slots=True)
class _Cut:
    """What comes out of a model before pooling: values (B, prefix + N, D), of which N = h * w are cells."""

    values: Tensor
    keep: Tensor  # (B, N, 1)
    size: tuple[int, int]
    prefix: int


class Backbone(nn.Module):
    """A timm model with strategies of masking.

    Attributes:
        timm: the model; its state is the state of this module, but for the prefix "timm.".
        cfg: what it was trained to see.
        family: of its architecture.
        prefix: tokens before the patches: class token and registers; 0 without them.
        digest: SHA-256 of the file of its weights; empty where they are random.
        pooling: that its classifier was made for: with "both" it is twice as wide.
    """

    def __init__(self, model: nn.Module, classes: int, cfg: Input, pooling: Pooling, digest: str = "") -> None:
        super().__init__()
        self.family = family_of(model)
        self.timm: Any = model
        self.cfg, self.digest, self.pooling = cfg, digest, pooling
        self.prefix = int(getattr(model, "num_prefix_tokens", 0))
        if pooling in ("class", "both"):
            self._want_class_token(f"pooling {pooling!r}")
        if pooling == "both":
            self.timm.head = nn.Linear(2 * self.timm.num_features, classes)

    def forward(self, x: Tensor, mask: Tensor | None = None, strategy: Strategy | None = None) -> Tensor:
        """Return logits, (B, classes).

        Args:
            x: (B, 3, H, W) float, normalised.
            mask: (B, 1, H, W) float, subject 1; may be absent where the strategy needs none.
            strategy: of masking and pooling; none and the model's own where absent.

        Raises:
            UsageError: the strategy does not fit the model, or needs a mask.
        """
        return self._pool(self._cut(x, mask, strategy or Strategy()), strategy or Strategy(), logits=True)

    def features(self, x: Tensor, mask: Tensor | None = None, strategy: Strategy | None = None) -> Tensor:
        """Return what the classifier sees, (B, D), or (B, 2 D) with pooling "both"; arguments as of `forward`."""
        return self._pool(self._cut(x, mask, strategy or Strategy()), strategy or Strategy(), logits=False)

    def maps(self, x: Tensor, mask: Tensor | None = None, strategy: Strategy | None = None) -> Tensor:
        """Return the last feature map, masked, (B, D, h, w); arguments as of `forward`."""
        cut = self._cut(x, mask, strategy or Strategy())
        return cut.values[:, cut.prefix :].transpose(1, 2).unflatten(2, cut.size)

    def check(self, strategy: Strategy) -> None:
        """Check that a strategy fits the model.

        Raises:
            UsageError: it asks for a class token that there is not, or that it drops, or for another classifier.
        """
        if strategy.pooling in ("class", "both"):
            self._want_class_token(f"pooling {strategy.pooling!r}")
        if (strategy.pooling == "both") != (self.pooling == "both"):
            raise UsageError(f"the classifier was made for pooling {self.pooling!r}, not {strategy.pooling!r}")
        if strategy.class_token != "keep" and not strategy.late:
            raise UsageError(f"class token {strategy.class_token!r} belongs to late masking, not {strategy.where!r}")
        if strategy.class_token != "keep":
            self._want_class_token(f"class token {strategy.class_token!r}")
        native = strategy.pooling == "native" and getattr(self.timm, "global_pool", "") != "avg"
        if strategy.class_token == "drop" and (native or strategy.pooling in ("class", "both")):
            raise UsageError(f"pooling {strategy.pooling!r} reads the class token that is dropped; use patch or fg")

    def _want_class_token(self, what: str) -> None:
        if self.family != "vit" or getattr(self.timm, "cls_token", None) is None:
            raise UsageError(f"{what} needs a class token; this {self.family} has none: use native, patch or fg")

    def _cut(self, x: Tensor, mask: Tensor | None, strategy: Strategy) -> _Cut:
        self.check(strategy)
        if mask is None:
            if strategy.where != "none" or strategy.pooling == "fg":
                raise UsageError(f"the strategy {strategy.name!r} needs masks, and there are none")
            mask = x.new_ones(x.shape[0], 1, *x.shape[2:])
        if strategy.early:
            x = masking.early(x, mask, strategy.fill, self.cfg.mean, self.cfg.std)
        return self._tokens(x, mask, strategy) if self.family == "vit" else self._map(x, mask, strategy)

    def _tokens(self, x: Tensor, mask: Tensor, strategy: Strategy) -> _Cut:
        """A ViT's way: class token and registers stay apart from the patches.

        "block" hides the background's keys in the block named by the strategy and in all after it; "drop" takes all
        tokens before the patches away after it, registers too: they have seen the background like the class token.
        """
        model = self.timm
        size = tuple(model.patch_embed.dynamic_feat_size(x.shape[-2:]))
        keep = masking.cells(mask, size, strategy.share).flatten(2).transpose(1, 2)
        prefix, count = self.prefix, len(model.blocks)
        at = count - (1 if strategy.stage == "last" else 2)
        if strategy.late and at < 0:
            raise UsageError(f"a model of {count} block has no second-last block; use --stage last")
        seen = masking.visible_keys(keep, prefix) if strategy.late and strategy.class_token == "block" else None
        t = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(x))))
        for n, block in enumerate(model.blocks):
            t = block(t) if seen is None or n < at else block(t, attn_mask=seen)
            last = n == count - 1
            if last:
                t = model.norm(t)
            if strategy.late and (n == at or (last and seen is not None)):
                t, prefix = _masked_tokens(t, keep, prefix, strategy)
        return _Cut(t, keep, size, prefix)

    def _map(self, x: Tensor, mask: Tensor, strategy: Strategy) -> _Cut:
        """The way of CNNs and Swin: stage by stage, masked after the last with what follows it, or the second-last."""
        first, stages, rest = _steps(self.timm, self.family)
        for step in first:
            x = step(x)
        for n, stage in enumerate(stages):
            x = stage(x)
            if strategy.late and strategy.stage == "second-last" and n == len(stages) - 2:
                x = x * self._kept(x, mask, strategy)
        for step in rest:
            x = step(x)
        keep = self._kept(x, mask, strategy)
        if strategy.late and strategy.stage == "last":
            x = x * keep
        if self.family == "swin":
            return _Cut(x.flatten(1, 2), keep.flatten(1, 2), (x.shape[1], x.shape[2]), 0)
        return _Cut(x.flatten(2).transpose(1, 2), keep.flatten(2).transpose(1, 2), (x.shape[2], x.shape[3]), 0)

    def _kept(self, x: Tensor, mask: Tensor, strategy: Strategy) -> Tensor:
        """Foreground cells in the layout of a map: (B, h, w, 1) of Swin, (B, 1, h, w) else."""
        if self.family == "swin":
            return masking.cells(mask, (x.shape[1], x.shape[2]), strategy.share).permute(0, 2, 3, 1)
        return masking.cells(mask, (x.shape[2], x.shape[3]), strategy.share)

    def _pool(self, cut: _Cut, strategy: Strategy, *, logits: bool) -> Tensor:
        model, values, pooling = self.timm, cut.values, strategy.pooling
        if pooling == "native" and cut.prefix == self.prefix:
            if self.family == "swin":
                values = values.unflatten(1, cut.size)
            elif self.family != "vit":
                values = values.transpose(1, 2).unflatten(2, cut.size)
            return model.forward_head(values, pre_logits=not logits)
        patches = values[:, cut.prefix :]
        mean = masking.pooled_fg(patches, cut.keep) if pooling == "fg" else patches.mean(1)
        if self.family != "vit":
            # The mean as a map of one cell, whose mean it is: heads with a norm of their own stay as they are.
            one = mean[:, None, None] if self.family == "swin" else mean[:, :, None, None]
            return model.forward_head(one, pre_logits=not logits)
        parts = [values[:, 0]] if pooling in ("class", "both") else []
        parts += [mean] if pooling != "class" else []
        v = model.head_drop(torch.cat([model.fc_norm(part) for part in parts], 1))
        return model.head(v) if logits else v


def _masked_tokens(t: Tensor, keep: Tensor, prefix: int, strategy: Strategy) -> tuple[Tensor, int]:
    patches = t[:, prefix:] * keep
    if strategy.class_token == "drop":
        return patches, 0
    return torch.cat([t[:, :prefix], patches], 1), prefix


def _steps(model: Any, family: Family) -> tuple[list[Any], list[Any], list[Any]]:
    """A model's way to its last map: what comes before its stages, the stages, and what comes after."""
    if family == "resnet":
        first = [model.conv1, model.bn1, model.act1, model.maxpool]
        return first, [model.layer1, model.layer2, model.layer3, model.layer4], []
    if family == "convnext":
        return [model.stem], list(model.stages), [model.norm_pre]
    if family == "swin":
        return [model.patch_embed], list(model.layers), [model.norm]
    return [model.conv_stem, model.bn1], list(model.blocks), [model.conv_head, model.bn2]


def family_of(model: nn.Module) -> Family:
    """Return the family of a timm model.

    Raises:
        UnknownNameError: no way through models of its class is known.
    """
    name = type(model).__name__
    if name not in _FAMILIES:
        raise UnknownNameError("class of a backbone", name, _FAMILIES)
    return _FAMILIES[name]


def build(
    name: str,
    classes: int,
    image_size: int | None = None,
    pretrained: bool = False,
    weights: Path | None = None,
    drop_path: float = 0.0,
    pooling: Pooling = "native",
    **options: Any,
) -> Backbone:
    """Build a classifier.

    Args:
        name: timm's, such as "resnet50"; or a file of weights named like the model (resnet50.a1_in1k.safetensors).
        classes: of the classifier, which starts anew where a file's has another number.
        image_size: side in pixels, where it is not the model's own.
        pretrained: load timm's weights, from this machine's cache.
        weights: load these instead.
        drop_path: rate of stochastic depth.
        pooling: for "both" the classifier has twice the width.
        **options: further ones of timm, such as depth.

    Raises:
        MissingExtraError: timm is not installed.
        UnknownNameError: timm has no such model, or no way through its class is known.
        UsageError: the weights are not on this machine, or timm does not take an option.
        WeightsError: they are damaged, or another model's.
    """
    torchvision_shim.declare()
    try:
        import timm
        import timm.data
    except ImportError as error:
        raise MissingExtraError(error.name or "timm", "studies", "building a backbone") from error
    if pooling not in get_args(Pooling):
        raise UnknownNameError("pooling", pooling, get_args(Pooling))
    if Path(name).suffix in weight_files.SUFFIXES:
        name, weights = model_named(name), weights or Path(name)
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), 3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise UsageError(
            f"timm {timm.__version__} has no model named {name!r}{hint} timm.list_models() lists all, and a file of "
            "weights is named like its model"
        )
    settings = timm.get_pretrained_cfg(name)
    if image_size is not None and (settings is None or settings.fixed_input_size):
        options["img_size"] = image_size
    try:
        model = timm.create_model(name, num_classes=classes, drop_path_rate=drop_path, **options)
    except TypeError as error:
        raise UsageError(f"timm's {name} does not take these options: {error}") from error
    family_of(model)
    digest = ""
    if weights is None and pretrained:
        weights = weight_files.cached(name, model.pretrained_cfg)
    if weights is not None:
        digest = weight_files.load(model, weights)
    return Backbone(model, classes, _input(timm.data.resolve_data_config({}, model=model), image_size), pooling, digest)


def model_named(name: str) -> str:
    """Return timm's name of a backbone, which may be a file of weights named like its model."""
    return Path(name).name.partition(".")[0] if Path(name).suffix in weight_files.SUFFIXES else name


def _input(found: dict[str, Any], image_size: int | None) -> Input:
    size = (image_size, image_size) if image_size else (int(found["input_size"][1]), int(found["input_size"][2]))
    return Input(size, found["interpolation"], tuple(found["mean"]), tuple(found["std"]), float(found["crop_pct"]))
