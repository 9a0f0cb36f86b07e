"""HSNet's own episodes on PASCAL-5i: its pairs of image and class, and supports by its random numbers.

Source: Min, Kang and Cho, Hypercorrelation Squeeze for Few-Shot Segmentation (ICCV 2021), as its published test draws
them. Each fold has a list of pairs, which is walked in order, and from the start again when it ends. numpy's generator
is seeded once, before the first episode. Supports are drawn one by one from the class's images, each time by shuffling
all of them; one that is the query is drawn again. So a support may come twice: with five shots in 133 of the 1,000
episodes of fold 0.

The lists (`data/splits/pascal/val` of its code) were filtered by a rule of their own, which `min_area` comes close to
but does not meet: they are read, not made.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fss.evaluation.episodes import Episode, Way

_LINE = re.compile(r"(?P<name>.+)__(?P<class_id>\d+)")
Pair = tuple[str, int]
"""An image and a class, counted from 1, that it shows."""


def read(data: bytes) -> list[Pair]:
    """The pairs of one fold's list: lines `NAME__CLASS`, classes counted from 1.

    Raises:
        ValueError: for another file.
    """
    lines = data.decode(errors="replace").splitlines()
    found = [_LINE.fullmatch(line) for line in lines]
    pairs = [(match["name"], int(match["class_id"])) for match in found if match]
    if not pairs or len(pairs) != len(lines):
        first = next((line for line, match in zip(lines, found, strict=True) if not match), "an empty file")
        raise ValueError(f"expected lines NAME__CLASS such as 2007_000033__01, got {first[:60]!r}")
    return pairs


def path(folder: str | Path, fold: int) -> Path:
    """The list of a fold."""
    return Path(folder) / f"fold{fold}.txt"


def draw(pairs: Sequence[Pair], *, shots: int, count: int, seed: int = 0) -> list[Episode]:
    """`count` episodes of one way; episode i is the same whatever `count` is. HSNet's `seed` is 0.

    Raises:
        ValueError: if a class has one image alone, which is no support of its own.
    """
    images: dict[int, list[str]] = {}
    for name, class_id in pairs:
        images.setdefault(class_id, []).append(name)
    lonely = [class_id for class_id, names in images.items() if len({*names}) < 2]
    if lonely:
        raise ValueError(f"expected at least two images of each class, class {lonely[0]} has one")
    generator = np.random.RandomState(seed)
    return [_episode(*pairs[index % len(pairs)], index, images, shots, generator) for index in range(count)]


def _episode(
    query: str, class_id: int, index: int, images: dict[int, list[str]], shots: int, generator: np.random.RandomState
) -> Episode:
    names, supports = images[class_id], list[str]()
    while len(supports) < shots:
        name = names[generator.choice(len(names), 1, replace=False)[0]]
        if name != query:
            supports.append(name)
    return Episode(index, query, (Way(class_id, tuple(supports)),))
