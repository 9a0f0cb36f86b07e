"""Lloyd's k-means as sums that add: what one part of the points contributes, and what all parts together decide.

Whoever owns the machines calls `partial_sums` on every part, adds the results in a fixed order (`add`) and takes the
`step`. Sums are float64 and counts integers, so the result does not depend on who computed which part; up to the
assignment's own float32 rounding it is the k-means of one process.

Letters: N points, K centroids, D dimensions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from fss import rng


@dataclasses.dataclass(frozen=True)
class Sums:
    """One part's contribution: (K, D) float64 sums, (K,) int64 counts and the float64 sum of squared distances."""

    totals: np.ndarray
    counts: np.ndarray
    inertia: float


def assign(points: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest centroid of each point: (N,) int64 labels and (N,) float32 squared distances, ties to the lower label.

    Uses FAISS where it is installed and a blocked matrix product otherwise.

    Raises:
        ValueError: for points or centroids that are not 2-D, disagree in D, or are not finite.
    """
    points, centroids = _checked(points), _checked(centroids)
    if points.shape[1] != centroids.shape[1]:
        raise ValueError(f"expected points and centroids of one dimension, got {points.shape} and {centroids.shape}")
    try:
        import faiss
    except ImportError:
        return _assign_blocked(points, centroids)
    index = faiss.IndexFlatL2(centroids.shape[1])
    index.add(centroids)
    distances, labels = index.search(points, 1)
    return labels[:, 0], np.maximum(distances[:, 0], 0)


def _checked(array: np.ndarray) -> np.ndarray:
    array = np.ascontiguousarray(array, dtype=np.float32)
    if array.ndim != 2:
        raise ValueError(f"expected an array of shape (number, dimensions), got {array.shape}")
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array).all(axis=1)).sum())
        raise ValueError(f"expected finite numbers, got {bad} rows with NaN or infinity; check the backbone's weights")
    return array


def _assign_blocked(points: np.ndarray, centroids: np.ndarray, block: int = 65536) -> tuple[np.ndarray, np.ndarray]:
    labels = np.empty(len(points), dtype=np.int64)
    distances = np.empty(len(points), dtype=np.float32)
    norms = (centroids**2).sum(axis=1)
    for start in range(0, len(points), block):
        part = points[start : start + block]
        scores = norms - 2 * part @ centroids.T
        nearest = scores.argmin(axis=1)
        labels[start : start + block] = nearest
        best = scores[np.arange(len(part)), nearest] + (part**2).sum(axis=1)
        distances[start : start + block] = np.maximum(best, 0)
    return labels, distances


def partial_sums(points: np.ndarray, centroids: np.ndarray) -> Sums:
    """Assign one part's (N, D) points and add them up per centroid."""
    labels, distances = assign(points, centroids)
    num = len(centroids)
    counts = np.bincount(labels, minlength=num)
    order = np.argsort(labels, kind="stable")
    filled = np.flatnonzero(counts)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])[filled]
    totals = np.zeros(centroids.shape, dtype=np.float64)
    if len(points):
        totals[filled] = np.add.reduceat(points[order].astype(np.float64), starts, axis=0)
    return Sums(totals, counts, float(distances.sum(dtype=np.float64)))


def add(parts: Sequence[Sums]) -> Sums:
    """Add contributions in the order given; the same order gives the same bits."""
    totals, counts, inertia = parts[0].totals.copy(), parts[0].counts.copy(), parts[0].inertia
    for part in parts[1:]:
        totals += part.totals
        counts += part.counts
        inertia += part.inertia
    return Sums(totals, counts, inertia)


def step(sums: Sums, centroids: np.ndarray, *, seed: int, spherical: bool = False) -> np.ndarray:
    """New (K, D) float32 centroids: the means, empty clusters taking half of a large one as FAISS does.

    An empty cluster copies a donor drawn with probability proportional to its size minus one, and the two move apart by
    1/1024 of their coordinates, so that the next assignment divides the donor's points.
    """
    counts = sums.counts.copy()
    filled = counts > 0
    means = centroids.astype(np.float64)
    means[filled] = sums.totals[filled] / counts[filled, None]
    generator = rng.numpy_rng(seed, "empty clusters")
    signs = np.where(np.arange(means.shape[1]) % 2, 1.0, -1.0) / 1024
    for empty in np.flatnonzero(~filled):
        weights = np.maximum(counts - 1, 0).astype(np.float64)
        if weights.sum() == 0:
            break  # fewer distinct points than clusters: the rest stays where it is
        donor = generator.choice(len(counts), p=weights / weights.sum())
        means[empty] = means[donor] * (1 + signs)
        means[donor] = means[donor] * (1 - signs)
        counts[empty] = counts[donor] // 2
        counts[donor] -= counts[empty]
    if spherical:
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    return means.astype(np.float32)


def initial_centroids(points: np.ndarray, num: int, *, seed: int, method: str = "k-means++") -> np.ndarray:
    """(num, D) float32 starting centroids, drawn from the (N, D) points: `k-means++` or `random`.

    k-means++ (Arthur and Vassilvitskii 2007) draws each next centroid with probability proportional to its squared
    distance from those drawn before.

    Raises:
        ValueError: for fewer points than clusters, or an unknown method.
    """
    points = _checked(points)
    if len(points) < num:
        raise ValueError(
            f"expected at least as many points as clusters, got {len(points)} points for {num} clusters; "
            "lower source.clusters or sample more (source.points_per_image)"
        )
    generator = rng.numpy_rng(seed, "k-means init")
    if method == "random":
        return points[np.sort(generator.choice(len(points), size=num, replace=False))]
    if method != "k-means++":
        raise ValueError(f"expected a k-means init of 'k-means++' or 'random', got {method!r}")
    chosen = [int(generator.integers(len(points)))]
    nearest = ((points - points[chosen[0]]) ** 2).sum(axis=1, dtype=np.float64)
    while len(chosen) < num:
        total = nearest.sum()
        probabilities = nearest / total if total > 0 else None
        chosen.append(int(generator.choice(len(points), p=probabilities)))
        nearest = np.minimum(nearest, ((points - points[chosen[-1]]) ** 2).sum(axis=1, dtype=np.float64))
    return points[chosen]


def fit(
    points: np.ndarray, num: int, *, seed: int, iterations: int = 25, method: str = "k-means++", spherical: bool = False
) -> tuple[np.ndarray, list[float]]:
    """k-means of one part in this process: (num, D) centroids and the inertia before each step."""
    centroids = initial_centroids(points, num, seed=seed, method=method)
    history: list[float] = []
    for iteration in range(iterations):
        sums = partial_sums(points, centroids)
        history.append(sums.inertia)
        centroids = step(sums, centroids, seed=rng.mix(seed, iteration), spherical=spherical)
        if converged(history):
            break
    return centroids, history


def converged(history: Sequence[float], tolerance: float = 1e-5) -> bool:
    """Whether the last step lowered the inertia by less than `tolerance` of it."""
    return len(history) >= 2 and history[-2] - history[-1] <= tolerance * history[-2]
