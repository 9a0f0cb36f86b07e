"""fastText's binary models, read without fastText: the dictionary, and rows of the input matrix by their places.

The format is that of version 12 (Bojanowski et al. 2017 and Joulin et al. 2016 released theirs in it), little-endian:

    int32 magic, version; 12 int32 arguments; double threshold
    int32 entries, words, labels; int64 tokens, pruned
    each entry: its text and a zero byte, int64 count, int8 kind (0 word, 1 label)
    bool quantised; int64 rows, columns; float32 values      rows: the words', then the subwords' buckets

A word's vector is the mean of its row and of the rows of its subwords: all its substrings of `minn` to `maxn`
characters between the marks < and >, by their FNV-1a hash modulo the number of buckets. Only rows that are needed are
read, so that a model of gigabytes costs its dictionary.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np

_MAGIC, _VERSION = 793712314, 12
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Header:
    """What the model says of itself before its dictionary."""

    dimensions: int
    buckets: int
    shortest: int
    longest: int
    entries: int
    words: int
    pruned: int


def entries(path: str, asked: Callable[[str], bool], compose: Collection[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Words that are `asked` for, with their (D,) float32 vectors, in the order of the file.

    Those of `compose` that the file does not have follow, made of their subwords, if the model has any.

    Raises:
        ValueError: for a file that cannot be opened, is damaged, no fastText model, or a quantised one.
    """
    import fsspec

    try:
        with fsspec.open(path, "rb").open() as stream:
            yield from _entries(path, stream, asked, compose)
    except OSError as error:
        raise ValueError(f"cannot read word vectors {path!r} ({type(error).__name__}: {error})") from error


def _entries(
    path: str, stream: IO[bytes], asked: Callable[[str], bool], compose: Collection[str]
) -> Iterator[tuple[str, np.ndarray]]:
    header = _header(path, stream)
    listed, known, start = _dictionary(path, stream, header, asked, frozenset(compose))
    stream.seek(start)
    rows = _Rows(path, stream, header)
    for place, word in listed:
        yield word, rows.mean([place, *_subwords(word, header)])
    for word in sorted(set(compose) - known):
        places = _subwords(word, header)
        if places:
            yield word, rows.mean(places)


def _unpack(path: str, stream: IO[bytes], form: str) -> tuple[int, ...]:
    content = stream.read(struct.calcsize("<" + form))
    try:
        return struct.unpack("<" + form, content)
    except struct.error as error:
        raise ValueError(f"{path}: this fastText model is cut short") from error


def _header(path: str, stream: IO[bytes]) -> Header:
    magic, version = _unpack(path, stream, "2i")
    if (magic, version) != (_MAGIC, _VERSION):
        raise ValueError(
            f"{path}: expected a fastText model of version {_VERSION}, got magic {magic}, version {version}; text "
            "vectors (.vec) are read as well"
        )
    columns, *_, buckets, shortest, longest, _ = _unpack(path, stream, "12i")
    _unpack(path, stream, "d")
    number, words, labels, _, pruned = _unpack(path, stream, "3i2q")
    header = Header(columns, buckets, shortest, longest, number, words, pruned)
    if not (0 < columns <= 100_000 and words > 0 and words + labels == number and buckets >= 0):
        raise ValueError(f"{path}: this fastText model is damaged: {header}")
    return header


def _dictionary(
    path: str, stream: IO[bytes], header: Header, asked: Callable[[str], bool], compose: Collection[str]
) -> tuple[list[tuple[int, str]], set[str], int]:
    """Places and words of the dictionary that are asked for, which of `compose` it has, and where it ends, bytes."""
    listed, known = [], set()
    content, start, at = b"", stream.tell(), 0
    for place in range(header.entries):
        end = content.find(b"\0", at)
        while end < 0 or end + 10 > len(content):
            more = stream.read(_CHUNK)
            if not more:
                raise ValueError(f"{path}: this fastText model is cut short in word {place} of {header.entries}")
            start, content, at = start + at, content[at:] + more, 0
            end = content.find(b"\0")
        word, at = content[at:end].decode("utf-8", "replace"), end + 10
        if place < header.words and asked(word):
            listed.append((place, word))
        if word in compose:
            known.add(word)
    return listed, known, start + at


class _Rows:
    """Rows of the input matrix, read where they stand."""

    def __init__(self, path: str, stream: IO[bytes], header: Header):
        (quantised,) = _unpack(path, stream, "b") if header.pruned <= 0 else (1,)
        if quantised:
            raise ValueError(
                f"{path}: expected a fastText model with its vectors in full, got a quantised one (.ftz): give the "
                "model before quantisation, or its text vectors (.vec)"
            )
        self.rows, self.columns = _unpack(path, stream, "2q")
        if self.columns != header.dimensions or self.rows < header.words:
            raise ValueError(
                f"{path}: this fastText model is damaged: expected at least {header.words} rows of "
                f"{header.dimensions}, got {self.rows} of {self.columns}"
            )
        self.path, self.stream, self.start = path, stream, stream.tell()

    def mean(self, places: list[int]) -> np.ndarray:
        """(D,) float32 mean of the rows at `places`."""
        rows = np.stack([self._row(place) for place in places])
        return rows.mean(axis=0, dtype=np.float64).astype(np.float32)

    def _row(self, place: int) -> np.ndarray:
        self.stream.seek(self.start + 4 * self.columns * place)
        content = self.stream.read(4 * self.columns)
        if place >= self.rows or len(content) < 4 * self.columns:
            raise ValueError(f"{self.path}: this fastText model is cut short: row {place} of {self.rows} is missing")
        row = np.frombuffer(content, "<f4")
        if not np.isfinite(row).all():
            raise ValueError(f"{self.path}: this fastText model is damaged: row {place} is not finite")
        return row


def _subwords(word: str, header: Header) -> list[int]:
    """Rows of the word's subwords; the mark of a sentence's end has none."""
    if not header.buckets or header.longest < 1 or word == "</s>":
        return []
    marked = f"<{word}>"
    parts = [
        marked[first:end]
        for first in range(len(marked))
        for end in range(first + header.shortest, min(first + header.longest, len(marked)) + 1)
        if end - first > 1 or (end - first == 1 and 0 < first < len(marked) - 1)
    ]
    return [header.words + fnv1a(part.encode()) % header.buckets for part in parts]


def fnv1a(content: bytes) -> int:
    """fastText's 32-bit hash: FNV-1a over signed bytes, as its code computes it."""
    value = 2166136261
    for byte in content:
        value = ((value ^ (byte | 0xFFFFFF00 if byte > 127 else byte)) * 16777619) & 0xFFFFFFFF
    return value
