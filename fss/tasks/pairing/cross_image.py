"""Pairing regions of one cluster across images into few-shot tasks (UMTFSS, section "Task Constructing").

Where this departs from UMTFSS's released code: the nearest share is taken in clusters of any size (released: clusters
under 20 regions use all of theirs) and of all candidates or of a sample of known error (released: at most 20,000 random
candidates and the 5,000 nearest of them); the supports of a task are distinct images (released: drawn with
replacement); several tasks may be made of an image (released: one an epoch).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fss import rng
from fss.tasks.pairing.parts import pairs, partners
from fss.tasks.pairing.parts.rules import AcrossImages


@dataclass
class Keys(AcrossImages):
    """Pairing `cross_image`: regions of one cluster, of different images."""

    pairing: str = "cross_image"


def draw(table: pairs.RegionTable, keys: Keys, *, seed: int, queries: np.ndarray | None = None) -> list[pairs.Pairing]:
    """A group's pairings, in the order of `pairs.Eligible.slots`: queries are drawn there, see `Keys` for the rest.

    Supports come from distinct other images, uniformly among the `nearest` share of the cluster's regions in other
    images by cosine similarity; where that share shows fewer than `shots` images, the next nearest join. With
    probability `same_image` the support is the query's own region, which training sees in another view (as in
    MaskSplit, one image makes a task that is surely right). Distractors come from distinct images, uniformly among the
    usable regions of images without the query's cluster. Every slot makes a task unless `repeats` forbids. A pairing
    depends on the table, the seed and its slot's name alone, with `repeats` on the slots before as well.

    Args:
        table: every region of the group.
        keys: see `Keys`.
        seed: of all that is drawn.
        queries: (R,) bool, rows that may be queries; none = all. Supports may be any.
    """
    group = pairs.Eligible(table, keys)
    slots = group.slots(seed, queries)
    rows = np.array([query for _, query in slots], np.int64)
    filled: list[pairs.Pairing | None] = [None] * len(slots)
    uses: Counter[tuple[int, int]] = Counter()
    everyone = np.flatnonzero(group.usable)
    shown = _shown(group) if keys.distractors else set()
    for part in pairs.parts_of(np.arange(len(slots)), group.cluster[rows]):
        members = everyone[group.cluster[everyone] == group.cluster[rows[part[0]]]]
        search = partners.search(table.descriptor, group.image, members, keys, seed=seed)
        in_runs = part[np.argsort(rows[part], kind="stable")]
        for near, slot in zip(search(rows[in_runs]), in_runs.tolist(), strict=True):
            name, query = slots[slot]
            generator = rng.numpy_rng(seed, "pair", *name)
            supports = _supports(group, query, near, generator, uses)
            others = _distractors(group, query, everyone, shown, generator)
            if len(supports) == keys.shots:
                filled[slot] = pairs.Pairing(query, supports, others)
    return [pairing for pairing in filled if pairing is not None]


def count(table: pairs.RegionTable, keys: Keys, queries: np.ndarray) -> int:
    """How many slots `draw` fills among `queries` (R,) bool at most, without looking at descriptors."""
    return pairs.Eligible(table, keys).count(queries)


def _supports(
    group: pairs.Eligible,
    query: int,
    near: partners.Near,
    generator: np.random.Generator,
    uses: Counter[tuple[int, int]],
) -> tuple[int, ...]:
    """`shots` rows of distinct images, fewer if `repeats` leaves no more."""
    rules = group.rules
    if rules.same_image and generator.random() < rules.same_image:
        return (query,) * rules.shots
    chosen: dict[int, int] = {}
    for row in near(generator):
        if rules.repeats is None or uses[query, row] < rules.repeats:
            chosen.setdefault(int(group.image[row]), row)
            if len(chosen) == rules.shots:
                if rules.repeats is not None:
                    uses.update((query, support) for support in chosen.values())
                return tuple(chosen.values())
    return ()


def _distractors(
    group: pairs.Eligible, query: int, everyone: np.ndarray, shown: set[tuple[int, int]], generator: np.random.Generator
) -> tuple[int, ...]:
    """Rows of distinct images in which no region, usable or not, is of the query's cluster."""
    chosen: dict[int, int] = {}
    if group.rules.distractors:
        label = int(group.table.label[query])
        tries = everyone[generator.integers(len(everyone), size=8 * group.rules.distractors)]
        for row in itertools.chain(tries.tolist(), _later(generator, everyone)):
            image = int(group.image[row])
            if (image, label) not in shown:
                chosen.setdefault(image, row)
                if len(chosen) == group.rules.distractors:
                    break
    return tuple(chosen.values())


def _later(generator: np.random.Generator, rows: np.ndarray) -> Iterator[int]:
    """The rows in random order, shuffled only once somebody asks."""
    yield from generator.permutation(rows).tolist()


def _shown(group: pairs.Eligible) -> set[tuple[int, int]]:
    """(image, label) of all regions."""
    return set(zip(group.image.tolist(), group.table.label.tolist(), strict=True))
