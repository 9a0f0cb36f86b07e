"""Points to cluster, and plain loops to compare with."""

import numpy as np


def points(number: int = 200, dims: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((number, dims)).astype(np.float32)


def integers(number: int, dims: int, seed: int) -> np.ndarray:
    """Points whose distances and sums are exact in float32, so that equality can be asked for."""
    return np.random.default_rng(seed).integers(-4, 5, (number, dims)).astype(np.float32)


def loop_assign(rows: np.ndarray, centroids: np.ndarray) -> tuple[list[int], list[float]]:
    labels, distances = [], []
    for row in rows.astype(np.float64):
        each = [float(((row - c) ** 2).sum()) for c in centroids.astype(np.float64)]
        labels.append(each.index(min(each)))
        distances.append(min(each))
    return labels, distances
