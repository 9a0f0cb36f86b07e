"""Evaluation episodes: a pure function of (seed, index) over a table of which image shows which class.

The codes of the field walk their images in four orders, which is one reason why their numbers differ:

* `classes`: a class uniformly, then one of its images (ours, PANet, HSNet on COCO);
* `pairs`: the (image, class) pairs in list order, from the start again when they end (HSNet on PASCAL);
* `images`: the images in list order, likewise; then one of its classes uniformly (PFENet, CyCTR, UMTFSS, BAM);
* `random_images`: an image uniformly, with replacement; then one of its classes uniformly (MiningFSS, MaskSplit).

In the last two the field asks for any class of the fold that the image shows, however small (`tiny`): only the images
were filtered by area. Supports are always distinct, never the query, and show enough of the class.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from fss import rng

ORDERS = ("classes", "pairs", "images", "random_images")

Areas = Mapping[str, Mapping[int, int]]
"""Pixels of each class in each image, the images in list order."""


@dataclasses.dataclass(frozen=True)
class Way:
    """One class of an episode, shown by its masks in the images `supports`."""

    class_id: int
    supports: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Episode:
    """Segment the classes of `ways` in image `query`; no image appears twice in an episode."""

    index: int
    query: str
    ways: tuple[Way, ...]


@dataclasses.dataclass(frozen=True)
class EpisodeRules:
    """How episodes are drawn: the order (see the module), the smallest area in pixels, the numbers of ways and shots.

    With several ways the query shows the first class; the others are drawn uniformly from the rest of the fold.
    """

    order: str = "classes"
    ways: int = 1
    shots: int = 1
    min_area: int = 2048
    tiny: bool = False
    """Whether a query may be asked for a class of which it shows less than `min_area`."""


@dataclasses.dataclass(frozen=True)
class EpisodePool:
    """What the episodes of one fold are drawn from."""

    rules: EpisodeRules
    supports: Mapping[int, tuple[str, ...]]
    """Class -> the images that show at least `min_area` of it, sorted; classes with too few images are left out."""
    queries: tuple[tuple[str, tuple[int, ...]], ...]
    """Images in list order with the classes that they may be asked for."""


def pool(areas: Areas, classes: Sequence[int], rules: EpisodeRules) -> EpisodePool:
    """The pool of one fold's `classes`.

    Raises:
        ValueError: for an unknown order, or if fewer classes than `rules.ways` have enough images.
    """
    if rules.order not in ORDERS:
        raise ValueError(f"expected an order of {', '.join(ORDERS)}, got {rules.order!r}")
    large = {
        c: sorted(n for n, by_class in areas.items() if by_class.get(c, 0) >= rules.min_area) for c in sorted(classes)
    }
    needed = rules.ways * rules.shots + 1
    supports = {c: tuple(names) for c, names in large.items() if len(names) >= needed}
    if len(supports) < rules.ways:
        raise ValueError(
            f"expected at least {rules.ways} classes with {needed} images of {rules.min_area} pixels or more, found "
            f"{len(supports)}; lower shots=, ways= or dataset.min_area=, or give more images"
        )
    queries = []
    for name, by_class in areas.items():
        shown = tuple(c for c in supports if by_class.get(c, 0) >= rules.min_area)
        if shown:
            queries.append((name, tuple(c for c in supports if by_class.get(c, 0) > 0) if rules.tiny else shown))
    return EpisodePool(rules, supports, tuple(queries))


def draw(source: EpisodePool, *, count: int, seed: int) -> list[Episode]:
    """`count` episodes; episode i is the same whatever `count` is."""
    starts = _starts(source)
    return [_episode(source, starts, seed, index) for index in range(count)]


def _starts(source: EpisodePool) -> Sequence[tuple[str, tuple[int, ...]]]:
    if source.rules.order == "pairs":
        return [(name, (c,)) for name, classes in source.queries for c in classes]
    return source.queries


def _episode(source: EpisodePool, starts: Sequence[tuple[str, tuple[int, ...]]], seed: int, index: int) -> Episode:
    generator = rng.numpy_rng(seed, "episode", index)
    shots = source.rules.shots
    if source.rules.order == "classes":
        classes = sorted(source.supports)
        class_id = classes[int(generator.integers(len(classes)))]
        names = source.supports[class_id]
        query, *chosen = (names[i] for i in generator.choice(len(names), size=shots + 1, replace=False))
    else:
        random = source.rules.order == "random_images"
        query, options = starts[int(generator.integers(len(starts))) if random else index % len(starts)]
        class_id = options[int(generator.integers(len(options)))]
        chosen = _supports(source, class_id, {query}, generator)
    ways = [Way(class_id, tuple(chosen))]
    others = [c for c in sorted(source.supports) if c != class_id]
    for other in generator.choice(others, size=source.rules.ways - 1, replace=False) if source.rules.ways > 1 else ():
        used = {query, *(name for way in ways for name in way.supports)}
        ways.append(Way(int(other), tuple(_supports(source, int(other), used, generator))))
    return Episode(index, query, tuple(ways))


def _supports(source: EpisodePool, class_id: int, used: set[str], generator: np.random.Generator) -> list[str]:
    names = [name for name in source.supports[class_id] if name not in used]
    return [names[i] for i in generator.choice(len(names), size=source.rules.shots, replace=False)]
