"""Parts of subjects: crops and heat maps, from annotated parts or from k-means over the cells of the mask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgfast.datasets.layout import NamedParts
from fgfast.errors import UsageError
from fgfast.expand.kind import Planned, Request, option
from fgfast.expand.parts.annotated import AnnotatedStep
from fgfast.expand.parts.clustered import ANNOTATED, IMAGE_PARTS, ClusteredStep
from fgfast.expand.parts.features import Colour, Features, LoadDinov2, Once, Patches
from fgfast.expand.parts.fitting import Fit, digest_of, draw_images
from fgfast.expand.parts.measuring import Measuring
from fgfast.expand.parts.shown import CROPS, HEAT_MAPS, OVERVIEWS, PART_MAPS, PARTS, Cropping

# A label of `part_maps` is a level of 8 bits, and 0 is no part.
_MOST_PARTS = 255


def _clusters_only(options: Options) -> str:
    return "annotated parts need no clusters" if options.features == "annotated" else ""


def _annotated_only(options: Options) -> str:
    return "" if options.features in ("auto", "annotated") else "only heat maps of annotated parts are Gaussians"


def _dinov2_only(options: Options) -> str:
    return "" if options.features == "dinov2" else "only --features dinov2 has a network"


def _colour_only(options: Options) -> str:
    return "" if options.features in ("auto", "colour") else "only --features colour weighs the place"


# Of the ops that this kind calls.
_IMPORTS = ("scipy.ndimage", "scipy.spatial.distance")


@dataclass(frozen=True)
class Options:
    """The options of the kind."""

    features: str = option(
        "auto",
        "Takes the parts that the data set names, or finds some by k-means over colour and place, or over patch "
        "features of DINOv2. auto takes named ones where there are any, else colour.",
        choices=lambda: ("auto", "annotated", "colour", "dinov2"),
    )
    parts: int = option(
        8, "Sets the number of parts that k-means finds.", least=1, most=_MOST_PARTS, idle=_clusters_only
    )
    fit_images: int = option(64, "Sets the number of images that k-means is fitted on.", least=1, idle=_clusters_only)
    place: float = option(
        100.0,
        "Weighs the place: the width or height of the mask's box counts as much as this many units of CIE Lab.",
        least=0,
        idle=_colour_only,
    )
    model: str | None = option(
        None,
        "Names the DINOv2: a folder with config.json and model.safetensors, or a repository in the Hugging Face cache.",
        unset="facebook/dinov2-small",
        idle=_dinov2_only,
    )
    device: str = option(
        "cpu", "Runs DINOv2 on the CPU or on a GPU.", choices=lambda: ("cpu", "cuda"), idle=_dinov2_only
    )
    crop: float = option(
        0.3,
        "Sets the side of the crops, as a fraction of the longer side of the mask's box; 0 makes none.",
        least=0,
        most=4,
    )
    background: str = option(
        "black", "Shows black outside the mask in the crops, or keeps the image.", choices=lambda: ("black", "keep")
    )
    map_side: int = option(64, "Sets the longer side of the heat maps in pixels; 0 makes none.", least=0, most=4096)
    sigma: float = option(
        0.05,
        "Sets the standard deviation of the Gaussians, as a fraction of the longer side of the mask's box.",
        least=0.001,
        most=1,
        idle=_annotated_only,
    )


def plan(request: Request, options: Options) -> Planned:
    """Return the plan.

    Raises:
        UsageError: annotated parts are asked for, and there are none; or there is no DINOv2.
        MissingExtraError: DINOv2 is asked for, and its packages are not installed.
        DatasetError: the annotated parts are not understood.
    """
    named = request.twin.dataset.parts()
    cropping = Cropping(options.crop, options.background)
    files = {OVERVIEWS: ".png", **({HEAT_MAPS: ".png"} if options.map_side else {})}
    folders = (CROPS,) if options.crop else ()
    common: dict[str, Any] = {"folders": folders, "shown": OVERVIEWS, "annotated": False}
    if options.features == "annotated" or (options.features == "auto" and named is not None):
        if named is None:
            raise UsageError(
                f"{request.twin.dataset.root} has no annotated parts; use --features colour, or dinov2 (CUB has them, "
                "in parts/)"
            )
        lacking = dict.fromkeys(_without(request, named), "The data set has no annotated parts of it.")
        return Planned(
            AnnotatedStep(named.names, cropping, options.map_side, options.sigma),
            files=files,
            tables=(PARTS,),
            imports=_IMPORTS,
            given=_points_of(named),
            unused=lacking,
            reasons=(f"Parts are the {len(named.names)} that the data set names.",),
            **common,
        )
    return _clustered(request, options, named, files, cropping, common)


def _clustered(
    request: Request,
    options: Options,
    named: NamedParts | None,
    files: Mapping[str, str],
    cropping: Cropping,
    common: Mapping[str, Any],
) -> Planned:
    images = draw_images(request, options.fit_images)
    features, reason, fingerprint = _features(options)
    names = (request.seed, request.kind)
    fit = Fit(features, images, options.parts, names, request.twin.turn_exif, named is not None)
    annotated = () if named is None else named.names
    step = ClusteredStep(features, Once(fit), options.parts, cropping, options.map_side, annotated)
    training = all(request.sample(image.key).split == "train" for image in images)
    where = f"{len(images)} {'training ' if training else ''}images"
    chosen = "" if options.features != "auto" else "The data set has no annotated parts. "
    reasons = [f"{chosen}{options.parts} parts are clusters of {reason}, fitted on {where}."]
    if named is not None:
        reasons.append("Their distance to the annotated parts is measured, on the images and on their foreground.")
    return Planned(
        step,
        fingerprint=fingerprint,
        files={**files, PART_MAPS: ".png"},
        imports=_IMPORTS,
        tables=(PARTS, *((IMAGE_PARTS, ANNOTATED) if named is not None else ())),
        given=_decisions(request, digest_of(images), named),
        reasons=tuple(reasons),
        warnings=() if options.features == "dinov2" else (_COLOUR_WARNING,),
        # Each worker would hold the network in the GPU's memory.
        workers=1 if options.features == "dinov2" and options.device == "cuda" else None,
        finish=Measuring(names, options.parts, len(annotated)) if named is not None else None,
        **common,
    )


_COLOUR_WARNING = "Parts by colour and place are patches of like colour; they need not be parts of a body."


def _features(options: Options) -> tuple[Features, str, dict[str, str]]:
    """Return the features, what they are in words, and their fingerprint."""
    if options.features != "dinov2":
        return Colour(options.place), "colour and place inside the mask (k-means)", {}
    from fgfast.models import dinov2

    name = options.model or dinov2.SMALLEST
    folder: Path = dinov2.find(name)
    dinov2.check_device(options.device)
    return (
        Patches(Once(LoadDinov2(folder, options.device))),
        f"patch features of DINOv2 inside the mask (k-means; {name})",
        dinov2.fingerprint(folder),
    )


def _without(request: Request, named: NamedParts) -> list[str]:
    return [key for key in request.selected if key not in named.points]


def _points_of(named: NamedParts) -> Callable[[str], Mapping[str, Any]]:
    def given(key: str) -> Mapping[str, Any]:
        points = named.points.get(key)
        return {"points": [] if points is None else points.tolist()}

    return given


def _decisions(request: Request, fit: str, named: NamedParts | None) -> Callable[[str], Mapping[str, Any]]:
    def given(key: str) -> Mapping[str, Any]:
        if named is None:
            return {"fit": fit}
        boxes = request.sample(key).boxes
        box = boxes[0] if len(boxes) == 1 else None
        usable = box is not None and (box[2:] > box[:2]).all()
        return {"fit": fit, **_points_of(named)(key), "box": box.tolist() if usable and box is not None else None}

    return given
