"""The recipe of Waterbirds: which species is a waterbird, and which image gets which split, place and background.

Sagawa et al. 2020, "Distributionally Robust Neural Networks" (arXiv 1911.08731), appendix C.1; and its generator,
https://github.com/kohpangwei/group_DRO, dataset_scripts/generate_waterbirds.py. What that one draws with numpy's global
generator, unseeded, is drawn here from seed and name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fgfast.expand.matching import Number, lowest

LANDBIRD, WATERBIRD = 0, 1
LAND, WATER = 0, 1
TRAIN, VAL, TEST = 0, 1, 2
SPLITS = ("train", "val", "test")
SIDES = ("land", "water")
CATEGORIES = (("bamboo_forest", "forest/broadleaf"), ("ocean", "lake/natural"))
"""The categories of Places that are land, and those that are water."""
VAL_SHARE = 0.2
"""The share of CUB's training images that becomes the split val."""

# Seabirds and waterfowl; the generator's water_birds_list.
_WATERBIRDS = (
    *("albatross", "auklet", "cormorant", "frigatebird", "fulmar", "gull", "jaeger", "kittiwake", "pelican", "puffin"),
    *("tern", "gadwall", "grebe", "mallard", "merganser", "guillemot", "pacific_loon"),
)


def species_of(label: str) -> str:
    """Return the species of a label of CUB in lower case: "141.Artic_Tern" -> "artic_tern"."""
    return re.sub(r"^\d+\.", "", label).lower()


def bird(label: str, as_published: bool = False) -> int:
    """Return whether a label of CUB is a waterbird, 1, or a landbird, 0.

    Args:
        label: the label.
        as_published: look for the names of waterbirds as parts of words, as the generator does: it finds "tern" in
            "eastern" and "western". Otherwise whole words count.
    """
    species = species_of(label)
    if as_published:
        return int(any(name in species for name in _WATERBIRDS))
    return int(any(f"_{name}_" in f"_{species}_" for name in _WATERBIRDS))


@dataclass(frozen=True, slots=True)
class Assigned:
    """What the recipe decides for an image, apart from its background.

    Attributes:
        y: 0 landbird, 1 waterbird.
        split: 0 train, 1 val, 2 test.
        place: 0 land, 1 water.
    """

    y: int
    split: int
    place: int

    @property
    def group(self) -> int:
        """The group, 0..3; group_DRO, data/cub_dataset.py."""
        return 2 * self.y + self.place


def assign(
    birds: Mapping[str, int], in_train: Iterable[str], strength: float, validation: Number, water: Number
) -> dict[str, Assigned]:
    """Assign splits and places.

    Of CUB's training images `VAL_SHARE` become val. In train `strength` of the landbirds are on land and `strength` of
    the waterbirds on water; in val and test one half of each. Numbers of images are rounded, halves to the even one.

    Args:
        birds: key -> 0 or 1, of all images.
        in_train: the keys of those that are in CUB's own training split.
        strength: 0.5..1.
        validation, water: give each key its number, in the choice of val and of those on water.

    Returns:
        key -> what was assigned, in the order of `birds`.
    """
    training = set(in_train)
    val = lowest(training, VAL_SHARE, validation)
    split = {key: TEST if key not in training else VAL if key in val else TRAIN for key in birds}
    on_water: set[str] = set()
    for number in (TRAIN, VAL, TEST):
        for y, share in ((LANDBIRD, 1 - strength), (WATERBIRD, strength)):
            keys = [key for key in birds if split[key] == number and birds[key] == y]
            on_water |= lowest(keys, share if number == TRAIN else 0.5, water)
    return {key: Assigned(y, split[key], WATER if key in on_water else LAND) for key, y in birds.items()}


def groups(assigned: Iterable[Assigned]) -> dict[str, tuple[int, int, int, int]]:
    """Return split -> number of images of each group: landbirds on land, on water, waterbirds on land, on water."""
    counts = Counter((a.split, a.group) for a in assigned)
    found = {}
    for number, name in enumerate(SPLITS):
        a, b, c, d = (counts[number, group] for group in range(4))
        found[name] = (a, b, c, d)
    return found
