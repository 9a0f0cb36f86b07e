"""Where k-means starts: k-means++ or random points, all different from each other.

Letters: N points, K clusters, D dimensions.
"""

from __future__ import annotations

import numpy as np

from fss import rng
from fss.clustering.assign import finite_rows

#: Up to this many clusters k-means++ draws one by one; beyond it draws this many times, several at a time.
_DRAWS = 2048
_SHARE = 1e-3


def points_wanted(clusters: int) -> int:
    """Points that a start should be drawn from: 65,536, or 64 a cluster if that is more, but no more than 2**20.

    A start has to hit every dense region, not to measure it: with 64 points a cluster, one that holds a tenth of its
    fair share is missed with probability 0.002, and Lloyd's iterations see all points anyway. The bound keeps the
    start of 30,000 clusters within memory and time, with 35 points a cluster.
    """
    return max(65_536, min(64 * clusters, 2**20))


def initial_centroids(
    points: np.ndarray, num: int, *, seed: int, method: str = "k-means++", weights: np.ndarray | None = None
) -> np.ndarray:
    """(num, D) float32 starting centroids, drawn from the (N, D) points: `k-means++` or `random`; all are different.

    k-means++ (Arthur and Vassilvitskii 2007) draws each next centroid with probability proportional to its squared
    distance from those drawn before, times its weight. For more than 2,048 clusters several are drawn between two
    updates of the distances (as in k-means||, Bahmani et al. 2012), so that the cost stays a fraction of an iteration.

    Raises:
        ValueError: for fewer distinct points than clusters, NaN, or an unknown method.
    """
    points = finite_rows(points)
    if len(points) < num:
        raise ValueError(
            f"expected at least as many points as clusters, got {len(points)} points for {num} clusters; "
            "lower source.clusters or sample more (source.points_per_image)"
        )
    generator = rng.numpy_rng(seed, "k-means init")
    mass = np.ones(len(points)) if weights is None else np.asarray(weights, dtype=np.float64)
    if method == "random":
        return points[_random(points, num, mass, generator)]
    if method != "k-means++":
        raise ValueError(f"expected a k-means init of 'k-means++' or 'random', got {method!r}")
    return points[_plus_plus(points, num, mass, generator)]


def _random(points: np.ndarray, num: int, mass: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    usable = np.flatnonzero(mass > 0)
    if len(usable) >= num:
        chosen = np.sort(generator.choice(usable, size=num, replace=False))
        if len(distinct(points, chosen)) == num:
            return chosen
    usable = distinct(points, usable)
    if len(usable) < num:
        raise ValueError(_too_few(len(usable), len(points), num))
    return np.sort(generator.choice(usable, size=num, replace=False))


def distinct(points: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Sorted int64 numbers: the first of each group of equal rows among the `chosen` ones."""
    rows = np.ascontiguousarray(points[chosen] + 0.0)  # -0.0 becomes 0.0
    keys = rows.view(np.dtype((np.void, rows.strides[0])))[:, 0]
    return chosen[np.sort(np.unique(keys, return_index=True)[1])]


def _plus_plus(points: np.ndarray, num: int, mass: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    norms = np.einsum("nd,nd->n", points, points, dtype=np.float64)
    chosen = generator.choice(len(points), size=1, p=mass / mass.sum())
    nearest = np.full(len(points), np.inf)
    batch = -(-num // _DRAWS)
    new = chosen
    while True:
        nearest = np.minimum(nearest, _nearest_of(points, norms, new))
        if len(chosen) >= num:
            return chosen
        chances = nearest * mass
        possible = int(np.count_nonzero(chances))
        if not possible:
            raise ValueError(_too_few(len(chosen), len(points), num))
        size = min(batch, num - len(chosen), possible)
        new = generator.choice(len(points), size=size, replace=False, p=chances / chances.sum())
        if size > 1:
            new = distinct(points, new)
        chosen = np.concatenate([chosen, new])


def _nearest_of(points: np.ndarray, norms: np.ndarray, new: np.ndarray) -> np.ndarray:
    """(N,) float64 squared distance to the nearest of the points numbered `new`; exactly 0 between equal points.

    The expanded square is fast, but cannot tell near points from equal ones: those are subtracted instead.
    """
    products = points @ points[new].T
    squares = norms[:, None] + norms[new] - 2.0 * products
    best = squares.argmin(axis=1)
    least = squares[np.arange(len(points)), best]
    near = np.flatnonzero(least <= _SHARE * (norms + norms[new][best]))
    for start in range(0, len(near), 4096):
        rows = near[start : start + 4096]
        apart = points[rows, None].astype(np.float64) - points[new]
        least[rows] = np.square(apart, out=apart).sum(axis=2).min(axis=1)
    return least


def _too_few(distinct: int, number: int, clusters: int) -> str:
    return (
        f"expected at least {clusters} distinct points for {clusters} clusters, got {distinct} distinct ones among "
        f"{number}; lower source.clusters to {distinct} or less, or sample more varied images (source.shards)"
    )
