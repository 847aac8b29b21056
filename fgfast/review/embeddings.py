"""What SAM's encoder saw in the images of a review, kept for clicks, and made ahead of them."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fgfast.errors import FgfastError, ImageRefusedError, SegmenterLostError
from fgfast.machine import available_cores
from fgfast.methods import ModelSpec
from fgfast.models.sam.architecture import architecture
from fgfast.records import Image, Size
from fgfast.review.segmenter_process import SegmenterProcess

_LOAD, _EMBED = "fgfast.models.sam.prompting:load", "fgfast.models.sam.prompting:embed_all"
log = logging.getLogger("fgfast")

# Bytes of embeddings that are kept: 256 images of 2 MB, more than a person mends between two breaks.
MOST_BYTES = 512 << 20
# Seconds after which an encoder counts as hung. ViT-H has 2.8e12 multiplications: 43 s at the 65e9 a second of two
# cores (measured on the decoder's products); ten times that, for slower and busier ones, and to load 2.5 GB.
_SECONDS = 430.0
# Deaths in a row after which nothing is made ahead until somebody asks again: the next image would kill it, too.
_DEATHS = 3

# Images that are encoded together beforehand: of 20 megapixels each, they have 240 MB.
_TOGETHER = 4

Load = Callable[[], Image]


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What the encoder saw in an image.

    Attributes:
        number: of this embedding alone, among all of a review.
        embedding: see `fgfast.models.sam.prompting.embed`.
        size: of the image.
    """

    number: int
    embedding: bytes
    size: Size


