"""When a setting has no effect beside the others: each function takes the settings, and returns why, or ""."""

from __future__ import annotations

from typing import Any

from fgfast import methods
from fgfast.config.values import ON_GPU

UNPROMPTED = ("annotations", "box")  # segmenters that have no use for a second look


def by_rules(settings: Any) -> str:
    return "with flags rules: rules flag whatever they find" if settings.flags == "rules" else ""


def without_rate(settings: Any) -> str:
    nothing = "with flag-rate 0%, which flags only what is surely wrong" if settings.flag_rate == "0%" else ""
    return by_rules(settings) or nothing


def beside_a_pack(settings: Any) -> str:
    same = "annotations" if settings.otherwise == "none" else settings.otherwise
    if settings.masks_from is None or settings.segmenter == same:
        return ""
    return "with masks-from: name the segmenter of images that the pack has no mask of with otherwise"


def without_models(settings: Any) -> str:
    if any(methods.may_be_model(name) for name in (settings.detector, settings.segmenter)):
        return ""
    return f"without a model: neither detector {settings.detector} nor segmenter {settings.segmenter} is one"


def without_words(settings: Any) -> str:
    if methods.may_be_model(settings.detector):
        return ""
    return f"with detector {settings.detector}, which looks for no words: name a detector that does, such as detic"


def without_two_models(settings: Any) -> str:
    for kind, name in (("detector", settings.detector), ("segmenter", settings.segmenter)):
        if not methods.may_be_model(name):
            return f"with {kind} {name}: it distributes two models, and needs two devices or more"
    return ""


def without_gpu_work(settings: Any) -> str:
    on_gpu = any(device.startswith("cuda") for device in settings.devices)
    if not on_gpu or settings.decoder in ON_GPU:
        return ""
    return without_models(settings)
