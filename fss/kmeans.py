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
from fss.assign import assign, finite_rows, nearest

__all__ = ["Sums", "add", "assign", "converged", "fit", "initial_centroids", "nearest", "partial_sums", "step"]


@dataclasses.dataclass(frozen=True)
class Sums:
    """One part's contribution: (K, D) float64 sums, (K,) int64 counts and the float64 sum of squared distances."""

    totals: np.ndarray
    counts: np.ndarray
    inertia: float


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
    points = finite_rows(points)
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
