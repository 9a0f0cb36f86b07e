"""An image in overlapping square tiles, and their answers put together without a seam."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Sequence

import numpy as np

#: What neighbouring tiles share at least, of their side.
OVERLAP = 0.25
#: The least side of which an overlap leaves something.
_SMALLEST = 2

#: Left, top, right and bottom, pixels; the last two are outside.
Box = tuple[int, int, int, int]


def boxes(size: tuple[int, int], side: int) -> list[Box]:
    """Tiles of an image of `size` (width, height), row by row, `side` pixels wide and high, or as the image is less.

    They are as few as cover it, spread evenly, and overlap by `OVERLAP` of their side or more.

    Raises:
        ValueError: for a side that leaves nothing beside the overlap, or is no whole number.
    """
    check(side)
    (lefts, width), (tops, height) = (_starts(length, side) for length in size)
    return [(left, top, left + width, top + height) for top in tops for left in lefts]


def check(side: int) -> None:
    """Look at the side of tiles before there is an image.

    Raises:
        ValueError: as `boxes`.
    """
    if isinstance(side, bool) or not isinstance(side, numbers.Integral) or side < _SMALLEST:
        raise ValueError(f"tile: expected a whole number of pixels from {_SMALLEST} on, got {side!r}")


def blended(size: tuple[int, int], places: Sequence[Box], parts: Iterable[np.ndarray]) -> np.ndarray:
    """(H, W) float32 of an image of `size` (width, height): the weighted mean of its tiles' (h, w) values.

    A tile's weight falls to nothing at its sides over the width of the overlap, but for those at the image's border.
    So no value jumps where a tile ends.
    """
    total, weight = np.zeros(size[::-1], np.float32), np.zeros(size[::-1], np.float32)
    for (left, top, right, bottom), part in zip(places, parts, strict=True):
        share = np.outer(_fading(top, bottom, size[1]), _fading(left, right, size[0]))
        total[top:bottom, left:right] += share * part
        weight[top:bottom, left:right] += share
    return total / weight


def _starts(length: int, side: int) -> tuple[list[int], int]:
    """Where tiles begin along one side of an image, and how long they are."""
    if length <= side:
        return [0], length
    number = 1 + math.ceil((length - side) / (side - math.ceil(OVERLAP * side)))
    return [round(place) for place in np.linspace(0, length - side, number)], side


def _fading(start: int, stop: int, length: int) -> np.ndarray:
    """(n,) float32 weights in (0, 1] of a tile's pixels along one side of an image."""
    width = max(1.0, OVERLAP * (stop - start))
    place = np.arange(stop - start, dtype=np.float32)
    rising = np.ones_like(place) if start == 0 else (place + 1) / (width + 1)
    falling = np.ones_like(place) if stop == length else (stop - start - place) / (width + 1)
    return np.minimum(1, rising) * np.minimum(1, falling)
