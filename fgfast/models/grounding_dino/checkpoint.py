"""Grounding DINO's network, tokenizer and image processor, from a checkpoint's folder or with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fgfast.errors import UnknownNameError, UsageError, WeightsError
from fgfast.methods import METHODS, seed_of
from fgfast.models.files import hub_files
from fgfast.models.files import weights as cache
from fgfast.models.grounding_dino import small
from fgfast.models.grounding_dino.packages import classes, package

NAMES = tuple(method.name for method in METHODS if method.family == "grounding_dino")
NEEDED = ("config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json")
# image_mean and image_std of both checkpoints' preprocessor_config.json: ImageNet's, of values in 0..1.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def network(name: str, weights: str | Path) -> Any:
    """Return transformers' GroundingDinoForObjectDetection in float32; raises the errors of sessions.detector."""
    _check(name)
    if (seed := seed_of(weights)) is not None:
        return small.network(seed)
    folder = _folder(name, weights)
    (kind,) = classes("GroundingDinoForObjectDetection")
    try:
        model, report = kind.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            weights_only=True,
            trust_remote_code=False,
            dtype=package("torch").float32,
            output_loading_info=True,
        )
    except Exception as error:  # whatever the library makes of files that are none
        raise WeightsError(folder, f"cannot be loaded as Grounding DINO: {error}") from error
    if missing := sorted(report["missing_keys"]):
        raise WeightsError(
            folder / "model.safetensors",
            f"lacks {len(missing)} weights, the first are {missing[:3]}; use the file of a Grounding DINO",
        )
    return model


def processors(name: str, weights: str | Path) -> tuple[Any, Any]:
    """Return transformers' BertTokenizer and GroundingDinoImageProcessorPil; raises the errors of sessions.detector."""
    _check(name)
    if seed_of(weights) is not None:
        return small.tokenizer(), small.image_processor()
    folder = _folder(name, weights)
    tokenizer, kind = classes("BertTokenizer", "GroundingDinoImageProcessorPil")
    try:
        processor = kind.from_pretrained(folder, local_files_only=True)
        words = tokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise WeightsError(folder, f"has no tokenizer and image processor of Grounding DINO: {error}") from error
    for label, found, wanted in (("mean", processor.image_mean, MEAN), ("std", processor.image_std, STD)):
        if tuple(found) != wanted:
            raise UsageError(
                f"{folder} normalises images with {label} {list(found)}; Grounding DINO's is {list(wanted)}"
            )
    return words, processor


def _check(name: str) -> None:
    if name not in NAMES:
        raise UnknownNameError("Grounding DINO model", name, NAMES)
    package("torch")
    from fgfast.backends.torch_flags import set_flags

    set_flags()


def _folder(name: str, weights: str | Path) -> Path:
    """Return the folder of a checkpoint after checking that all files exist."""
    folder = cache.path(name) if str(weights) == "cached" else Path(weights).expanduser()
    if absent := [file for file in NEEDED if not (folder / file).is_file()]:
        raise UsageError(f"{folder} is not a Grounding DINO checkpoint: it lacks {', '.join(absent)}")
    hub_files.check(folder)
    return folder
