"""JPEG files by their markers: what is no picture goes, without touching a pixel."""

from __future__ import annotations

import re

_SOI, _EOI, _SOS = b"\xff\xd8", b"\xff\xd9", 0xDA
#: What ends compressed data: a marker that is neither a stuffed zero nor a restart. `\xff\xff` is filling. The literal
#: first byte lets the search run at the speed of memchr.
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
#: Tables, frame headers, scans and the end, and the application's and comment segments.
_IN_A_FILE = frozenset({*range(0xC0, 0xD0), 0xDA, 0xDB, 0xDC, 0xDD, 0xD9, *range(0xE0, 0xF0), 0xFE}) - {0xC8}
_LOSSLESS = frozenset({0xC3, 0xC7, 0xCB, 0xCF})
#: What may follow compressed data; after a frame's scan there is no other frame.
_AFTER_SCAN = frozenset({0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD, 0xD9, *range(0xE0, 0xF0), 0xFE})


def strip(data: bytes) -> bytes | None:
    """The JPEG with its tables and compressed data alone: the same pixels, nothing about who took it where.

    Dropped: EXIF, GPS, XMP, IPTC, ICC profile, comments, thumbnails, and whatever follows the first picture (other
    pictures of MPO files, a phone's video, rubbish). Kept of the application segments: a bare JFIF header and Adobe's
    colour transform, both of which decoders need. None if the structure is unusual, though a decoder may cope.

    Raises:
        ValueError: naming the byte, if compressed data is interrupted by a marker that cannot be there. Decoders fill
            the rest of such a picture with grey without a word. Damage that makes no marker (a flipped bit, a block
            of zeros) cannot be told from a picture.
    """
    if data[:2] != _SOI:
        return None
    parts, at = [_SOI], 2
    while (segment := _segment(data, at)) is not None:
        marker, end = segment
        if marker == 0xD9:
            return b"".join([*parts, _EOI])
        if marker == _SOS:
            end = _scan_end(data, end)
        parts.append(_kept(marker, data[at:end]))
        at = end
    return None


def is_lossless(data: bytes) -> bool:
    """Whether a JPEG is of the lossless kind, which no decoder gives at a part of its size."""
    at = 2
    while (segment := _segment(data, at)) is not None and segment[0] not in (_SOS, 0xD9):
        if segment[0] in _LOSSLESS:
            return True
        at = segment[1]
    return False


def _segment(data: bytes, at: int) -> tuple[int, int] | None:
    """The marker at byte `at` and the end of its segment, if both are as they should be."""
    if len(data) < at + 2 or data[at] != 0xFF or data[at + 1] not in _IN_A_FILE:
        return None
    if data[at + 1] == 0xD9:
        return 0xD9, at + 2
    length = int.from_bytes(data[at + 2 : at + 4], "big")
    end = at + 2 + length
    return (data[at + 1], end) if length >= 2 and end <= len(data) else None


def _scan_end(data: bytes, start: int) -> int:
    """The first byte after the compressed data that begins at `start`."""
    match = _MARKER.search(data, start)
    if match is None:
        raise ValueError(f"the compressed data has no end within {len(data)} bytes")
    marker = match[1][0]
    if marker not in _AFTER_SCAN:
        raise ValueError(f"marker ff{marker:02x} in the compressed data at byte {match.end() - 2}")
    return match.end() - 2


def _kept(marker: int, segment: bytes) -> bytes:
    if marker == 0xE0 and segment[4:9] == b"JFIF\0" and len(segment) >= 18:
        return b"\xff\xe0\0\x10" + segment[4:16] + b"\0\0"  # no thumbnail
    if marker == 0xEE and segment[4:9] == b"Adobe":
        return segment
    return b"" if 0xE0 <= marker <= 0xEF or marker == 0xFE else segment
