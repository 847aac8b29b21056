"""Boxes, points and strokes to masks for the review: the run's own SAM where its weights are here, else GrabCut.

The models work in processes of their own. Embeddings are made ahead, in the order in which the page asks for them, by
another process than the one that answers clicks: a click whose embedding is there never waits for one that is not.
"""

from __future__ import annotations

import base64
import binascii
import importlib.util
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fgfast import methods
from fgfast.errors import FgfastError, UsageError
from fgfast.machine import available_cores
from fgfast.models.files import weights
from fgfast.models.prompts import Prompts
from fgfast.records import Bool, Float32, Image
from fgfast.review.embeddings import MOST_BYTES, Embeddings, Load
from fgfast.review.newest import Newest
from fgfast.review.segmenter_process import SegmenterProcess

# Seconds after which a click's process counts as hung: sixty times what GrabCut takes for 20 megapixels, 0.4 to 1.0.
# Loading the model is not counted.
CLICK_SECONDS = 60.0
_GRABCUT, _SAM = "fgfast.models.seeds:segment", "fgfast.models.sam.prompting:masks"
# The decoded image of the last click is kept for the next one, unless it has more bytes than 20 megapixels have.
_KEPT_IMAGE = 64 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """Masks for what a person clicked.

    Attributes:
        masks: (H, W) bool each, at the size of the stored image, the best first.
        scores: the model's own estimate of each mask's IoU, 0..1; None where it gives none.
        previous: what the model wants to see again with the next click on the same image, as base64; empty for nothing.
    """

    masks: tuple[Bool, ...]
    scores: tuple[float | None, ...]
    previous: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """What a person clicked, for SAM; see `Segmenting.propose`."""

    box: Sequence[float] | Float32 | None
    points: Sequence[Sequence[float]]
    previous: str | None
    banner_rows: int


