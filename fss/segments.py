"""Object-like segments of an image from frozen features: a Ward tree in the embedding of the normalised cut.

The leading eigenvectors of the token graph (Shi and Malik 2000; TokenCut, Wang et al. 2022, cuts along the second)
place tokens of one thing close together; cutting a tree in that space at several numbers of segments gives wholes
and parts. Segments need not be connected: two birds make one segment, as in a class mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage

#: Eigenvalues below this are rounding.
_NOISE = 1e-6


def spectral(tokens: np.ndarray, numbers: Sequence[int], dims: int = 6, power: float = 5.0) -> list[np.ndarray]:
    """Segments of one image at each granularity.

    Args:
        tokens: (h, w, D) float32 embeddings of length 1.
        numbers: segments at each granularity; an image with fewer distinct parts gets fewer.
        dims: eigenvectors that are looked at.
        power: the affinity of two tokens is max(cosine, 0) ** power.

    Returns:
        One (h, w) int64 map of 0..S-1 for each of `numbers`.
    """
    shape = tokens.shape[:2]
    tree = linkage(normalised_cut(tokens.reshape(-1, tokens.shape[-1]), dims, power), "ward")
    found = []
    for number in numbers:
        labels = fcluster(tree, number, "maxclust")
        found.append(np.unique(labels, return_inverse=True)[1].reshape(shape))
    return found


def normalised_cut(tokens: np.ndarray, dims: int, power: float) -> np.ndarray:
    """Leading non-trivial eigenvectors of the random walk on (N, D) tokens: (N, dims) float64.

    Column r is scaled to a standard deviation of 1 / sqrt(r), so that coarser cuts weigh more; signs are arbitrary.
    Columns without structure (eigenvalue 0, as in a plain image) are zero, and values are rounded, so that rounding
    noise makes no segments.
    """
    rows = torch.from_numpy(np.ascontiguousarray(tokens))
    affinity = (rows @ rows.T).clamp_min(0).double() ** power
    affinity.fill_diagonal_(1.0)  # also for a token of zeros, which is like nothing but itself
    scale = affinity.sum(dim=1).rsqrt()
    values, vectors = torch.linalg.eigh(affinity * scale[:, None] * scale[None])
    dims = min(dims, len(tokens) - 1)
    found = vectors[:, -1 - dims : -1].flip(1) * scale[:, None]
    spread = found.std(dim=0, correction=0).clamp_min(1e-12)
    rank = torch.arange(1, dims + 1, dtype=found.dtype)
    real = values[-1 - dims : -1].flip(0) > _NOISE
    return (found / spread / rank.sqrt() * real).numpy().round(8)
