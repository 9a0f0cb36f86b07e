"""Regions of a group of shards: which of them are usable, which may be asked for, and how many tasks come of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from fss import rng
from fss.tasks.pairing.parts.rules import AcrossImages, Rules


@dataclasses.dataclass(frozen=True)
class RegionTable:
    """R regions of a group of shards, column by column."""

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

    def take(self, rows: np.ndarray) -> RegionTable:
        """The table of the given rows, or of the rows where a mask is true."""
        return RegionTable(**{field.name: getattr(self, field.name)[rows] for field in dataclasses.fields(self)})


@dataclasses.dataclass(frozen=True)
class Pairing:
    """A task as rows of the table: the query's region and those of its supports, all of one cluster.

    Of the `distractors` only the image matters: it shows nothing of that cluster.
    """

    query: int
    supports: tuple[int, ...]
    distractors: tuple[int, ...] = ()


def usable(table: RegionTable, rules: Rules) -> np.ndarray:
    """(R,) bool: regions of allowed layer and area that do not look like background.

    A region that leaves fewer than `empty_lines` of the rows or of the columns empty is background (the released
    UMTFSS code's rule; the paper does not mention it), and so is one that holds more than `max_border` of the border.
    """
    fine = (table.area >= rules.min_area) & (table.area <= rules.max_area) & (table.border <= rules.max_border)
    fine &= (table.empty_rows >= rules.empty_lines) & (table.empty_columns >= rules.empty_lines)
    if rules.layers is not None:
        fine &= np.isin(table.layer, rules.layers)
    if rules.keep_clusters < 1 and len(table):
        fine &= np.isin(table.label, _inner_clusters(table, rules.keep_clusters))
    return fine


def _inner_clusters(table: RegionTable, share: float) -> np.ndarray:
    """The `share` of the labels, rounded up, whose regions hold least of the border on average."""
    labels, code = np.unique(table.label, return_inverse=True)
    means = np.bincount(code, table.border) / np.bincount(code)
    return labels[np.argsort(means, kind="stable")[: int(np.ceil(share * len(labels)))]]


class Eligible:
    """A table under its rules: which rows may be asked for, and which may support them.

    Args:
        table: every region of the group, the unusable ones too: they say what an image shows.
        rules: those of pairing across images.
    """

    def __init__(self, table: RegionTable, rules: AcrossImages):
        self.table, self.rules = table, rules
        self.usable = usable(table, rules)
        self.image = _by_appearance(table.key)
        """(R,) numbers of the images, in table order."""
        layer = table.layer if rules.same_layer else np.zeros_like(table.layer)
        pairs = np.stack([table.label, layer], axis=1).astype(np.int64)
        self.cluster = np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1)
        """(R,) numbers of what must agree between query and support: the cluster, with `same_layer` the layer too."""
        self.asked = self.usable & self._has_supports() & self._has_distractors()
        """(R,) bool: rows that can be queries, since there are supports (and distractors) for them."""

    def _has_supports(self) -> np.ndarray:
        if self.rules.same_image == 1:
            return self.usable
        return _images_of(self.cluster, self.image, self.usable)[self.cluster] > self.rules.shots

    def _has_distractors(self) -> np.ndarray:
        if not self.rules.distractors:
            return self.usable
        label = np.unique(self.table.label, return_inverse=True)[1]
        good = np.isin(self.image, self.image[self.usable])
        without = len(np.unique(self.image[self.usable])) - _images_of(label, self.image, good)
        return without[label] >= self.rules.distractors

    def slots(self, seed: int, queries: np.ndarray | None = None) -> list[tuple[tuple[object, ...], int]]:
        """The tasks to be made, as (name, query's row); of queries among the rows `queries` (R,) bool, if given.

        With balance=images, in table order, `tasks_per_image` of every image, each of one of its regions, drawn
        uniformly, or in the share `inside` from the layers above the first and else from the first, where the image has
        both. With balance=clusters as many in all, of every cluster an equal share as far as its regions go:
        they take turns, and none is a query more than `tasks_per_image` times.
        """
        asked = np.flatnonzero(self.asked if queries is None else self.asked & queries)
        if self.rules.balance == "clusters":
            return list(self._by_cluster(asked, seed))
        return list(self._by_image(asked, seed))

    def count(self, queries: np.ndarray | None = None) -> int:
        """How many slots there are, whatever the seed."""
        asked = self.asked if queries is None else self.asked & queries
        return self.rules.tasks_per_image * len(np.unique(self.image[asked]))

    def _by_image(self, asked: np.ndarray, seed: int) -> Iterator[tuple[tuple[object, ...], int]]:
        for rows in parts_of(asked, self.image[asked]):
            key = str(self.table.key[rows[0]])
            for number in range(self.rules.tasks_per_image):
                among = self._of_layer(rows, seed, key, number)
                yield (key, number), int(among[rng.mix(seed, "query", key, number) % len(among)])

    def _of_layer(self, rows: np.ndarray, seed: int, *name: object) -> np.ndarray:
        """Of one image's rows those that the slot `name` may draw from."""
        share = self.rules.inside
        if share is None:
            return rows
        inside = self.table.layer[rows] > 0
        wanted = inside == (rng.numpy_rng(seed, "inside", *name).random() < share)
        return rows[wanted] if wanted.any() else rows

    def _by_cluster(self, asked: np.ndarray, seed: int) -> Iterator[tuple[tuple[object, ...], int]]:
        parts = parts_of(asked, self.cluster[asked])
        caps = np.array([len(rows) * self.rules.tasks_per_image for rows in parts], np.int64)
        total = self.rules.tasks_per_image * len(np.unique(self.image[asked]))
        for rows, number in zip(parts, equal_shares(total, caps).tolist(), strict=True):
            name = (int(self.table.label[rows[0]]), int(self.table.layer[rows[0]]) if self.rules.same_layer else "any")
            for turn in range(-(-number // len(rows))):
                order = rng.numpy_rng(seed, "turn", *name, turn).permutation(rows)
                for place, row in enumerate(order[: number - turn * len(rows)].tolist()):
                    yield (*name, turn, place), row


def equal_shares(total: int, caps: np.ndarray) -> np.ndarray:
    """`total` divided into shares that are equal to within 1, but for those that stop at their cap: (C,) int64.

    They sum to `total`, or to the sum of the caps if that is less.
    """
    shares = np.zeros_like(caps)
    left = min(total, int(caps.sum()))
    while left:
        growing = np.flatnonzero(shares < caps)
        each = left // len(growing)
        growing = growing if each else growing[:left]
        more = np.minimum(max(each, 1), caps[growing] - shares[growing])
        shares[growing] += more
        left -= int(more.sum())
    return shares


def _by_appearance(keys: np.ndarray) -> np.ndarray:
    """(R,) numbers of equal keys, in the order in which they first come."""
    _, first, code = np.unique(keys, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[code]


def _images_of(code: np.ndarray, image: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """How many distinct images each code has among the rows (R,) bool."""
    pairs = np.unique(np.stack([code[rows], image[rows]], axis=1), axis=0)
    return np.bincount(pairs[:, 0], minlength=int(code.max(initial=-1)) + 1)


def parts_of(values: np.ndarray, codes: np.ndarray) -> list[np.ndarray]:
    """(n,) values by their codes: an array for each code, codes ascending, values in their order."""
    order = np.argsort(codes, kind="stable")
    cuts = np.flatnonzero(np.diff(codes[order])) + 1
    return np.split(values[order], cuts) if len(values) else []
