"""What of a sample is shown to a classifier: the arms of a study, at the stored size, before any resize.

Mixed arms and backgrounds follow ImageNet-9 (Xiao, Engstrom, Ilyas, Madry, Noise or Signal, arXiv 2006.09994). A
background comes from another image of the same split, whose own subject's box is tiled over first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, get_args

import numpy as np

from fgfast import ops, seeds
from fgfast.errors import UnknownNameError, UsageError
from fgfast.ops.background import blurred_background, cover
from fgfast.ops.filling import MARGIN, box_to_fill, share, tiled, widened
from fgfast.ops.matting import feathered, interior, mixed
from fgfast.pools import Pools
from fgfast.records import UInt8
from fgfast.studies.cell import Arm
from fgfast.studies.pairs import Pair, Pairs

FILLS = ("black", "mean", "blur", "noise")
"""What takes the background's place where it is masked."""
MOST_FILLED = 0.6
"""Largest share of an image that is filled; where the subject's box is larger, the image is no background."""
FEATHER = 4.0
"""Width of the soft edge in pixels of the stored image, as `fgfast expand RUN backgrounds` has it by default."""
_MIXED = ("mixed-same", "mixed-rand", "mixed-next")


@dataclass(frozen=True, slots=True)
class Fill:
    """What takes the background's place.

    Attributes:
        name: of `FILLS`.
        colour: the model's mean colour, three levels of 0..255; for "mean".
        seed: for "noise".
    """

    name: str = "black"
    colour: tuple[int, int, int] = (124, 116, 104)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in FILLS:
            raise UnknownNameError("fill", self.name, FILLS)

    def over(self, pair: Pair, key: str) -> UInt8:
        """Return an image, (H, W, 3) uint8, whose background is filled; its subject's pixels stay as they are."""
        pixels, mask = pair
        if self.name == "blur":
            return ops.composite(pixels, mask, blurred_background(pixels, mask))
        if self.name == "noise":
            noise = seeds.generator(self.seed, "noise", key).integers(0, 256, pixels.shape, dtype=np.uint8)
            return ops.composite(pixels, mask, noise)
        colour = self.colour if self.name == "mean" else (0, 0, 0)
        return ops.composite(pixels, mask, np.array(colour, np.uint8))


class Shows(Protocol):
    """Shows samples; it is pickled for processes that load them."""

    @property
    def pairs(self) -> Pairs: ...

    def show(self, arm: Arm, n: int) -> Pair: ...


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """Shows samples as arms; it is pickled for processes that load them.

    Attributes:
        pairs: the samples.
        seed: of the choice of backgrounds.
        fill: of the arm x_fg.
    """

    pairs: Pairs
    seed: int = 0
    fill: Fill = field(default_factory=Fill)
    _place: dict[str, int] = field(init=False, repr=False)
    _filled: list[float] = field(init=False, repr=False)
    _pools: Pools = field(init=False, repr=False)

    def __post_init__(self) -> None:
        pairs = self.pairs
        filled = [
            share(widened((x0, y0, x1, y1), MARGIN, size), size)
            for (x0, y0, x1, y1), size in zip(pairs.boxes.tolist(), pairs.sizes, strict=True)
        ]
        groups = {}
        for n, key in enumerate(pairs.keys):
            if filled[n] <= MOST_FILLED:
                groups[key] = ((pairs.splits[n], None), (pairs.splits[n], int(pairs.labels[n])))
        object.__setattr__(self, "_place", {key: n for n, key in enumerate(pairs.keys)})
        object.__setattr__(self, "_filled", filled)
        object.__setattr__(self, "_pools", Pools(groups, _Numbers(self.seed)))

    def show(self, arm: Arm, n: int) -> Pair:
        """Return what an arm shows of a sample, and the subject's mask in it.

        Raises:
            UsageError: the sample has no such arm; see `without`.
            SampleError: an image's file is missing, has changed, or cannot be decoded.
        """
        if why := self.without(arm, n):
            raise UsageError(f"{self.pairs.keys[n]} has no {arm}: {why}")
        pair = self.pairs.pair(n)
        if arm == "x":
            return pair
        if arm == "x_fg":
            return Pair(self.fill.over(pair, self.pairs.keys[n]), pair.mask)
        if arm == "x-box":
            x0, y0, x1, y1 = self.pairs.boxes[n].tolist()
            return Pair(pair.pixels[y0:y1, x0:x1].copy(), pair.mask[y0:y1, x0:x1].copy())
        if arm == "only-bg":
            return Pair(tiled(pair.pixels, box_to_fill(pair.mask)), pair.mask)
        found = self.partner(arm, n)
        assert found is not None
        other = self.pairs.pair(found)
        height, width = pair.mask.shape
        background = cover(tiled(other.pixels, box_to_fill(other.mask)), width, height)
        alpha = feathered(pair.mask, FEATHER)
        front, _ = interior(pair.pixels, alpha)
        return Pair(mixed(front, alpha, background), pair.mask)

    def partner(self, arm: Arm, n: int) -> int | None:
        """Return the sample that gives a sample its background in a mixed arm; None where there is none."""
        pairs = self.pairs
        label = int(pairs.labels[n])
        wanted = {"mixed-same": label, "mixed-rand": None, "mixed-next": (label + 1) % len(pairs.classes)}[arm]
        found = self._pools.draw((pairs.splits[n], wanted), pairs.keys[n])
        return None if found is None else self._place[found]

    def without(self, arm: Arm, n: int) -> str:
        """Say why a sample has no such arm; empty where it has.

        A sample without mixed-same has no mixed-rand either, so that both are of the same images.
        """
        if arm not in get_args(Arm):
            raise UnknownNameError("arm", arm, get_args(Arm))
        if arm == "only-bg" and self._filled[n] > MOST_FILLED:
            return f"its subject's box covers {self._filled[n]:.3f} of the image, more than {MOST_FILLED:g}"
        if arm in _MIXED:
            needed: tuple[Arm, ...] = ("mixed-next",) if arm == "mixed-next" else ("mixed-same", "mixed-rand")
            if any(self.partner(one, n) is None for one in needed):
                return "no other image of its split can be its background"
        return ""


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Numbers of names under a seed; a class, because it is pickled."""

    seed: int

    def __call__(self, *names: str) -> int:
        return seeds.number(self.seed, "backgrounds", *names)
