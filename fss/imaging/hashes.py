"""Near-duplicates: 64-bit perceptual hashes of images, and the pairs of them that differ in few bits.

The hash holds the signs, against their median, of the 64 lowest frequencies of a grey 32 x 32 thumbnail (pHash,
Zauner 2010): it survives re-encoding, resizing and slight changes of colour, not crops of more than a few per cent.
"""

from __future__ import annotations

import itertools

import numpy as np
from PIL import Image

SIDE = 32
_ORDER = sorted(((u, v) for u in range(SIDE) for v in range(SIDE) if u + v), key=lambda f: (f[0] + f[1], f))[:64]
_ROWS, _COLUMNS = (np.array(axis) for axis in zip(*_ORDER, strict=True))
#: Thumbnails with less contrast than this (standard deviation, grey levels) have no hash: noise would decide its bits.
FLAT = 4.0
_POPCOUNT = np.array([bin(i).count("1") for i in range(1 << 16)], np.uint8)
_BLOCK = 1 << 20


def phash(image: Image.Image) -> int | None:
    """The 64-bit hash of an image, 0 <= hash < 2**64; None if it is too flat to have one."""
    from scipy.fft import dctn

    grey = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    pixels = np.asarray(grey, dtype=np.float64)
    if pixels.std() < FLAT:
        return None
    low = dctn(pixels, norm="ortho")[_ROWS, _COLUMNS]
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


def bands(hashes: np.ndarray, number: int) -> list[np.ndarray]:
    """The bits of (n,) uint64 hashes cut into `number` bands, each (n,) uint64.

    Two hashes that differ in fewer bits than there are bands are equal in at least one of them.
    """
    cuts = [64 * i // number for i in range(number + 1)]
    return [
        (hashes >> np.uint64(start)) & np.uint64((1 << (stop - start)) - 1) for start, stop in itertools.pairwise(cuts)
    ]


def distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Numbers of differing bits of uint64 hashes, broadcast against each other."""
    differing = np.ascontiguousarray(one ^ other)
    return _POPCOUNT[differing.view(np.uint16)].reshape(*differing.shape, 4).sum(-1, dtype=np.uint8)


def earlier_neighbours(hashes: np.ndarray, groups: np.ndarray, limit: int) -> list[tuple[int, int, int]]:
    """(index, first neighbour, distance) of every hash that has a neighbour before it in its group.

    A neighbour is one within `limit` bits; hashes (n,) uint64 are in their order of precedence, groups (n,) any values.
    """
    order = np.argsort(groups, kind="stable")
    edges = np.flatnonzero(np.diff(groups[order])) + 1
    neighbours = []
    for members in np.split(order, edges):
        step = max(1, _BLOCK // max(1, len(members)))
        for start in range(1, len(members), step) if len(members) > 1 else ():
            rows = members[start : start + step]
            apart = distances(hashes[rows][:, None], hashes[members[: start + len(rows)]][None])
            near = (apart <= limit) & (np.arange(apart.shape[1]) < np.arange(start, start + len(rows))[:, None])
            for row in np.flatnonzero(near.any(axis=1)):
                column = int(near[row].argmax())
                neighbours.append((int(rows[row]), int(members[column]), int(apart[row, column])))
    return neighbours
