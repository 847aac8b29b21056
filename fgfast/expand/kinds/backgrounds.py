"""Backgrounds: subjects on other backgrounds, backgrounds without subjects, subjects without backgrounds.

The recipes are those of ImageNet-9 (Xiao, Engstrom, Ilyas, Madry, Noise or Signal, arXiv 2006.09994). This module
decides which background each image gets; `backgrounds_step` makes the image.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from fgfast.errors import MissingExtraError
from fgfast.expand.kind import NOTHING, Ending, Planned, Request, option
from fgfast.expand.kinds.backgrounds_choice import MIXED, Chooser, FromFiles, chooser_for
from fgfast.expand.kinds.backgrounds_step import ESTIMATES, FILLS, LayOnBackground
from fgfast.writing import write_file

RECIPES = (*MIXED, "only-bg-b", "only-bg-t", "no-fg", "only-fg")
LISTING = "backgrounds.csv"
COLUMNS = (
    *("key", "image", "label", "split", "recipe"),
    *("source", "source_class", "source_split", "fill", "filled_share", "seed"),
)
"""The columns of the listing; `source` is a key, a path below the folder of --from, or a colour."""


def _unless_mixed(options: Any) -> str:
    return "" if options.recipe in MIXED else f"with recipe {options.recipe}, which lays no subject on a background"


def _unless_set(options: Any) -> str:
    there = options.from_ == "set"
    return _unless_mixed(options) or ("" if there else "without --from set: other backgrounds have no subject to fill")


def _unless_files(options: Any) -> str:
    named = options.from_ not in ("set", "colours", "noise")
    return _unless_mixed(options) or ("" if named else f"with --from {options.from_}: only folders have categories")


def _unless_soft(options: Any) -> str:
    if options.recipe in ("only-bg-b", "only-bg-t"):
        return f"with recipe {options.recipe}, which fills boxes"
    return "" if options.edges == "feathered" else f"with edges {options.edges}"


@dataclass(frozen=True, slots=True)
class Options:
    """What is made, and how."""

    recipe: str = option(
        "mixed-rand",
        "Selects what is made, by ImageNet-9's names: subjects on the background of an image of the same class, of any "
        "class, or of the next class (mixed-same, mixed-rand, mixed-next); images whose subject's box is black or "
        "tiled with background (only-bg-b, only-bg-t), or whose subject is black (no-fg); subjects on black (only-fg).",
        choices=lambda: RECIPES,
    )
    from_: str = option(
        "set",
        "Selects where backgrounds come from: set, the other images of the data set, their subjects filled; colours; "
        "noise; a folder of images; or places:FOLDER, whose folders are categories, as Places has them.",
        idle=_unless_mixed,
    )
    categories: str | None = option(
        None,
        "Names the folders of --from that are used, separated by commas, as in ocean,forest/broadleaf.",
        unset="all",
        idle=_unless_files,
    )
    fill: str = option(
        "tile",
        "Selects how the box of a background's own subject is filled: tiled with the largest rectangle beside it, or "
        "inpainted.",
        choices=lambda: tuple(FILLS),
        idle=_unless_set,
    )
    most_filled: float = option(
        0.6,
        "Sets the largest share of an image that is filled; where the subject's box is larger, the image is no "
        "background.",
        least=0,
        most=1,
        idle=lambda o: "" if o.recipe in ("only-bg-b", "only-bg-t") else _unless_set(o),
    )
    edges: str = option(
        "feathered",
        "Selects soft edges, or the hard ones of the mask.",
        choices=lambda: ("feathered", "hard"),
        idle=lambda o: _unless_soft(o) if o.recipe in ("only-bg-b", "only-bg-t") else "",
    )
    feather: float = option(
        4.0, "Sets the width of a soft edge in pixels of the stored image.", least=1, most=50, idle=_unless_soft
    )
    foreground: str = option(
        "interior",
        "Selects how the subject's colours under a soft edge are estimated, so that the old background does not shine "
        "through: from its inside, by blur fusion, by PyMatting (extra matting), or not at all.",
        choices=lambda: (*ESTIMATES, "none"),
        idle=_unless_soft,
    )


def plan(request: Request, options: Options) -> Planned:
    """Plan backgrounds; see `fgfast.expand.kind.Plan`."""
    if options.foreground == "pymatting" and find_spec("pymatting") is None:
        raise MissingExtraError("pymatting", "matting", "--foreground pymatting")
    fingerprint: dict[str, Any] = {}
    if options.foreground == "pymatting":
        fingerprint["pymatting"] = version("pymatting")
    chooser = chooser_for(request, options)
    files = chooser.files if isinstance(chooser, FromFiles) else None
    if files is not None:
        fingerprint |= {"background_files": len(files.categories), "background_names": files.digest}
    root = files.root if files is not None else request.twin.path("")
    step = LayOnBackground(
        recipe=options.recipe,
        root=root if options.recipe in MIXED else None,
        turn_exif=True if files is not None else request.twin.turn_exif,
        fill=options.fill,
        feather=options.feather if options.edges == "feathered" else 0,
        foreground=options.foreground,
        most_filled=options.most_filled,
    )
    given, unused = _decided(request, chooser)
    return Planned(
        step=step,
        fingerprint=fingerprint,
        sets=(options.recipe,),
        given=lambda key: given.get(key, NOTHING),
        unused=unused,
        reasons=tuple(chooser.reasons()),
        warnings=tuple(_warnings(options)),
        finish=_Finish(request, options.recipe),
    )


def _decided(request: Request, chooser: Chooser) -> tuple[dict[str, Mapping[str, Any]], dict[str, str]]:
    """Return key -> what is given to it, and key -> why it gets no image, of those selected."""
    given: dict[str, Mapping[str, Any]] = {}
    unused: dict[str, str] = {}
    for key in request.selected:
        found = chooser.choose(key)
        if isinstance(found, str):
            unused[key] = found
        else:
            given[key] = found
    return given, unused


def _warnings(options: Options) -> Iterator[str]:
    if options.recipe in ("only-bg-b", "only-bg-t"):
        return
    if options.edges == "feathered" and options.foreground == "none":
        yield "colours under soft edges are not estimated: the old background shines through each subject's outline"
    if options.edges == "hard":
        yield "edges are hard: on the outline, pixels of the subject have some of the old background's colour"


@dataclass(frozen=True, slots=True, eq=False)
class _Finish:
    """Writes backgrounds.csv: the background of every image."""

    request: Request
    recipe: str

    def __call__(self, ending: Ending) -> list[str]:
        labels, splits = self.request.twin.labels(), self.request.twin.splits()
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for outcome in ending.outcomes:
            key, given = outcome.key, ending.given(outcome.key)
            label, split = labels.get(key, ""), splits.get(key, "")
            source = given.get("source", "")
            its = given.get("source_class", ""), given.get("source_split", "")
            if given.get("own"):
                source, its = key, (label, split)
            elif "colour" in given:
                source = "#" + bytes(given["colour"]).hex()
            filled = given.get("filled_share")
            share_ = "" if filled is None else f"{filled:.4f}"
            row = (key, outcome.twin or "", label, split, self.recipe, source, *its, given.get("fill", ""), share_)
            writer.writerow((*row, self.request.seed))
        write_file(ending.target(LISTING), text.getvalue().encode("utf-8", "surrogateescape"))
        return [LISTING]
