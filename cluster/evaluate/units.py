"""How the work of an evaluation is divided: images, supports and episodes, the same whatever the number of workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cluster.engine.stage import Unit
from cluster.evaluate.episode_list import Item

#: Episodes of a unit, about: it ends where a query's episodes end.
_BLOCK = 250
_IMAGES = 32


def image_units(step: str, names: Sequence[str]) -> list[Unit]:
    """Units of a few images each, named after the step."""
    return [Unit(f"{step}-{i:07d}", tuple(names[i : i + _IMAGES])) for i in range(0, len(names), _IMAGES)]


def image_names(items: Sequence[Item]) -> list[str]:
    """The images that occur in the episodes, sorted."""
    return sorted({n for i in items for n in (i.episode.query, *(s for way in i.episode.ways for s in way.supports))})


def support_units(items: Sequence[Item]) -> list[Unit]:
    """Units of a few (image, class id), each a support of some episode."""
    shown = sorted({(name, way.class_id) for i in items for way in i.episode.ways for name in way.supports})
    return [Unit(f"supports-{i:07d}", tuple(shown[i : i + _IMAGES])) for i in range(0, len(shown), _IMAGES)]


def blocks(items: Sequence[Item]) -> Iterator[Unit]:
    """Episodes by query."""
    block: list[Item] = []
    number = 0
    ordered = sorted(items, key=lambda item: (item.episode.query, *item[:4], item.episode.index))
    for item in ordered:
        if len(block) >= _BLOCK and item.episode.query != block[-1].episode.query:
            yield Unit(f"block-{number:07d}", tuple(block))
            block, number = [], number + 1
        block.append(item)
    yield Unit(f"block-{number:07d}", tuple(block))
