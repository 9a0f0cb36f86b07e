"""Segments of an image: tokens merged by average linkage, whatever a support shows."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F


def agglomerate(tokens: np.ndarray, tau: float) -> np.ndarray:
    """Segments of (N, D) unit tokens by average linkage, as long as mean cosines reach `tau`: (N,) int64 of 0..S-1."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    if len(tokens) < 2:
        return np.zeros(len(tokens), dtype=np.int64)
    distances = np.clip(1 - tokens @ tokens.T, 0, None).astype(np.float64)
    np.fill_diagonal(distances, 0)
    tree = linkage(squareform(distances, checks=False), "average")
    return fcluster(tree, 1 - tau, "distance").astype(np.int64) - 1


def segments(tokens: torch.Tensor, tau: float) -> torch.Tensor:
    """(B, N) int64 segments of (B, C, N) unit tokens, each image's own from 0; see `agglomerate`."""
    rows = tokens.detach().float().transpose(1, 2).cpu().numpy()
    return torch.from_numpy(np.stack([agglomerate(image, tau) for image in rows])).to(tokens.device)


def averaging(labels: torch.Tensor) -> torch.Tensor:
    """What makes of values of (B, N) cells the means of their S segments: (B, S, N) float32, rows sum to 1.

    S is the most segments that an image has; rows of those that another one lacks are zero.
    """
    members = F.one_hot(labels).transpose(1, 2).float()
    return members / members.sum(dim=2, keepdim=True).clamp_min(1)
