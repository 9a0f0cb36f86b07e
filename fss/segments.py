"""Unsupervised segments of one image on its feature grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def agglomerate(grid: np.ndarray, numbers: Sequence[int]) -> list[np.ndarray]:
    """Ward's merging of neighbouring cells, cut at each of `numbers` segments: (h, w) int64 maps of 0..S-1."""
    from sklearn.cluster import AgglomerativeClustering
    from sklearn.feature_extraction.image import grid_to_graph

    rows = grid.reshape(-1, grid.shape[-1])
    graph = grid_to_graph(*grid.shape[:2])
    found = []
    for number in numbers:
        labels = AgglomerativeClustering(n_clusters=number, connectivity=graph).fit_predict(rows)
        found.append(labels.reshape(grid.shape[:2]).astype(np.int64))
    return found