class Segmenting:
    """What makes masks from clicks; any thread may call.

    Attributes:
        name: of the segmenter, for people.
        reason: why it is this one, in a sentence.
        can: what it takes and does, of "box", "points", "strokes", "embed".
    """

    def __init__(self, spec: methods.ModelSpec | None, reason: str, most_bytes: int = MOST_BYTES) -> None:
        self._spec, self.reason = spec, reason
        self.name = "GrabCut" if spec is None else spec.name
        self.can = frozenset({"box", "points", "strokes"} | ({"embed"} if spec else set()))
        first: tuple[Any, ...] = ("fgfast.models.grabcut:check_opencv",)
        if spec is not None:
            first = ("fgfast.models.sam.prompting:load", spec, available_cores(), False)
        self._clicks = SegmenterProcess(self.name, first)
        self._embeddings = None if spec is None else Embeddings(spec, most_bytes)
        self._newest = Newest(self._embeddings.look if self._embeddings else lambda: None)
        self._image = _LastImage()

    @classmethod
    def start(cls, settings: Mapping[str, Any], most_bytes: int = MOST_BYTES) -> Segmenting:
        """Start the segmenter of a run.

        Args:
            settings: the run's fingerprint, from its ledger (`Twin.settings`); it may come from anybody.
            most_bytes: of embeddings that are kept.
        """
        return cls(*segmenter_of(settings), most_bytes)

    def propose(
        self,
        key: str,
        load: Load,
        box: Sequence[float] | Float32 | None = None,
        points: Sequence[Sequence[float]] = (),
        strokes: tuple[Bool | None, Bool | None] | None = None,
        previous: str | None = None,
        banner_rows: int = 0,
    ) -> Proposal:
        """Return masks for a box, points (x, y, label), or strokes (on the subject, on the background).

        Args:
            key: of the image. A call that still waits gives way to a later one for the same key.
            load: decodes the stored image; called where it is needed.
            box: x0 y0 x1 y1 in pixels of the stored image, its corners in any order.
            points: in pixels of the stored image; a label is 1 on the subject, 0 on the background.
            strokes: (H, W) bool each.
            previous: of the last proposal for this image, if it is to be refined.
            banner_rows: rows at the bottom that are never subject.

        Raises:
            UsageError: the prompts are refused; the message says which and why.
            SegmenterLostError: the model's process died; the next call has a new one.
            SupersededError: a later call for the same key came first.
            SampleError: `load`'s.
        """
        with self._newest.call(key) as check:
            if self._embeddings is not None and strokes is None:
                return self._decode(key, load, _Asked(box, points, previous, banner_rows), check)
            image = self._image.of(key, load)
            prompts = Prompts.of(image.size, box, points, strokes)
            arguments = image.pixels, prompts, banner_rows
            bits = self._clicks.call(_GRABCUT, *arguments, seconds=CLICK_SECONDS, check=check)
            return Proposal((bits,), (None,))

    def ready(self, key: str) -> bool:
        """Whether a click on this image is answered without looking at the whole image first."""
        return self._embeddings is None or key in self._embeddings

    def prepare(self, items: Iterable[tuple[str, Load]]) -> None:
        """Look at images ahead of clicks, in this order, in the background; an earlier call's rest is dropped."""
        if self._embeddings is not None:
            self._embeddings.prepare(items)

    def make(self, items: Iterable[tuple[str, Load]], looked: Callable[[int], bool] = lambda n: True) -> int:
        """Look at images before anybody clicks; return how many were looked at with success.

        Args:
            items: keys and what decodes their images. Where more are given than are kept, the first.
            looked: called with the number of images so far, now and then; says whether to go on.
        """
        return 0 if self._embeddings is None else self._embeddings.make(items, looked)

    @property
    def most(self) -> int:
        """Number of images that are remembered; 0 where nothing is looked at ahead."""
        return 0 if self._embeddings is None else self._embeddings.most

    def close(self) -> None:
        """End the processes."""
        self._clicks.close()
        if self._embeddings is not None:
            self._embeddings.close()

    def _decode(self, key: str, load: Load, asked: _Asked, check: Callable[[], None]) -> Proposal:
        """Return SAM's masks."""
        assert self._embeddings is not None
        earlier = _bytes_of(asked.previous) if asked.previous else None
        seen = self._embeddings.of(key, load, check)
        prompts = Prompts.of(seen.size, asked.box, asked.points)
        arguments = self._spec, seen.number, tuple(seen.size), prompts, earlier, asked.banner_rows
        found = self._clicks.call(_SAM, *arguments, seconds=CLICK_SECONDS, check=check, kept=seen.embedding)
        masks, scores, low_res = found
        return Proposal(tuple(masks), tuple(scores), base64.b64encode(low_res).decode("ascii"))

    def __enter__(self) -> Segmenting:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _bytes_of(previous: str) -> bytes:
    """Return the bytes of a mask that the page sends back; the model checks them."""
    try:
        return base64.b64decode(previous, validate=True)
    except (binascii.Error, ValueError):
        raise UsageError("the previous mask is no base64; leave it out to begin anew") from None


class _LastImage:
    """The image of the last click, decoded."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Image] = OrderedDict()

    def of(self, key: str, load: Load) -> Image:
        with self._lock:
            if (found := self._kept.get(key)) is not None:
                return found
        image = load()
        if image.pixels.nbytes <= _KEPT_IMAGE:
            with self._lock:
                self._kept.clear()
                self._kept[key] = image
        return image


def segmenter_of(settings: Mapping[str, Any]) -> tuple[methods.ModelSpec | None, str]:
    """Return the model that makes masks in a review of a run, None for GrabCut, and the reason in a sentence.

    Args:
        settings: the run's fingerprint; it may come from anybody, and names no file that would be opened.
    """
    name, given = settings.get("segmenter"), settings.get("model_weights", "cached")
    found = methods.find(name, "segmenter") if isinstance(name, str) else None
    if found is None or not found.is_model:
        return None, f"the run's segmenter, {name}, takes no clicks" if name != "grabcut" else "it is the run's"
    if importlib.util.find_spec("torch") is None:
        return None, f"the run's {found.name} needs PyTorch, which is not installed here"
    if isinstance(given, str) and methods.seed_of(given) is not None:
        return methods.ModelSpec(found.name, given), f"{found.name} is the run's, with random weights, for tests"
    if given != "cached":
        return None, f"the run's {found.name} had weights from a file, {given}, which the ledger does not locate"
    try:
        here = weights.find(found.weights) is not None
    except FgfastError as error:
        return None, f"the run's {found.name} cannot be used here: {error}"
    if not here:
        return None, f"the weights of the run's {found.name} are not here: fgfast models pull {found.weights}"
    return methods.ModelSpec(found.name), f"{found.name} is the run's"