class Embeddings:
    """Embeddings by key; any thread may ask.

    One image is encoded at a time. A click that waits for one comes before what is made ahead.

    Args:
        spec: of a SAM.
        most_bytes: kept; the ones used longest ago go first.
    """

    def __init__(self, spec: ModelSpec, most_bytes: int = MOST_BYTES) -> None:
        self._spec, self._most = spec, most_bytes
        self._each = architecture(spec.name.removeprefix("sam_")).embedding_bytes
        self._process = SegmenterProcess(spec.name, (_LOAD, spec, available_cores(), True))
        self._kept: OrderedDict[str, Seen] = OrderedDict()
        self._bytes = 0
        self._numbers = itertools.count(1)
        self._state = threading.Condition()
        self._encoding, self._clicks = False, 0
        self._wanted: deque[tuple[str, Load]] = deque()
        self._closed = False
        threading.Thread(target=self._work, name="embedding ahead", daemon=True).start()

    def __contains__(self, key: str) -> bool:
        with self._state:
            return key in self._kept

    @property
    def bytes_kept(self) -> int:
        """Bytes of all embeddings that are kept."""
        return self._bytes

    @property
    def most(self) -> int:
        """Number of embeddings that are kept at once."""
        return max(1, self._most // self._each)

    def look(self) -> None:
        """Let clicks that wait see whether they are still wanted."""
        with self._state:
            self._state.notify_all()

    def of(self, key: str, load: Load, check: Callable[[], None] = lambda: None) -> Seen:
        """Return an image's embedding; it is made where it is not kept.

        Args:
            key: of the image.
            load: decodes it.
            check: raises where the click is no longer wanted; called while it waits, after each `look`.

        Raises:
            SegmenterLostError: the encoder died of it, or was closed.
            FgfastError: `load`'s, the model's own, and `check`'s.
        """
        with self._state:
            self._clicks += 1
            try:
                if (found := self._awaited(key, check)) is not None:
                    return found
            finally:
                self._clicks -= 1
                self._state.notify_all()
        found = self._encode(key, load)
        check()
        return found

    def _awaited(self, key: str, check: Callable[[], None]) -> Seen | None:
        """Wait until an image's embedding is there, or, for None, until it is this thread's turn to make it."""
        while True:
            check()
            if (found := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return found
            if not self._encoding:
                self._encoding = True
                return None
            self._state.wait()

    def _encode(self, key: str, load: Load) -> Seen:
        """Make an embedding, in this thread's turn, which then ends."""
        try:
            image = load()
            (embedding,) = self._process.call(_EMBED, self._spec, [image.pixels], seconds=_SECONDS)
            if embedding is None:
                height, width = image.size
                raise ImageRefusedError(
                    "too thin", f"{key} has {width}x{height} pixels, too thin for {self._spec.name}; use brush or lasso"
                )
            return self._keep(key, embedding, image.size)
        finally:
            self._end_turn()

    def _end_turn(self) -> None:
        with self._state:
            self._encoding = False
            self._state.notify_all()

    def make(self, items: Iterable[tuple[str, Load]], looked: Callable[[int], bool]) -> int:
        """Make embeddings before anybody clicks, several at once, no more than are kept; return how many there are.

        Args:
            items: keys and what decodes their images; one that cannot be decoded is left out.
            looked: called with the number of images looked at so far; says whether to go on.
        """
        made = count = 0
        rest = itertools.islice(items, self.most)
        while group := list(itertools.islice(rest, _TOGETHER)):
            made += self._make_group(group)
            count += len(group)
            if not looked(count):
                break
        return made

    def _make_group(self, group: list[tuple[str, Load]]) -> int:
        images = {}
        for key, load in group:
            with contextlib.suppress(FgfastError):
                images[key] = load()
        if not images:
            return 0
        with self._state:
            while self._encoding:
                self._state.wait()
            self._encoding = True
        try:
            pixels = [image.pixels for image in images.values()]
            found = self._process.call(_EMBED, self._spec, pixels, seconds=_SECONDS * len(pixels))
        except SegmenterLostError as error:
            log.warning("%s", error)
            return 0
        finally:
            self._end_turn()
        made = [(key, data) for key, data in zip(images, found, strict=True) if data is not None]
        for key, data in made:
            self._keep(key, data, images[key].size)
        return len(made)

    def prepare(self, items: Iterable[tuple[str, Load]]) -> None:
        """Make embeddings in this order, in the background; what an earlier call still wanted is dropped.

        No more are made than are kept at once.
        """
        with self._state:
            self._wanted = deque(itertools.islice(items, self.most))
            self._state.notify_all()

    def close(self) -> None:
        """End the encoder; forget everything."""
        with self._state:
            self._closed = True
            self._wanted.clear()
            self._kept.clear()
            self._bytes = 0
            self._state.notify_all()
        self._process.close()

    def _keep(self, key: str, embedding: bytes, size: Size) -> Seen:
        seen = Seen(next(self._numbers), embedding, size)
        with self._state:
            if self._closed:
                return seen
            if (before := self._kept.pop(key, None)) is not None:
                self._bytes -= len(before.embedding)
            self._kept[key] = seen
            self._bytes += len(embedding)
            while self._bytes > self._most and len(self._kept) > 1:
                self._bytes -= len(self._kept.popitem(last=False)[1].embedding)
        return seen

    def _next(self) -> tuple[str, Load] | None:
        """Wait for an image to encode ahead, and for a turn that no click waits for; None at the end."""
        with self._state:
            while not self._closed:
                while self._wanted and self._wanted[0][0] in self._kept:
                    self._wanted.popleft()
                if self._wanted and not self._encoding and not self._clicks:
                    self._encoding = True
                    return self._wanted.popleft()
                self._state.wait()
        return None

    def _work(self) -> None:
        deaths = 0
        while True:
            if (wanted := self._next()) is None:
                return
            key, load = wanted
            try:
                self._encode(key, load)
                deaths = 0
            except SegmenterLostError:
                deaths += 1
            except FgfastError as error:
                log.debug("%s is not looked at ahead: %s", key, error)
            except Exception:
                log.exception("%s is not looked at ahead", key)
            if deaths == _DEATHS:
                deaths = 0
                with self._state:
                    self._wanted.clear()
