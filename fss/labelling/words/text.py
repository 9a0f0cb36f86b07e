"""Word vectors as text: fastText's `.vec` and GloVe's `.txt`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import IO

import numpy as np

_REMEDY = "expected a line a word, 'word v1 .. vD', with fastText's 'rows D' before them or without"


def entries(path: str, asked: Callable[[str], bool]) -> Iterator[tuple[str, np.ndarray]]:
    """Words that are `asked` for, with their (D,) float32 vectors, in the order of the file; read line by line.

    A word may hold spaces (GloVe's largest file has some): the last D columns are the vector.

    Raises:
        ValueError: for a file that cannot be opened, is empty, is cut short of what its first line promises, or has a
            line with too few columns or something else than finite numbers.
    """
    try:
        with _opened(path) as stream:
            yield from _lines(path, stream, asked)
    except (OSError, EOFError) as error:
        raise ValueError(f"cannot read word vectors {path!r} ({type(error).__name__}: {error})") from error


def _opened(path: str) -> IO[bytes]:
    import fsspec

    return fsspec.open(path, "rb", compression="infer").open()


def _lines(path: str, stream: IO[bytes], asked: Callable[[str], bool]) -> Iterator[tuple[str, np.ndarray]]:
    first = stream.readline()
    promised, dimensions = _header(first)
    body = stream if promised is not None else itertools.chain([first], stream)
    rows = 0
    for number, line in enumerate(body, start=1 if promised is None else 2):
        if line.strip():
            rows += 1
            dimensions = dimensions or len(line.split()) - 1
            yield from _entry(path, number, line, dimensions, asked)
    if not rows:
        raise ValueError(f"{path}: no word vectors: {_REMEDY}")
    if promised is not None and rows != promised:
        raise ValueError(f"{path}: expected the {promised} rows of the first line, got {rows}: is it cut short?")


def _header(line: bytes) -> tuple[int | None, int]:
    """Rows and dimensions of fastText's first line; none and 0 of a line that is a word's."""
    parts = line.split()
    if len(parts) == 2 and all(part.isdigit() for part in parts) and int(parts[1]) > 0:
        return int(parts[0]), int(parts[1])
    return None, 0


def _entry(
    path: str, number: int, line: bytes, dimensions: int, asked: Callable[[str], bool]
) -> Iterator[tuple[str, np.ndarray]]:
    parts = line.rstrip().rsplit(b" ", dimensions)
    if dimensions < 1 or len(parts) != dimensions + 1:
        raise ValueError(
            f"{path}, line {number}: expected a word and {dimensions} numbers, got {line[:60]!r}; {_REMEDY}"
        )
    word = parts[0].decode("utf-8", "replace")
    if not asked(word):
        return
    try:
        row = np.array([float(part) for part in parts[1:]], np.float32)
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: expected {dimensions} numbers after {word!r} ({error})") from error
    if not np.isfinite(row).all():
        raise ValueError(f"{path}, line {number}: expected finite numbers after {word!r}")
    yield word, row
