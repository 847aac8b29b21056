"""The images of one entry: read, drawn and kept."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from fgfast import ops
from fgfast.errors import FgfastError, SampleError
from fgfast.io.decode import read_bytes
from fgfast.io.draft import cut_out, draft
from fgfast.records import Bool, Outcome, UInt8
from fgfast.review import images
from fgfast.review.images import Encoded, Kept
from fgfast.review.items import stamp
from fgfast.review.reading import Reading

# Bytes of encoded images that are kept: some 4,000 thumbnails.
_KEPT = 32 << 20
# Pixels above which an image is decoded alone: eight of the largest would take 4 GB.
_LARGE = 30_000_000


class EntryImages:
    """The images of all entries, as the page asks for them; for all threads.

    Args:
        read: calls a method of `Reading` in its thread.
        twin: an open `fgfast.pipeline.twin.Twin`, of which only paths and settings are used.
    """

    def __init__(self, read: Callable[..., Future[Any]], twin: Any) -> None:
        self._read, self._twin = read, twin
        self._kept, self._alone = Kept(_KEPT), threading.Lock()

    def image(self, number: int, kind: str, side: int) -> tuple[Encoded, str]:
        """Return an image of an entry, and the entry's stamp.

        Raises:
            UsageError: there is no such entry.
            SampleError: its file is gone or damaged.
        """
        record = self._read(Reading.record, number).result()
        mark = stamp(record.outcome, record.revision)
        return self._kept.get((number, kind, side, mark), lambda: self._drawn(record.outcome, kind, side)), mark

    def _drawn(self, o: Outcome, kind: str, side: int) -> Encoded:
        large = bool(o.size) and o.size.height * o.size.width > _LARGE  # type: ignore[union-attr]
        with self._alone if large else contextlib.nullcontext():
            if kind == "result":
                return images.result(self._result_bytes(o), o.key, side)
            if kind == "source":
                return images.source(*self._source_bytes(o), side)
            return images.outline(self._under_outline(o, side), mask_of(o), side)

    def _under_outline(self, o: Outcome, side: int) -> UInt8:
        try:
            data, name, turn = self._source_bytes(o)
            return draft(data, name, turn, side)[0]
        except FgfastError:
            if o.size is None:
                raise
            twin = None
            with contextlib.suppress(SampleError):
                twin = cut_out(self._result_bytes(o), o.key)
            return images.without_source(o.size, twin, o.offset, side)

    def _source_bytes(self, o: Outcome) -> tuple[bytes, str, bool]:
        """Return the content of the stored image, its name, and whether its EXIF orientation is applied."""
        twin = self._twin
        return read_bytes(twin.path(o.key)), o.key, bool(twin.turn_exif)

    def _result_bytes(self, o: Outcome) -> bytes:
        path = self._twin.result(o)
        if path is None:
            raise SampleError("not written", f"{o.key} has no written image")
        return read_bytes(path)


def mask_of(o: Outcome) -> Bool | None:
    """Return the mask of an outcome, (H, W) bool; None where it has none."""
    if o.rle is None or o.size is None:
        return None
    return ops.rle_decode(o.rle, *o.size)
