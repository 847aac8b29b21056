"""Images decoded in batches by a library that knows plain JPEGs only, and the CPU decoder for all others.

The library may refuse a batch because of one file in it. Then each of its files is tried alone, and what is refused
alone goes to the CPU decoder, which gives it the pixels or the error that it has under every decoder.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from fgfast.errors import DeviceFailedError, SampleError
from fgfast.io.decode import MAX_PIXELS, may_be_turned
from fgfast.io.jpeg_header import PlainJpeg, read_plain
from fgfast.records import Image, UInt8

if TYPE_CHECKING:
    from fgfast.io.decoders import Decoder

# At most so many pixels are decoded at once: 0.8 GB as RGB, so that a batch of huge images fits beside the models.
# Not less than MAX_PIXELS, for a batch cannot be smaller than one image.
BATCH_PIXELS = 2**28


class JpegLibrary(Protocol):
    """Decodes plain JPEGs, many at once."""

    def decode(self, files: Sequence[UInt8]) -> list[UInt8]:
        """Whole JPEG files, (n,) uint8 each, to (H, W, 3) uint8 RGB each, not turned. Any exception refuses them all.

        The library is usable again afterwards, as long as its device is.
        """
        ...

    def close(self) -> None: ...


class _Entry(NamedTuple):
    place: int
    data: bytes
    header: PlainJpeg


class BatchedDecoder:
    """A `Decoder` around a `JpegLibrary`. Threads may share it; the library is called by one at a time.

    Args:
        name: of the decoder.
        library: decodes the plain JPEGs; closed with the decoder.
        batch: images it is given at once, at most.
        others: the CPU decoder, for all other files; closed with the decoder.

    Attributes:
        counts: how many images went which way: "batched", "odd" (not plain, to the CPU), "refused" (plain, but
            the library would not; to the CPU).
    """

    def __init__(self, name: str, library: JpegLibrary, batch: int, others: Decoder) -> None:
        self.name = name
        self.batch = batch
        self.counts: Counter[str] = Counter()
        self._library = library
        self._others = others
        self._lock = threading.Lock()

    def __call__(self, files: Sequence[bytes], names: Sequence[str], turn_exif: bool) -> list[Image | SampleError]:
        """See `fgfast.io.decoders.Decoder`.

        Raises:
            DeviceFailedError: the library fails on an image that is known to be good: its device does not work any
                more.
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
        """Free what library and CPU decoder hold. The decoder is of no use afterwards."""
        with self._lock:
            self._library.close()
        self._others.close()

    def _decode(self, group: Sequence[_Entry]) -> list[UInt8 | None]:
        """The pixels of each; None for those that the library refuses."""
        try:
            return self._checked(group)
        except Exception as error:  # libraries raise many kinds; what is really broken shows on the known image
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
        """Raise unless the library still decodes per image that is known to be good."""
        try:
            self._library.decode([np.frombuffer(_known_good(), np.uint8)])
        except Exception:
            raise DeviceFailedError(
                f"the decoder {self.name} does not work any more; it fails on a good image too, and said: {cause}. "
                "Look at the device (fgfast doctor), or decode with --decoder cpu"
            ) from cause


def turned(pixels: UInt8, orientation: int) -> UInt8:
    """(H, W, 3) as stored -> as EXIF's orientation 1..8 shows it: (H, W, 3), or (W, H, 3) for 5 to 8.

    The same as Pillow's ImageOps.exif_transpose.
    """
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    # Which axes run backwards afterwards.
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(pixels[rows, columns])


def _plain(files: Sequence[bytes], turn_exif: bool) -> Iterator[_Entry]:
    """Those that the library may decode."""
    for place, data in enumerate(files):
        header = read_plain(data, exif=turn_exif and may_be_turned(data))
        if header is not None and header.orientation and header.width * header.height <= MAX_PIXELS:
            yield _Entry(place, data, header)


def _groups(entries: Sequence[_Entry], batch: int) -> Iterator[list[_Entry]]:
    """In order, at most `batch` images and `BATCH_PIXELS` pixels in each."""
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
