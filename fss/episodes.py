"""Evaluation episodes: a pure function of (seed, index) over a table of which image shows which class."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from fss import rng


@dataclasses.dataclass(frozen=True)
class Episode:
    """Segment `class_id` in image `query`, given its masks in the images `supports` (distinct, never the query)."""

    index: int
    class_id: int
    query: str
    supports: tuple[str, ...]


def draw(images_of: Mapping[int, Sequence[str]], *, shots: int, count: int, seed: int) -> list[Episode]:
    """Draw `count` episodes: the class uniformly, then the query and `shots` supports uniformly without replacement.

    Args:
        images_of: the images that show enough of each class, by class id.
        shots: supports an episode.
        count: episodes; episode i is the same whatever `count` is.
        seed: of the whole list.

    Raises:
        ValueError: if a class has too few images for one query and `shots` supports.
    """
    for class_id, names in images_of.items():
        if len(names) < shots + 1:
            raise ValueError(
                f"class {class_id} has {len(names)} images, {shots}-shot episodes need at least {shots + 1}; "
                "lower shots=, lower dataset.min_area=, or give more images"
            )
    classes = sorted(images_of)
    if not classes:
        raise ValueError("expected at least one class with images, got none; check dataset.root and dataset.list")
    ordered = {class_id: sorted(names) for class_id, names in images_of.items()}
    return [_episode(ordered, classes, shots, seed, index) for index in range(count)]


def _episode(
    images_of: Mapping[int, Sequence[str]], classes: Sequence[int], shots: int, seed: int, index: int
) -> Episode:
    generator = rng.numpy_rng(seed, "episode", index)
    class_id = classes[int(generator.integers(len(classes)))]
    names = images_of[class_id]
    query, *supports = generator.choice(len(names), size=shots + 1, replace=False)
    return Episode(index, class_id, names[query], tuple(names[s] for s in supports))
