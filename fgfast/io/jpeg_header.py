"""The structure of a JPEG file, read without decoding it.

Decoders other than libjpeg-turbo and Pillow get *plain* JPEGs only: those of which all decoders agree what the pixels
are, in files whose structure is intact. Every other file is *odd* and goes to the CPU decoder. A plain JPEG

* has 8 bits per sample and is baseline or progressive, Huffman-coded;
* is grey, or Y Cb Cr with chroma at full, half or quarter resolution (4:4:4, 4:2:2, 4:4:0, 4:2:0);
* shows no damage that can be found without decoding the Huffman code: its segments are in order, each progressive scan
  refines the earlier ones until all bits are present, its restart markers are complete, and it has an end marker.

Marker codes and field offsets are from ITU-T T.81 (JPEG), annex B.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import cycle, islice

_SOI, _EOI, _SOS, _DQT, _DHT, _DRI, _COM = 0xD8, 0xD9, 0xDA, 0xDB, 0xC4, 0xDD, 0xFE
_BASELINE, _PROGRESSIVE = 0xC0, 0xC2
_APP = range(0xE0, 0xF0)
# Codes that begin no segment: reserved ones, restarts, SOI, and 0xff, which is filling.
_NO_SEGMENT = frozenset((*range(0xC0), *range(0xD0, 0xD9), 0xFF))
_APP1, _APP14 = 0xE1, 0xEE
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_ORIENTATION = 0x0112
# Adobe's segment names the coding of three colours: 0 is RGB. Without the segment they are Y Cb Cr.
_ADOBE_YCC = 1
# Horizontal and vertical sampling factors of Y, one nibble each; those of chroma are 1 and 1.
_LUMA_SAMPLING = (0x11, 0x12, 0x21, 0x22)
# Component ids of Y Cb Cr: JFIF's, and those of encoders that count from 0. Other ids can mean RGB.
_COLOUR_IDS = (b"\x01\x02\x03", b"\x00\x01\x02")
# In coded data, 0xff is followed by 0 unless it begins a marker.
_ANY_MARKER = re.compile(rb"\xff[^\x00]")
_NO_RESTART = re.compile(rb"\xff[^\x00\xd0-\xd7]")
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")


@dataclass(frozen=True, slots=True)
class PlainJpeg:
    """The header of a plain JPEG.

    Attributes:
        width: pixels per row, as stored.
        height: rows, as stored.
        end: bytes of the file up to and including the end marker; later bytes are not part of the image.
        orientation: EXIF orientation 1..8; None where XMP may contain it, which only Pillow reads.
    """

    width: int
    height: int
    end: int
    orientation: int | None = 1


class _OddError(Exception):
    """The file is not plain."""


def read_plain(data: bytes, exif: bool = False) -> PlainJpeg | None:
    """Read the header of a plain JPEG; None for any other file.

    Args:
        data: the file's content.
        exif: read the orientation; otherwise it is 1.
    """
    walk = _Walk(data)
    try:
        end = walk.to_end()
        frame = walk.whole_frame()
    except (_OddError, IndexError, ValueError):  # a segment that is too short raises the latter two
        return None
    return PlainJpeg(frame.width, frame.height, end, _orientation(walk.exif, walk.xmp) if exif else 1)


def may_be_turned(data: bytes) -> bool:
    """Return whether a JPEG may have an orientation: its headers hold EXIF or XMP, wherever, or are damaged."""
    at = 2
    try:
        while (marker := data[at + 1]) not in (_SOS, _EOI):
            after = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
            if data[at] != 0xFF or marker in _NO_SEGMENT or after < at + 4:
                return True  # Pillow finds its way through bytes between segments, or fails
            if marker == _APP1 and data.startswith((_EXIF, _XMP), at + 4):
                return True
            at = after
    except IndexError:
        return True
    return data[at] != 0xFF


class _Frame:
    """The frame header, and the bits of its coefficients that the scans read so far contain."""

    def __init__(self, body: bytes, progressive: bool) -> None:
        self.progressive = progressive
        self.height, self.width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
        count = body[5]
        parts = [body[6 + 3 * n : 9 + 3 * n] for n in range(count)]
        self.ids = bytes(part[0] for part in parts)
        self.sampling = parts[0][1]
        if body[0] != 8 or len(body) != 6 + 3 * count or not self.width or not self.height:
            raise _OddError
        if count == 1:
            plain = self.sampling == 0x11
        else:
            chroma_is_single = all(part[1] == 0x11 for part in parts[1:])
            plain = self.ids in _COLOUR_IDS and self.sampling in _LUMA_SAMPLING and chroma_is_single
        if not plain:
            raise _OddError
        # Component -> the lowest known bit of each coefficient; None before the first scan.
        self._known: dict[int, list[int | None]] = {part: [None] * 64 for part in self.ids}

    def blocks(self) -> int:
        """Count the minimum coded units in one scan of all components."""
        across, down = 8 * (self.sampling >> 4), 8 * (self.sampling & 15)
        return -(-self.width // across) * -(-self.height // down)

    def scan(self, body: bytes) -> None:
        """Record the bits of a scan; raise _OddError where it does not follow the earlier ones (T.81, G.1.1.1)."""
        count = body[0]
        parts = bytes(body[1 + 2 * n] for n in range(count))
        first, last, bits = body[1 + 2 * count : 4 + 2 * count]
        before, now = bits >> 4, bits & 15
        if len(body) != 4 + 2 * count:
            raise _OddError
        if not self.progressive:
            if parts != self.ids or (first, last, bits) != (0, 63, 0) or None not in self._known[parts[0]]:
                raise _OddError
        elif first > last or last > 63 or (first == 0 and last != 0) or (first > 0 and count != 1):
            raise _OddError
        for part in parts:
            known = self._known.get(part)
            if known is None or (first > 0 and known[0] is None):
                raise _OddError
            for n in range(first, last + 1):
                if (known[n] or 0) != before or (known[n] is not None and now != before - 1):
                    raise _OddError
                known[n] = now

    def is_whole(self) -> bool:
        """Whether the scans contain every bit of every coefficient."""
        return all(bit == 0 for known in self._known.values() for bit in known)


@dataclass(slots=True)
class _Walk:
    """One walk over a file's segments."""

    data: bytes
    frame: _Frame | None = None
    restart: int = 0
    huffman: bool = False
    exif: list[bytes] = field(default_factory=list)
    xmp: bool = False
    adobe: int = _ADOBE_YCC

    def to_end(self) -> int:
        """Read all segments; return the offset after the end marker."""
        data = self.data
        if data[0] != 0xFF or data[1] != _SOI:
            raise _OddError
        at, scanned = 2, False
        while True:
            if data[at] != 0xFF:
                raise _OddError
            marker = data[at + 1]
            if marker == _EOI:
                return at + 2
            after = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
            if after < at + 4 or after > len(data) or (scanned and marker not in (_DHT, _SOS)):
                raise _OddError
            body = data[at + 4 : after]
            if marker == _SOS:
                at = self._scan(body, after)
                scanned = True
            else:
                self._segment(marker, body)
                at = after

    def whole_frame(self) -> _Frame:
        """Return the frame; raise _OddError where coefficients are incomplete or colours are not Y Cb Cr."""
        if self.frame is None or not self.frame.is_whole():
            raise _OddError
        if len(self.frame.ids) > 1 and self.adobe != _ADOBE_YCC:
            raise _OddError
        return self.frame

    def _segment(self, marker: int, body: bytes) -> None:
        if marker in (_BASELINE, _PROGRESSIVE) and self.frame is None:
            self.frame = _Frame(body, marker == _PROGRESSIVE)
        elif marker == _DHT:
            self.huffman = True
        elif marker == _DRI:
            self.restart = int.from_bytes(body, "big")
        elif marker == _APP1:
            if body.startswith(_EXIF):
                self.exif.append(body)
            self.xmp |= body.startswith(_XMP)
        elif marker == _APP14 and body.startswith(b"Adobe"):
            self.adobe = body[11]
        elif marker not in (_COM, _DQT) and marker not in _APP:
            raise _OddError

    def _scan(self, body: bytes, at: int) -> int:
        """Record a scan whose coded data begin at `at`; return the offset of the next marker."""
        if self.frame is None or not self.huffman or (self.frame.progressive and self.restart):
            raise _OddError
        self.frame.scan(body)
        found = (_NO_RESTART if self.restart else _ANY_MARKER).search(self.data, at)
        if found is None:
            raise _OddError
        if self.restart:
            marks = _RESTART.findall(self.data, at, found.start())
            wanted = -(-self.frame.blocks() // self.restart) - 1
            if marks != list(islice(cycle(bytes([n]) for n in range(0xD0, 0xD8)), wanted)):
                raise _OddError
        return found.start()


def _orientation(segments: list[bytes], xmp: bool) -> int | None:
    """Read the orientation from the EXIF segments with Pillow; damaged EXIF counts as 1."""
    from PIL import Image as pillow

    if segments:
        exif = pillow.Exif()
        try:
            exif.load(segments[0] + b"".join(body[len(_EXIF) :] for body in segments[1:]))
            value = exif.get(_ORIENTATION)
        except Exception:  # Pillow's EXIF parser raises many kinds
            return 1
        if value is not None:
            return value if value in range(2, 9) else 1
    return None if xmp else 1
