"""Waterbirds: CUB's birds on land and on water, where the background tells the class in training but not in testing.

`waterbirds_recipe` decides splits, places and labels, `waterbirds_step` pastes; this module finds backgrounds and
writes the list.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import PIL

from fgfast.data_paths import DataPath
from fgfast.datasets.cub import Cub
from fgfast.datasets.mask_files import from_files
from fgfast.errors import UsageError
from fgfast.expand.kind import NOTHING, Ending, Planned, Request, option
from fgfast.expand.kinds import waterbirds_recipe as recipe
from fgfast.expand.kinds.waterbirds_step import Paste
from fgfast.expand.matching import once_each
from fgfast.expand.places import images_in
from fgfast.mask_source import MaskSource
from fgfast.writing import write_file

COLUMNS = ("img_id", "img_filename", "y", "split", "place", "place_filename")
"""The columns of metadata.csv, in the published order."""
# Pillow's default, with which the generator saves.
_PUBLISHED_QUALITY = 75
# The folder of images of CUB's keys, which Waterbirds' names do not have.
_BELOW = "images"
# The folder and the file by which WILDS knows its copy; wilds/datasets/wilds_dataset.py, dataset_exists_locally.
_WILDS, _RELEASE = "waterbirds_v1.0", "RELEASE_v1.0.txt"
_LOAD = {
    "group-dro": "from fgfast.datasets import open_dataset; twin = open_dataset({twin})",
    "wilds": "from wilds import get_dataset; "
    "twin = get_dataset('waterbirds', version='1.0', root_dir={out}, download=False)",
}


def _unless_feathered(options: Any) -> str:
    return "" if options.edges == "soft" and options.masks == "ours" else "no edge is feathered"


@dataclass(frozen=True, slots=True)
class Options:
    """How Waterbirds is made."""

    places: str | None = option(
        None,
        "Names the folder of Places' training images, which has the categories bamboo_forest, forest/broadleaf, ocean "
        "and lake/natural: as its archives or torchvision unpack them, or as a folder of classes.",
        unset="must be given",
    )
    masks: str = option(
        "ours",
        "Selects whose masks cut out the birds: those of the run, or the official ones of CUB (segmentations.tgz).",
        choices=lambda: ("ours", "official"),
    )
    edges: str = option(
        "soft",
        "Selects soft edges or hard ones. Soft are those of official masks as they are, the share of annotators who "
        "agree, as published; those of the run are feathered, and the bird's colours under them estimated.",
        choices=lambda: ("soft", "hard"),
    )
    feather: float = option(
        3.0,
        "Sets the width of a feathered edge in pixels of CUB's image.",
        least=1,
        most=50,
        idle=_unless_feathered,
    )
    strength: float = option(
        0.95,
        "Sets the share of the training images whose background is that of their class.",
        least=0.5,
        most=1,
    )
    layout: str = option(
        "group-dro",
        "Selects whose loader finds the data set: group-DRO's, waterbird_complete95_forest2water2, or WILDS', "
        "waterbirds_v1.0.",
        choices=lambda: ("group-dro", "wilds"),
    )
    as_published: bool = option(
        False,
        "Keeps faults of the published data set: Eastern Towhee, Western Meadowlark and Western Wood Pewee are "
        "waterbirds, and JPEGs have quality 75.",
    )


def plan(request: Request, options: Options) -> Planned:
    """Plan Waterbirds; see `fgfast.expand.kind.Plan`."""
    dataset = _cub(request)
    if options.places is None:
        raise UsageError("waterbirds needs images of Places: give the folder of its training images with --places")
    masks = _official(dataset) if options.masks == "official" else None
    keys = [key for key in request.usable if masks is None or key in masks]
    assigned = _assigned(request, keys, options)
    root = DataPath(str(Path(options.places).expanduser().absolute()))
    places = _places(request, root, assigned)
    given = {key: _given(a, *places[key], None if masks is None else masks[key]) for key, a in assigned.items()}
    folder = _WILDS if options.layout == "wilds" else f"waterbird_complete{100 * options.strength:g}_forest2water2"
    return Planned(
        step=Paste(folder, root, _top_of(masks), options.edges == "soft", options.feather * (options.edges == "soft")),
        fingerprint={"pillow": PIL.__version__},
        sets=(folder,),
        below=_BELOW,
        quality=_PUBLISHED_QUALITY if options.as_published else None,
        given=lambda key: given.get(key, NOTHING),
        unused={key: "CUB has no official mask of it" for key in request.selected if key not in given},
        reasons=_reasons(assigned),
        warnings=_warnings(request, dataset, keys, options),
        annotated=False,
        load=_LOAD[options.layout],
        finish=_Finish(folder, {key: ident for ident, key in dataset.ids.items()}),
    )


def _cub(request: Request) -> Cub:
    """Return the data set of the run; raise UsageError where it is not CUB, or has no split."""
    name = request.twin.source.dataset
    if name != Cub.name:
        raise UsageError(f"waterbirds is made from a run of {Cub.title} (cub) alone; this run is of {name}")
    dataset = request.twin.dataset
    assert isinstance(dataset, Cub)
    if not request.usable:
        raise UsageError("waterbirds needs images with a mask; this run has none that may be used")
    without = next((key for key in request.usable if not request.sample(key).split), None)
    if without is not None:
        raise UsageError(
            f"waterbirds needs CUB's own split, and {without} has none: put train_test_split.txt into {dataset.root}"
        )
    return dataset


def _official(dataset: Cub) -> dict[str, MaskSource]:
    """Return key -> official mask of those images that have one."""
    found = dataset.masks()
    masks = {} if found is None else from_files(*found)
    if not masks:
        raise UsageError(f"there are no official masks of {dataset.root}. {dataset.masks_from}")
    return masks


def _top_of(masks: Mapping[str, MaskSource] | None) -> DataPath | None:
    """Return the folder below which the official masks are."""
    path = None if masks is None else next(iter(masks.values())).path
    return DataPath(path.top, follow=path.follow) if isinstance(path, DataPath) else None


def _assigned(request: Request, keys: Sequence[str], options: Options) -> dict[str, recipe.Assigned]:
    samples = [request.sample(key) for key in keys]
    birds = {sample.key: recipe.bird(sample.label, options.as_published) for sample in samples}
    return recipe.assign(
        birds,
        (sample.key for sample in samples if sample.split == "train"),
        options.strength,
        lambda key: request.number(key, "val"),
        lambda key: request.number(key, "water"),
    )


def _places(
    request: Request, root: DataPath, assigned: Mapping[str, recipe.Assigned]
) -> dict[str, tuple[str, DataPath]]:
    """Return key -> (name in Places' lists, file) of its background; no file is used twice.

    Raises:
        UsageError: there are too few on a side.
    """
    images = [images_in(root, categories) for categories in recipe.CATEGORIES]
    takers = [[key for key, a in assigned.items() if a.place == side] for side in (recipe.LAND, recipe.WATER)]
    sides = list(zip(recipe.SIDES, takers, images, recipe.CATEGORIES, strict=True))
    short = [
        f"{len(taking) - len(there):,} images are missing for {side} ({' and '.join(categories)}): {len(taking):,} are "
        f"needed, and {len(there):,} are there"
        for side, taking, there, categories in sides
        if len(taking) > len(there)
    ]
    if short:
        raise UsageError(
            f"{root} has too few images of Places, of which each is used once. {'; '.join(short)}. Add images to these "
            "folders (Places has 5,000 a category), or use fewer of CUB's images"
        )
    chosen = {}
    for _, taking, there, _ in sides:
        number = partial(request.number, "place")
        found = once_each(taking, there, lambda key: request.number(key, "place"), number)
        chosen.update({key: (name, there[name]) for key, name in found.items()})
    return chosen


def _given(a: recipe.Assigned, name: str, file: DataPath, mask: MaskSource | None) -> dict[str, Any]:
    """Return what is decided for an image, as JSON can hold it."""
    bytes_ = file.stat().st_size  # another file of this name is noticed by it
    given = {"y": a.y, "split": a.split, "place": a.place, "place_filename": name, "file": file.below, "bytes": bytes_}
    if mask is not None and isinstance(mask.path, DataPath):
        given |= {"mask_file": mask.path.below, "mask": mask.digest}
    return given


def _reasons(assigned: Mapping[str, recipe.Assigned]) -> tuple[str, ...]:
    names = "landbirds on land", "landbirds on water", "waterbirds on land", "waterbirds on water"
    return tuple(
        f"{split}: {', '.join(f'{count:,} {name}' for count, name in zip(counts, names, strict=True))}"
        for split, counts in recipe.groups(assigned.values()).items()
    )


def _warnings(request: Request, dataset: Cub, keys: Sequence[str], options: Options) -> tuple[str, ...]:
    said = []
    if options.as_published:
        labels = sorted({request.sample(key).label for key in keys})
        wrong = [label for label in labels if recipe.bird(label) != recipe.bird(label, True)]
        if wrong:
            said.append(f"as published, {len(wrong)} species are labelled waterbirds that are none: {', '.join(wrong)}")
    if len(keys) < len(dataset.samples):
        said.append(
            f"{len(keys):,} of CUB's {len(dataset.samples):,} images are used: the others have no mask, or were left "
            "out, and the numbers of images differ from the published ones"
        )
    return tuple(said)


@dataclass(frozen=True, slots=True)
class _Finish:
    """Writes metadata.csv, and for WILDS the file by which it knows its copy.

    Attributes:
        folder: the data set's folder.
        ids: key -> CUB's id of the image.
    """

    folder: str
    ids: Mapping[str, str]

    def __call__(self, ending: Ending) -> list[str]:
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for outcome in ending.outcomes:
            given = ending.given(outcome.key)
            writer.writerow((self.ids[outcome.key], outcome.twin, *(given[name] for name in COLUMNS[2:])))
        content = {"metadata.csv": text.getvalue().encode()}
        if self.folder == _WILDS:
            content[_RELEASE] = b""
        for name, data in content.items():
            write_file(ending.target(f"{self.folder}/{name}"), data)
        return [f"{self.folder}/{name}" for name in content]
