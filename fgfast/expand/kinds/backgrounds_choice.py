"""Which background each image gets, and why some get none: choices over the whole run, from masks and names alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from fgfast.data_paths import DataPath
from fgfast.errors import UsageError
from fgfast.expand.background_files import BackgroundFiles, background_files
from fgfast.expand.kind import Request
from fgfast.ops.filling import MARGIN, Box, share, widened
from fgfast.ops.runs import boxes_and_areas
from fgfast.pools import Pools
from fgfast.records import Outcome

MIXED = ("mixed-same", "mixed-rand", "mixed-next")
"""The recipes that lay a subject on a background."""
PLACES = "places:"


class Chosen(Protocol):
    """The options that a choice depends on; see `fgfast.expand.kinds.backgrounds.Options`."""

    @property
    def recipe(self) -> str: ...
    @property
    def from_(self) -> str: ...
    @property
    def categories(self) -> str | None: ...
    @property
    def fill(self) -> str: ...
    @property
    def most_filled(self) -> float: ...


class Chooser:
    """Chooses what each image gets; this one needs nothing but the image."""

    def __init__(self, request: Request, options: Chosen) -> None:
        self.request, self.options = request, options

    @cached_property
    def masks(self) -> dict[str, _Masked]:
        """Key -> what is known of its mask, of all usable samples whose mask can be read."""
        usable = set(self.request.usable)
        outcomes = (o for o in self.request.twin.entries(("done", "flagged")) if o.key in usable)
        found = ((o.key, _masked(o, self.request.sample(o.key).banner_rows)) for o in outcomes)
        return {key: masked for key, masked in found if masked is not None}

    def choose(self, key: str) -> Mapping[str, Any] | str:
        """Return what is given to an image, or a sentence that says why it gets none."""
        masked = self.masks.get(key)
        if masked is None:
            return "its mask cannot be read"
        if not masked.area:
            return "its mask is empty: where its subject is is not known"
        return self._choose(key, masked)

    def _choose(self, key: str, masked: _Masked) -> Mapping[str, Any] | str:
        recipe = self.options.recipe
        own = {"own": True}
        if recipe == "only-fg":
            return {"fill": "black"}
        if recipe == "no-fg":
            return own | {"fill": "subject black", "filled_share": masked.area / masked.pixels}
        # Banners count here: the image keeps its own.
        filled = share(masked.whole_box, masked.size)
        if filled > self.options.most_filled:
            return _too_large(filled, self.options)
        return own | {"fill": "black" if recipe == "only-bg-b" else "tile", "filled_share": filled}

    def reasons(self) -> Iterator[str]:
        """Yield what was chosen, a sentence each."""
        yield f"recipe {self.options.recipe}"


class _Plain(Chooser):
    """Colours and noise."""

    def _choose(self, key: str, masked: _Masked) -> Mapping[str, Any] | str:
        if self.options.from_ == "noise":
            return {"fill": "noise"}
        number = self.request.number(key, "colour")
        return {"fill": "colour", "colour": [number >> shift & 255 for shift in (0, 8, 16)]}


class _Drawing(Chooser):
    """Draws images of a class, or category, of the image's own split."""

    @cached_property
    def labels(self) -> dict[str, str]:
        return self.request.twin.labels()

    @cached_property
    def splits(self) -> dict[str, str]:
        return self.request.twin.splits()

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted(set(self.labels.values()) - {""}))

    def _wanted(self, key: str, classes: Sequence[str]) -> str | None:
        """Return the class whose background an image gets, None for any; `classes` are numbered as the labels are."""
        if self.options.recipe == "mixed-rand":
            return None
        number = self.classes.index(self.labels[key]) + (self.options.recipe == "mixed-next")
        return classes[number % len(classes)]

    def _draw(self, pools: Pools, key: str, classes: Sequence[str]) -> str | None:
        return pools.draw((self.splits.get(key, ""), self._wanted(key, classes)), key)


class _FromSet(_Drawing):
    """The images of the data set itself, whose subjects are filled."""

    @cached_property
    def fit(self) -> dict[str, float]:
        """Key -> share that is filled, of the images that can be backgrounds."""
        most = self.options.most_filled
        certain = {key: masked for key, masked in self.masks.items() if masked.area and not masked.flagged}
        shares = {key: share(masked.box, (masked.height, masked.width)) for key, masked in certain.items()}
        return {key: filled for key, filled in shares.items() if filled <= most and filled < 1}

    @cached_property
    def pools(self) -> Pools:
        def groups(key: str) -> tuple[tuple[str, str | None], ...]:
            split = self.splits.get(key, "")
            return (split, None), (split, self.labels.get(key, ""))

        return Pools({key: groups(key) for key in self.fit}, self.request.number)

    def _choose(self, key: str, masked: _Masked) -> Mapping[str, Any] | str:
        recipe, split = self.options.recipe, self.splits.get(key, "")
        if recipe != "mixed-rand" and not self.labels.get(key):
            return f"it has no class, which {recipe} needs"
        if recipe == "mixed-next" and len(self.classes) < 2:
            return f"there is no other class than {self.labels[key]}"
        found = self._draw(self.pools, key, self.classes)
        if found is None:
            label = self._wanted(key, self.classes)
            others = f" of {label}" if label is not None else ""
            there = f" of the split {split}" if split else ""
            return f"no other image{others}{there} can be its background"
        its = self.masks[found]
        return {
            "source": found,
            "source_class": self.labels.get(found, ""),
            "source_split": self.splits.get(found, ""),
            "fill": self.options.fill,
            "filled_share": self.fit[found],
            "box": list(its.box),
            "banner_rows": its.banner_rows,
            "sha256": its.sha256,
        }

    def reasons(self) -> Iterator[str]:
        yield from super().reasons()
        yield f"{len(self.fit):,} of {len(self.request.usable):,} images can be backgrounds"
        empty = sum(not masked.area for masked in self.masks.values())
        flagged = sum(masked.area > 0 and masked.flagged for masked in self.masks.values())
        large = len(self.masks) - empty - flagged - len(self.fit)
        if large:
            yield f"{large:,} are none, because more than {self.options.most_filled:g} of them would have to be filled"
        if flagged:
            yield f"{flagged:,} are none, because their masks are flagged: their subject may not be where the mask is"
        if empty:
            yield f"{empty:,} are none, because their mask is empty"


