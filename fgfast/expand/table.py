"""The table of kinds of expansion. Data only: options and plans are dotted names, imported when a kind is used."""

from __future__ import annotations

import importlib
from typing import Any

from fgfast.errors import UnknownNameError
from fgfast.expand.kind import Kind


def _kind(name: str, summary: str) -> Kind:
    module = f"fgfast.expand.kinds.{name}"
    return Kind(name, summary, f"{module}:Options", f"{module}:plan")


KINDS: tuple[Kind, ...] = (
    _kind("backgrounds", "subjects on other backgrounds, or backgrounds without subjects, by ImageNet-9's recipes"),
    _kind("waterbirds", "group-DRO's Waterbirds, from a run of CUB and images of Places"),
    _kind("contours", "outlines as polygons, SVG and COCO, shape descriptors, edge maps"),
    _kind("mesh", "inputs of image-to-3D models, a relief as GLB, views of it with cameras"),
    _kind("statistics", "histograms, texture, SIFT and ORB keypoints inside the mask"),
    _kind("parts", "crops and heat maps of parts, annotated or found by k-means over colour or DINOv2"),
    _kind("styles", "drawings and paintings, each style a data set; or redrawn by a model of diffusers"),
    _kind("captions", "questions about cut-out, crop and whole image, for any model, or answered by one"),
)


def names() -> tuple[str, ...]:
    """Return the names of all kinds, in the order of the table."""
    return tuple(kind.name for kind in KINDS)


def kind(name: str) -> Kind:
    """Return the entry of a kind.

    Raises:
        UnknownNameError: there is none of this name.
    """
    for one in KINDS:
        if one.name == name:
            return one
    raise UnknownNameError("kind of expansion", name, names())


def resolve(dotted: str) -> Any:
    """Import what a dotted name of the table names, "module:name"."""
    module, _, name = dotted.partition(":")
    return getattr(importlib.import_module(module), name)
