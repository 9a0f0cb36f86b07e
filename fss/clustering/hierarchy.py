"""Hierarchical k-means: clusters of clusters, so that frequent things do not get most of the labels.

k-means gives dense regions many centroids and rare things few. Clustering the centroids again, each counting once,
evens that out; resampling, the points next to each centroid alone being clustered anew, evens it out further (Vo et al.
2024, "Automatic Data Curation for Self-Supervised Learning: A Clustering-Based Approach", Algorithm 1).

Letters: F finest centroids, K clusters of a level, D dimensions.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from fss import rng
from fss.clustering import kmeans

_RESAMPLINGS = 10


def ancestors(
    centroids: np.ndarray,
    sizes: Sequence[int],
    *,
    seed: int,
    iterations: int = 50,
    method: str = "k-means++",
    spherical: bool = False,
    resamplings: int = _RESAMPLINGS,
) -> tuple[np.ndarray, np.ndarray]:
    """Cluster the finest (F, D) centroids level by level.

    Args:
        centroids: the finest level, float32.
        sizes: numbers of clusters of the levels above it, falling.
        seed: of every level's starts.
        iterations: of each k-means.
        method: initialisation, `k-means++` or `random`.
        spherical: whether centroids are scaled to length 1.
        resamplings: times that a level's centroids are computed anew from the points next to them.

    Returns:
        (F,) int64 clusters of the last level, and that level's (K, D) float32 centroids.

    Raises:
        ValueError: for sizes that do not fall, or fewer distinct points than clusters at a level.
    """
    check_sizes([len(centroids), *sizes])
    parents = np.arange(len(centroids), dtype=np.int64)
    level = centroids
    for number, size in enumerate(sizes):

        def fit(points: np.ndarray, round_: int, size: int = size, number: int = number) -> np.ndarray:
            name = rng.mix(seed, "level", number, round_)
            return kmeans.fit(points, size, seed=name, iterations=iterations, method=method, spherical=spherical)[0]

        above = fit(level, 0)
        each = max(2, len(level) // (2 * size))
        for round_ in range(1, resamplings + 1):
            central = most_central(level, above, each)
            if len(central) <= size:
                break
            above = fit(level[central], round_)
        parents = kmeans.assign(level, above)[0][parents]
        level = above
    return parents, level


def check_sizes(sizes: Sequence[int]) -> None:
    """Refuse levels that do not get coarser.

    Raises:
        ValueError: if `sizes`, from the finest level up, do not fall or end below 1.
    """
    if any(low >= high for high, low in itertools.pairwise(sizes)) or min(sizes) < 1:
        raise ValueError(f"expected levels of fewer and fewer clusters, at least 1, got {list(sizes)}")


def most_central(points: np.ndarray, centroids: np.ndarray, each: int) -> np.ndarray:
    """The `each` points nearest to each of (K, D) centroids among its own (fewer if it has fewer): sorted int64."""
    labels, distances = kmeans.assign(points, centroids)
    order = np.lexsort((distances, labels))
    starts = np.searchsorted(labels[order], np.arange(len(centroids)))
    rank = np.arange(len(order)) - starts[labels[order]]
    return np.sort(order[rank < each])
