"""How often images, clusters and pairs of regions are used by tasks."""

from __future__ import annotations

import dataclasses
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence

from fss.tasks.pairing.parts.pairs import Pairing, RegionTable


@dataclasses.dataclass(frozen=True)
class Use:
    """One image, cluster or pair, and the number of tasks that use it.

    `name` is an image's key, a cluster's number, or a pair's regions as `key.layer.cluster key.layer.cluster`, the
    query's first. `tasks` counts an image as a query only.
    """

    kind: str
    name: str
    tasks: int
    supports: int = 0
    distractors: int = 0

    @property
    def uses(self) -> int:
        """Times in any role."""
        return self.tasks + self.supports + self.distractors


def used(table: RegionTable, pairings: Sequence[Pairing]) -> list[Use]:
    """What the pairings over `table` use: images, clusters, then pairs of query and support, each sorted by name."""
    roles = [
        Counter(str(table.key[p.query]) for p in pairings),
        Counter(str(table.key[row]) for p in pairings for row in p.supports),
        Counter(str(table.key[row]) for p in pairings for row in p.distractors),
    ]
    images = [Use("image", key, *(role[key] for role in roles)) for key in sorted(set().union(*roles))]
    labels = Counter(int(table.label[p.query]) for p in pairings)
    clusters = [Use("cluster", str(label), number) for label, number in sorted(labels.items())]
    together = Counter((p.query, row) for p in pairings for row in p.supports)
    names = {" ".join(_region(table, row) for row in pair): number for pair, number in together.items()}
    return images + clusters + [Use("pair", name, number) for name, number in sorted(names.items())]


def _region(table: RegionTable, row: int) -> str:
    return f"{table.key[row]}.{table.layer[row]}.{table.label[row]}"


def sums(uses: Iterable[Use]) -> dict[str, int]:
    """What adds over groups of disjoint images: `used_images` and `used_pairs` that are distinct, all `image_uses`."""
    images = [use.uses for use in uses if use.kind == "image"]
    pairs = sum(use.kind == "pair" for use in uses)
    return {"used_images": len(images), "image_uses": sum(images), "used_pairs": pairs}


@dataclasses.dataclass(frozen=True)
class Peaks:
    """What does not add but can be merged: the most uses of an image and of a pair, and each cluster's tasks."""

    image: int
    pair: int
    clusters: dict[str, int]

    @classmethod
    def of(cls, uses: Sequence[Use]) -> Peaks:
        """The peaks of one group."""
        image, pair = (max((u.uses for u in uses if u.kind == kind), default=0) for kind in ("image", "pair"))
        return cls(image, pair, {use.name: use.tasks for use in uses if use.kind == "cluster"})

    @staticmethod
    def merged(parts: Sequence[Peaks]) -> dict[str, int]:
        """Over all groups: the most uses, `used_clusters`, and least, median and most tasks of a used cluster."""
        clusters: Counter[str] = Counter()
        for part in parts:
            clusters.update(part.clusters)
        tasks = list(clusters.values()) or [0]
        return {
            "image_uses_max": max((part.image for part in parts), default=0),
            "pair_uses_max": max((part.pair for part in parts), default=0),
            "used_clusters": len(clusters),
            "cluster_tasks_min": min(tasks),
            "cluster_tasks_median": round(statistics.median(tasks)),
            "cluster_tasks_max": max(tasks),
        }
