"""What SAM's encoder saw in the images of a review, kept for clicks, and made ahead of them."""

from __future__ import annotations

import itertools
import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable

from fgfast.errors import FgfastError, SegmenterLostError
from fgfast.machine import available_cores
from fgfast.methods import ModelSpec
from fgfast.models.sam.architecture import architecture
from fgfast.records import Image, Size
from fgfast.review.segmenter_process import SegmenterProcess

_LOAD, _EMBED = "fgfast.models.sam.prompting:load", "fgfast.models.sam.prompting:embed"
log = logging.getLogger("fgfast")

# Bytes of embeddings that are kept: 256 images of 2 MB, more than a person mends between two breaks.
MOST_BYTES = 512 << 20
# Seconds after which an encoder counts as hung: far more than the largest needs on two cores, loading included.
_SECONDS = 180.0
# Deaths in a row after which nothing is made ahead until somebody asks again: the next image would kill it, too.
_DEATHS = 3

Load = Callable[[], Image]


class Embeddings:
    """Embeddings by key; any thread may ask.

    Args:
        spec: of a SAM.
        most_bytes: kept; the ones used longest ago go first.
    """

    def __init__(self, spec: ModelSpec, most_bytes: int = MOST_BYTES) -> None:
        self._spec, self._most = spec, most_bytes
        self._each = architecture(spec.name.removeprefix("sam_")).embedding_bytes
        self._process = SegmenterProcess(spec.name, (_LOAD, spec, available_cores(), True))
        self._kept: OrderedDict[str, tuple[bytes, Size]] = OrderedDict()
        self._bytes = 0
        self._state, self._encoding = threading.Condition(), threading.Lock()
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

    def of(self, key: str, load: Load) -> tuple[bytes, Size]:
        """Return an image's embedding and its size; it is made where it is not kept.

        Raises:
            SegmenterLostError: the encoder died of it.
            FgfastError: `load`'s and the model's own.
        """
        if (found := self._find(key)) is not None:
            return found
        with self._encoding:
            if (found := self._find(key)) is not None:  # made while this waited
                return found
            image = load()
            embedding = self._process.call(_EMBED, self._spec, image.pixels, seconds=_SECONDS)
            self._keep(key, (embedding, image.size))
            return embedding, image.size

    def prepare(self, items: Iterable[tuple[str, Load]]) -> None:
        """Make embeddings in this order, in the background; what an earlier call still wanted is dropped.

        No more are made than are kept at once.
        """
        with self._state:
            self._wanted = deque(itertools.islice(items, max(1, self._most // self._each)))
            self._state.notify()

    def close(self) -> None:
        """End the encoder; forget everything."""
        with self._state:
            self._closed = True
            self._wanted.clear()
            self._kept.clear()
            self._bytes = 0
            self._state.notify()
        self._process.close()

    def _find(self, key: str) -> tuple[bytes, Size] | None:
        with self._state:
            if (found := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
            return found

    def _keep(self, key: str, made: tuple[bytes, Size]) -> None:
        with self._state:
            if self._closed:
                return
            self._kept[key] = made
            self._bytes += len(made[0])
            while self._bytes > self._most and len(self._kept) > 1:
                self._bytes -= len(self._kept.popitem(last=False)[1][0])

    def _work(self) -> None:
        deaths = 0
        while True:
            with self._state:
                while not self._wanted and not self._closed:
                    self._state.wait()
                if self._closed:
                    return
                key, load = self._wanted.popleft()
            try:
                self.of(key, load)
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
