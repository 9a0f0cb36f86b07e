"""Pairing regions of one cluster across images into few-shot tasks (UMTFSS, section "Task Constructing")."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from fss import rng


@dataclasses.dataclass(frozen=True)
class Rules:
    """Which regions make tasks: see `cluster.config_data.PairConfig` for the fields."""

    tasks_per_image: int = 4
    shots: int = 1
    nearest: float = 0.5
    same_image: float = 0.0
    min_area: float = 0.03
    max_area: float = 0.7
    max_border: float = 0.5
    empty_lines: float = 0.01


@dataclasses.dataclass(frozen=True)
class Table:
    """R regions of a group of shards, column by column; rows of one image are next to each other."""

    key: np.ndarray
    """(R,) image keys."""
    layer: np.ndarray
    """(R,) integers."""
    label: np.ndarray
    """(R,) integers."""
    area: np.ndarray
    """(R,) shares of the image."""
    border: np.ndarray
    """(R,) shares of the image's outermost cells."""
    empty_rows: np.ndarray
    empty_columns: np.ndarray
    descriptor: np.ndarray
    """(R, D) rows of length 1."""

    def __len__(self) -> int:
        return len(self.key)

    def take(self, rows: np.ndarray) -> Table:
        """The table of the given rows, or of the rows where a mask is true."""
        return Table(**{field.name: getattr(self, field.name)[rows] for field in dataclasses.fields(self)})


@dataclasses.dataclass(frozen=True)
class Pairing:
    """A task as rows of the table: the query's region and those of its supports, all of one cluster."""

    query: int
    supports: tuple[int, ...]


def usable(table: Table, rules: Rules) -> np.ndarray:
    """(R,) bool: regions of allowed area that do not look like background.

    A region that leaves fewer than `empty_lines` of the rows or of the columns empty is background (the released
    UMTFSS code's rule; the paper does not mention it), and so is one that holds more than `max_border` of the border.
    """
    inside = (table.area >= rules.min_area) & (table.area <= rules.max_area) & (table.border <= rules.max_border)
    spans = (table.empty_rows < rules.empty_lines) | (table.empty_columns < rules.empty_lines)
    return inside & ~spans


def draw(table: Table, rules: Rules, *, seed: int) -> Iterator[Pairing]:
    """Pairings over a table of usable regions: `tasks_per_image` for every image, as far as its regions have partners.

    The query's region is drawn uniformly among its image's; the supports, from distinct other images, uniformly among
    the `nearest` share of the cluster's regions in other images by cosine similarity. With probability `same_image` the
    support is the query's own region, which training sees in another view (as in MaskSplit, one image makes a task that
    is surely right). A pairing depends on the table,
    the seed and its own number alone.
    """
    images, first = np.unique(table.key, return_index=True)
    by_label = {int(label): np.flatnonzero(table.label == label) for label in np.unique(table.label)}
    bounds = {key: (start, start + int((table.key == key).sum())) for key, start in zip(images, first, strict=True)}
    for key in images[np.argsort(first)]:
        for number in range(rules.tasks_per_image):
            generator = rng.numpy_rng(seed, "pair", key, number)
            query = int(generator.integers(*bounds[key]))
            if generator.random() < rules.same_image:
                supports: tuple[int, ...] = (query,) * rules.shots
            else:
                supports = _supports(table, rules, query, by_label[int(table.label[query])], generator)
            if supports:
                yield Pairing(query, supports)


def _supports(
    table: Table, rules: Rules, query: int, members: np.ndarray, generator: np.random.Generator
) -> tuple[int, ...]:
    others = members[table.key[members] != table.key[query]]
    if len(others) == 0:
        return ()
    similarity = table.descriptor[others] @ table.descriptor[query]
    order = np.argsort(-similarity, kind="stable")
    near = others[order[: max(int(np.ceil(rules.nearest * len(others))), rules.shots)]]
    chosen: dict[str, int] = {}
    for row in generator.permutation(near):
        chosen.setdefault(str(table.key[row]), int(row))
        if len(chosen) == rules.shots:
            return tuple(chosen.values())
    return ()
