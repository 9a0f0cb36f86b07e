"""What labels stand for: clusters of k-means or, where label maps were made without it, the means of their regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fss.labelling import pseudo
from fss.tasks.pairing.parts import pairs


@dataclass(frozen=True)
class NamedClusters:
    """The clusters that labels name."""

    clusters: pseudo.Clusters
    first: int = 0
    """The least label that is one: 0 is nothing, where no k-means was run."""

    def nearest(self, table: pairs.RegionTable) -> tuple[np.ndarray, np.ndarray]:
        """The nearest cluster of each of R regions, (R,) int64, and the squared distance to its centroid, (R,) float32.

        Where no k-means put regions there, that is the cluster of their label.
        """
        if not self.first:
            return self.clusters.nearest(table.descriptor)
        away = table.descriptor - self.clusters.centroids[table.label]
        return table.label.astype(np.int64), np.square(away).sum(axis=1)


def of_means(sums: Sequence[np.ndarray], apart: bool) -> tuple[NamedClusters, list[int]]:
    """Clusters at the means of their regions, and what is to be added to each group's labels.

    Args:
        sums: of each group the (L + 1, D) sums of its labels' descriptors, L being the largest label.
        apart: whether one label of two groups is two clusters.
    """
    most = max(map(len, sums))
    start = [0] * len(sums)
    if apart:
        start = np.cumsum([0, *(len(one) - 1 for one in sums[:-1])]).tolist()
        total = np.concatenate([sums[0][:1], *(one[1:] for one in sums)])
    else:
        total = np.sum([np.pad(one, ((0, most - len(one)), (0, 0))) for one in sums], axis=0)
    lengths = np.linalg.norm(total, axis=1, keepdims=True)
    centroids = (total / np.maximum(lengths, 1e-12)).astype(np.float32)
    return NamedClusters(pseudo.Clusters(centroids, np.zeros(centroids.shape[1], np.float32)), first=1), start
