"""The models that fgfast exports, and the graphs of each, for the command, its help and its errors."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal

from fgfast import methods
from fgfast.errors import MissingExtraError, UnknownNameError, UsageError, runtime_command

if TYPE_CHECKING:
    from fgfast.records import Size

EXPORTABLE = tuple(method.name for method in methods.models())

DETIC_SPLIT = ("detic_backbone", "detic_heads")
"""Detic as two graphs, between which the caller suppresses proposals: those that run on a GPU."""

SAM_PROMPTS = ("sam_prompt_decoder",)
"""SAM's decoder for points, boxes and masks, which a person's clicks need, and no conversion."""

# In place of a detector's canvases: those of the commonest aspect ratios, besides the two that hold every image.
Common = Literal["common"]
COMMON: Final = "common"

# Family -> the graphs that `fgfast convert` loads; Detic's for a CPU.
_GRAPHS = {
    "sam": ("sam_image_encoder", "sam_mask_decoder"),
    "detic": ("detic_detector",),
    "grounding_dino": ("grounding_dino",),
}


def family_of(model: str) -> str:
    """The family, "sam", "detic" or "grounding_dino", of one of EXPORTABLE or of a model like them for tests.

    Raises:
        UnknownNameError: the model belongs to no family.
    """
    if (method := methods.find(model)) is not None and method.is_model:
        return method.family
    for family in _GRAPHS:
        if model.startswith(f"{family}_"):
            return family
    raise UnknownNameError("model to export", model, EXPORTABLE)


def graphs_of(model: str, graphs: Sequence[str] = (), backend: str = "onnx") -> tuple[str, ...]:
    """The graphs of a model to export.

    Args:
        model: as for `family_of`.
        graphs: names of fgfast.graphs; empty takes those that `fgfast convert` loads.
        backend: "tensorrt" where engines are built, too.

    Raises:
        UnknownNameError: the model is unknown, or has no such graph.
    """
    family = family_of(model)
    known = (*_GRAPHS[family], *{"detic": DETIC_SPLIT, "sam": SAM_PROMPTS}.get(family, ()))
    for graph in graphs:
        if graph not in known:
            raise UnknownNameError(f"graph of {model}", graph, known)
    usual = DETIC_SPLIT if family == "detic" and backend == "tensorrt" else _GRAPHS[family]
    return tuple(graphs) or usual


def parse_canvases(text: str) -> list[Size] | Common:
    """Parse "800x1216,1216x800" into sizes in pixels; "common" remains.

    Raises:
        ValueError: a part is not a size, or a side is not a multiple of 32.
    """
    from fgfast.records import Size  # which imports NumPy, and --help must not

    if text == COMMON:
        return COMMON
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)x(\d+)", part.strip())
        if match is None or any(int(n) % 32 or not int(n) for n in match.groups()):
            raise ValueError(
                f'{part!r} must be HEIGHTxWIDTH in multiples of 32, for example 800x1216, or "common" alone'
            )
        found.append(Size(int(match[1]), int(match[2])))
    return found


def check_installed() -> None:
    """Raise UsageError unless the packages that write graphs, and the one that checks them, are installed."""
    for package in ("torch", "onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "export", "fgfast export")
    if importlib.util.find_spec("onnxruntime") is None:
        import torch

        command = runtime_command(torch.cuda.is_available())
        raise UsageError(f"fgfast export checks graphs in ONNX Runtime, which is not installed: {command}")
