"""Batched decoding: a library decodes the plain JPEGs, the CPU decoder all other files.

The library may refuse a batch because of one file in it. Each file of that batch is then tried alone, and a file that
is refused alone goes to the CPU decoder, whose pixels or error every decoder gives.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from fgfast.errors import DeviceFailedError, SampleError
from fgfast.io.jpeg_header import PlainJpeg, read_plain
from fgfast.io.pixels import MAX_PIXELS, turned
from fgfast.records import Image, UInt8

if TYPE_CHECKING:
    from fgfast.io.decoders import Decoder

# Most pixels per batch: 0.8 GB as RGB, so that a batch of huge images fits beside the models. The limit must not be
# less than MAX_PIXELS, because a batch holds at least one image.
BATCH_PIXELS = 2**28


class JpegLibrary(Protocol):
    """Decodes batches of plain JPEGs."""

    def decode(self, files: Sequence[UInt8]) -> list[UInt8]:
        """Decode whole JPEG files, (n,) uint8 each, to (H, W, 3) uint8 RGB each, without the EXIF orientation.

        Any exception refuses the whole batch. The library stays usable after it, as long as its device does.
        """
        ...

    def close(self) -> None: ...


class _Entry(NamedTuple):
    place: int
    data: bytes
    header: PlainJpeg


class BatchedDecoder:
    """A `Decoder` around a `JpegLibrary`. It is thread-safe: one thread at a time calls the library.

    Args:
        name: the decoder's name.
        library: decodes the plain JPEGs; `close` closes it.
        batch: most images per call of the library.
        others: the CPU decoder, for all other files; `close` closes it.

    Attributes:
        counts: number of images per path: "batched" (by the library), "odd" (not plain: on the CPU), "refused" (plain,
            but refused by the library: on the CPU).
    """

    def __init__(self, name: str, library: JpegLibrary, batch: int, others: Decoder) -> None:
        self.name = name
        self.batch = batch
        self.counts: Counter[str] = Counter()
        self._library = library
        self._others = others
        self._lock = threading.Lock()

    def __call__(self, files: Sequence[bytes], names: Sequence[str], turn_exif: bool) -> list[Image | SampleError]:
        """Decode files as `fgfast.io.decoders.Decoder` describes.

        Raises:
            DeviceFailedError: the library fails on a known good image, so its device no longer works.
        """
        results: list[Image | SampleError | None] = [None] * len(files)
        plain = list(_plain(files, turn_exif))
        for group in _groups(plain, self.batch):
            with self._lock:
                decoded = self._decode(group)
            for entry, pixels in zip(group, decoded, strict=True):
                if pixels is not None:
                    results[entry.place] = Image(turned(pixels, entry.header.orientation or 1))
        left = [place for place, result in enumerate(results) if result is None]
        odd = len(files) - len(plain)
        with self._lock:
            self.counts.update(batched=len(files) - len(left), odd=odd, refused=len(left) - odd)
        alone = self._others([files[n] for n in left], [names[n] for n in left], turn_exif)
        for place, outcome in zip(left, alone, strict=True):
            results[place] = outcome
        return [result for result in results if result is not None]

    def close(self) -> None:
        """Close the library and the CPU decoder. The decoder cannot be used afterwards."""
        with self._lock:
            self._library.close()
        self._others.close()

    def _decode(self, group: Sequence[_Entry]) -> list[UInt8 | None]:
        """Decode each entry; None for those that the library refuses."""
        try:
            return self._checked(group)
        except Exception as error:  # libraries raise many kinds; a known good image tells bad files from bad devices
            if len(group) > 1:
                return [self._decode([entry])[0] for entry in group]
            self._expect_to_work(error)
            return [None]

    def _checked(self, group: Sequence[_Entry]) -> list[UInt8 | None]:
        decoded = self._library.decode([np.frombuffer(e.data, np.uint8, e.header.end) for e in group])
        if len(decoded) != len(group):
            raise ValueError(f"{self.name} gave {len(decoded)} images for {len(group)} files")
        sizes = [(e.header.height, e.header.width, 3) for e in group]
        return [pixels if pixels.shape == size else None for pixels, size in zip(decoded, sizes, strict=True)]

    def _expect_to_work(self, cause: Exception) -> None:
        """Raise unless the library still decodes a known good image."""
        try:
            self._library.decode([np.frombuffer(_known_good(), np.uint8)])
        except Exception:
            raise DeviceFailedError(
                f"the decoder {self.name} no longer works; it fails even on a known good image: {cause}. "
                "Check the device (fgfast doctor), or decode with --decoder cpu"
            ) from cause


def header_for_library(data: bytes, turn_exif: bool) -> PlainJpeg | None:
    """Return the header of a file that a `JpegLibrary` may decode; None for a file that the CPU decoder gets."""
    header = read_plain(data, exif=turn_exif)
    if header is None or not header.orientation or header.width * header.height > MAX_PIXELS:
        return None
    return header


def _plain(files: Sequence[bytes], turn_exif: bool) -> Iterator[_Entry]:
    """Yield the files that the library may decode."""
    for place, data in enumerate(files):
        if (header := header_for_library(data, turn_exif)) is not None:
            yield _Entry(place, data, header)


def _groups(entries: Sequence[_Entry], batch: int) -> Iterator[list[_Entry]]:
    """Split entries, in order, into groups of at most `batch` images and `BATCH_PIXELS` pixels."""
    group: list[_Entry] = []
    total = 0
    for entry in entries:
        size = entry.header.width * entry.header.height
        if group and (len(group) == batch or total + size > BATCH_PIXELS):
            yield group
            group, total = [], 0
        group.append(entry)
        total += size
    if group:
        yield group


def _known_good() -> bytes:
    import simplejpeg

    return bytes(simplejpeg.encode_jpeg(np.full((16, 16, 3), 128, np.uint8)))
