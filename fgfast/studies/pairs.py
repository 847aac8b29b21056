"""Pairs of image and mask: what a study is trained and tested on.

They come from a run of convert, whose masks are those of its ledger, corrections included; or from arrays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fgfast import ops
from fgfast.data_paths import DataPath
from fgfast.errors import ImageBrokenError, UnknownNameError, UsageError
from fgfast.files import FileStamp
from fgfast.io.decode import decode, read_bytes
from fgfast.io.stamps import states
from fgfast.ops.geometry import mask_box
from fgfast.ops.runs import boxes_and_areas
from fgfast.pipeline.twin import Twin
from fgfast.records import Bool, Outcome, Size, UInt8

Boxes = NDArray[np.int64]
FLAGGED = ("use", "skip")


class Pair(NamedTuple):
    """A stored image, (H, W, 3) uint8 RGB, and its mask, (H, W) bool."""

    pixels: UInt8
    mask: Bool


class Pairs(Protocol):
    """Images with masks and labels; it is pickled for processes that load them.

    Attributes:
        keys: of the images, each once, (N,).
        classes: names by index.
        labels: index of the class, (N,) int64.
        splits: "train", "test", ...; (N,).
        boxes: tight boxes of the masks, (N, 4) int64, x0 y0 x1 y1, right and bottom exclusive.
        sizes: height and width of the stored images, (N,).
        digest: SHA-256 of all that a result depends on: keys, labels, splits, masks, images.
    """

    @property
    def keys(self) -> tuple[str, ...]: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def labels(self) -> NDArray[np.int64]: ...
    @property
    def splits(self) -> tuple[str, ...]: ...
    @property
    def boxes(self) -> Boxes: ...
    @property
    def sizes(self) -> tuple[Size, ...]: ...
    @property
    def digest(self) -> str: ...

    def pair(self, n: int, /) -> Pair:
        """Return the pair with a number.

        Raises:
            SampleError: the image's file is missing, has changed, or cannot be decoded.
        """


@dataclass(frozen=True, slots=True, eq=False)
class RunPairs:
    """The pairs of a run of convert: stored images, and the masks of its ledger; see `Pairs`.

    Attributes:
        left_out: key -> why it is no pair, of the run's other samples.
    """

    keys: tuple[str, ...]
    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    splits: tuple[str, ...]
    boxes: Boxes
    sizes: tuple[Size, ...]
    digest: str
    left_out: dict[str, str]
    _rles: tuple[bytes, ...]
    _paths: tuple[DataPath, ...]
    _sha256: tuple[bytes, ...]
    _turn_exif: bool

    @classmethod
    def of(cls, twin: Twin, flagged: str = "use") -> RunPairs:
        """Take the pairs of a run.

        Args:
            twin: the run.
            flagged: whether samples whose masks the run flagged are used: "use" or "skip".

        Raises:
            UsageError: no sample has a mask, a label and its image; or there is one class only.
        """
        if flagged not in FLAGGED:
            raise UnknownNameError("flagged", flagged, FLAGGED)
        labels, splits = twin.labels(), twin.splits()
        left_out: dict[str, str] = {}
        found: list[tuple[Outcome, Boxes]] = []
        for outcome in twin.entries():
            mask = _box_of(outcome, flagged) if labels.get(outcome.key) else "it has no class"
            if isinstance(mask, str):
                left_out[outcome.key] = mask
            else:
                found.append((outcome, mask))
        changed = _changed(twin, [outcome for outcome, _ in found])
        left_out |= changed
        found = [(outcome, box) for outcome, box in found if outcome.key not in changed]
        classes = tuple(sorted({labels[outcome.key] for outcome, _ in found}))
        if len(classes) < 2:
            some = next(iter(left_out.values()), "the run has none")
            raise UsageError(
                f"{twin.out} has {len(found):,} images with a mask, of {len(classes)} classes; a study needs two "
                f"classes or more" + (f" ({len(left_out):,} are left out; the first, because {some})" * bool(left_out))
            )
        index = {name: n for n, name in enumerate(classes)}
        outcomes = [outcome for outcome, _ in found]
        keys = tuple(outcome.key for outcome in outcomes)
        rles = tuple(outcome.rle or b"" for outcome in outcomes)
        hashes = tuple(outcome.source.sha256 if outcome.source else b"" for outcome in outcomes)
        digest = hashlib.sha256()
        for key, rle, content in zip(keys, rles, hashes, strict=True):
            text = "\0".join((key, labels[key], splits.get(key, "")))
            digest.update(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest())
            digest.update(hashlib.sha256(rle).digest() + content)
        return cls(
            keys=keys,
            classes=classes,
            labels=np.array([index[labels[key]] for key in keys], np.int64),
            splits=tuple(splits.get(key, "") for key in keys),
            boxes=np.stack([box for _, box in found]),
            sizes=tuple(outcome.size for outcome in outcomes if outcome.size is not None),
            digest=digest.hexdigest(),
            left_out=left_out,
            _rles=rles,
            _paths=tuple(twin.path(key) for key in keys),
            _sha256=hashes,
            _turn_exif=twin.turn_exif,
        )

    def relabelled(self, classes: Sequence[str], label_of: Mapping[str, str]) -> RunPairs:
        """Return these pairs with other classes: those of `classes`, by key; samples without one are left out."""
        index = {name: n for n, name in enumerate(classes)}
        there = [n for n, key in enumerate(self.keys) if label_of.get(key) in index]
        labels = np.array([index[label_of[self.keys[n]]] for n in there], np.int64)
        return replace(self._some(there), classes=tuple(classes), labels=labels)

    def divided(self, train: NDArray[np.int64], test: NDArray[np.int64]) -> RunPairs:
        """Return these pairs with the splits of a study: "train", "test", and none for all others."""
        splits = np.full(len(self.keys), "", object)
        splits[train], splits[test] = "train", "test"
        return replace(self, splits=tuple(splits.tolist()))

    def masked_by(self, others: RunPairs, name_of: Mapping[str, str]) -> RunPairs:
        """Return these pairs with the masks of others; samples without one of the same size are left out.

        Args:
            others: have the masks.
            name_of: key -> key among the others.
        """
        place = {key: n for n, key in enumerate(others.keys)}
        found = {n: place[name_of[key]] for n, key in enumerate(self.keys) if name_of.get(key) in place}
        there = [n for n, m in found.items() if self.sizes[n] == others.sizes[m]]
        rles = tuple(others._rles[found[n]] for n in there)
        boxes = others.boxes[[found[n] for n in there]] if there else np.zeros((0, 4), np.int64)
        digest = hashlib.sha256(f"{self.digest}{others.digest}".encode()).hexdigest()
        return replace(self._some(there), _rles=rles, boxes=boxes, digest=digest)

    def _some(self, there: Sequence[int]) -> RunPairs:
        def of(values: Sequence[Any]) -> tuple[Any, ...]:
            return tuple(values[n] for n in there)

        return replace(
            self,
            keys=of(self.keys),
            labels=self.labels[list(there)],
            splits=of(self.splits),
            boxes=self.boxes[list(there)],
            sizes=of(self.sizes),
            digest=hashlib.sha256("\0".join((self.digest, *of(self.keys))).encode("utf-8", "replace")).hexdigest(),
            _rles=of(self._rles),
            _paths=of(self._paths),
            _sha256=of(self._sha256),
        )

    def pair(self, n: int, /) -> Pair:
        """Return the pair with a number; see `Pairs`."""
        data = read_bytes(self._paths[n])
        if hashlib.sha256(data).digest() != self._sha256[n]:
            raise ImageBrokenError("changed", f"{self.keys[n]} has changed since the run; run convert again")
        image = decode(data, self.keys[n], self._turn_exif)
        size = self.sizes[n]
        return Pair(image.pixels, ops.rle_decode(self._rles[n], size.height, size.width))


@dataclass(frozen=True, slots=True, eq=False)
class ArrayPairs:
    """Pairs in memory; see `Pairs`."""

    keys: tuple[str, ...]
    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    splits: tuple[str, ...]
    boxes: Boxes
    sizes: tuple[Size, ...]
    digest: str
    _images: Sequence[UInt8]
    _masks: Sequence[Bool]

    @classmethod
    def of(
        cls,
        keys: Sequence[str],
        classes: Sequence[str],
        labels: Sequence[int] | NDArray[np.int64],
        splits: Sequence[str],
        images: Sequence[UInt8],
        masks: Sequence[Bool],
    ) -> ArrayPairs:
        """Make pairs of images, (H, W, 3) uint8 each, and masks, (H, W) bool each.

        Raises:
            UsageError: a mask is empty, or of another size than its image.
        """
        digest, boxes = hashlib.sha256("\0".join((*keys, *classes, *splits)).encode()), []
        digest.update(np.asarray(labels, np.int64).tobytes())
        for key, image, mask in zip(keys, images, masks, strict=True):
            box = mask_box(mask)
            if box is None or image.shape[:2] != mask.shape:
                raise UsageError(f"the mask of {key} is empty, or not of the image's size")
            boxes.append(box.astype(np.int64))
            digest.update(image.tobytes() + mask.tobytes())
        sizes = tuple(Size(image.shape[0], image.shape[1]) for image in images)
        found = np.asarray(labels, np.int64)
        return cls(
            tuple(keys), tuple(classes), found, tuple(splits), np.stack(boxes), sizes, digest.hexdigest(), images, masks
        )

    def pair(self, n: int, /) -> Pair:
        """Return the pair with a number."""
        return Pair(self._images[n], self._masks[n])


def _box_of(outcome: Outcome, flagged: str) -> Boxes | str:
    """Return the box of an outcome's mask, (4,), or why it is no pair."""
    if outcome.twin is None:
        return f"the run {'skipped it' if outcome.status == 'skipped' else 'failed on it'}"
    if outcome.status == "flagged" and flagged == "skip":
        return "its mask is flagged"
    if outcome.rle is None or outcome.size is None or outcome.source is None:
        return "the run's ledger has no mask of it"
    try:
        boxes, areas = boxes_and_areas([outcome.rle], [outcome.size])
    except ValueError as error:
        return f"its mask in the run's ledger is damaged ({error})"
    return boxes[0] if areas[0] else "its mask is empty"


_WHY = {
    "missing": "its file is not there any more",
    "differs": "its file has changed since the run",
    "unreadable": "its file cannot be read",
}


def _changed(twin: Twin, outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Return key -> why, of the samples whose file is no longer the one that the run read."""
    files: list[tuple[str, DataPath, FileStamp]] = [
        (outcome.key, twin.path(outcome.key), outcome.source) for outcome in outcomes if outcome.source is not None
    ]
    return {key: _WHY[state] for key, state in states(iter(files), read=False) if state != "same"}