class FromFiles(_Drawing):
    """Images of a folder. Each file belongs to one split, by its name: none is used by two."""

    def __init__(self, request: Request, options: Chosen, files: BackgroundFiles) -> None:
        super().__init__(request, options)
        self.files = files
        names = sorted(set(self.splits.values())) or [""]
        self._split = {file: names[request.number("split", file) % len(names)] for file in files.categories}
        self._categories = sorted(set(files.categories.values()))
        groups = {file: ((self._split[file], None), (self._split[file], c)) for file, c in files.categories.items()}
        self._pools = Pools(groups, request.number)
        missing = [name for name in names if name not in self._split.values()]
        if missing:
            some = f"{len(self._split):,} image{'s' * (len(self._split) != 1)}"
            raise UsageError(
                f"{files.root} has {some}, and none is left for {' and '.join(missing)}: no "
                "background is used by two splits, so give a folder with more images"
            )
        if options.recipe != "mixed-rand" and len(self._categories) < 2:
            raise UsageError(
                f"recipe {options.recipe} gives each class a category of backgrounds, and {files.root} has "
                f"{len(self._categories)}: use mixed-rand, or a folder with a folder for each category"
            )

    def _choose(self, key: str, masked: _Masked) -> Mapping[str, Any] | str:
        if self.options.recipe != "mixed-rand" and not self.labels.get(key):
            return f"it has no class, which {self.options.recipe} needs"
        found = self._draw(self._pools, key, self._categories)
        if found is None:
            category = self._wanted(key, self._categories)
            return f"there is no background of {category} for the split {self.splits.get(key, '') or 'of all'}"
        return {
            "source": found,
            "source_class": self.files.categories[found],
            "source_split": self._split[found],
            "fill": "none",
            "bytes": _bytes_of(self.files.root / found),  # another file of this name is noticed by it
        }

    def reasons(self) -> Iterator[str]:
        yield from super().reasons()
        many = f" of {len(self._categories):,} categories" if len(self._categories) > 1 else ""
        yield f"{len(self._split):,} images{many} in {self.files.root} are backgrounds"
        if self.options.recipe == "mixed-rand":
            return
        for number, label in enumerate(self.classes):
            number += self.options.recipe == "mixed-next"
            yield f"{label} gets {self._categories[number % len(self._categories)]}"


def chooser_for(request: Request, options: Chosen) -> Chooser:
    if options.recipe not in MIXED:
        return Chooser(request, options)
    if options.from_ == "set":
        return _FromSet(request, options)
    if options.from_ in ("colours", "noise"):
        if options.recipe != "mixed-rand":
            raise UsageError(f"recipe {options.recipe} needs backgrounds with a class, and {options.from_} have none")
        return _Plain(request, options)
    categories = [name.strip() for name in (options.categories or "").split(",") if name.strip()]
    folder = options.from_.removeprefix(PLACES)
    return FromFiles(request, options, background_files(folder, categories, request.twin.source.follow_links))


@dataclass(frozen=True, slots=True)
class _Masked:
    """What is known of an image from its mask.

    Attributes:
        area: of the mask, in pixels.
        box: what is filled where it is a background: the mask's box with its margin, x0 y0 x1 y1, without credit line.
        whole_box: the same, credit line included.
        height, width: of the background, without credit line.
        banner_rows: rows of the credit line.
        sha256: of the image's file, hexadecimal.
        flagged: whether there are reasons to doubt the mask.
    """

    area: int
    box: Box
    whole_box: Box
    height: int
    width: int
    banner_rows: int
    sha256: str
    flagged: bool

    @property
    def size(self) -> tuple[int, int]:
        return self.height + self.banner_rows, self.width

    @property
    def pixels(self) -> int:
        return self.size[0] * self.size[1]


def _masked(outcome: Outcome, banner_rows: int) -> _Masked | None:
    """Return what the mask of an outcome says, from its run lengths; None where these are damaged, or it has none."""
    if outcome.rle is None or outcome.size is None or outcome.source is None:
        return None
    try:
        boxes, areas = boxes_and_areas([outcome.rle], [outcome.size])
    except ValueError:
        return None
    height, width = outcome.size
    banner = min(banner_rows, height - 1)
    x0, y0, x1, y1 = (int(edge) for edge in boxes[0])
    box = (x0, y0, x1, y1)
    rows = height - banner
    inside = (x0, min(y0, rows), x1, min(y1, rows))
    return _Masked(
        area=int(areas[0]),
        box=widened(inside, MARGIN, (rows, width)),
        whole_box=widened(box, MARGIN, (height, width)),
        height=rows,
        width=width,
        banner_rows=banner,
        sha256=outcome.source.sha256.hex(),
        flagged=outcome.status == "flagged",
    )


def _too_large(filled: float, options: Chosen) -> str:
    return f"its subject's box covers {filled:.2f} of the image, more than {options.most_filled:g}"


def _bytes_of(path: DataPath) -> int | None:
    try:
        return path.stat().st_size
    except OSError:  # the step says what is wrong with it
        return None
