"""k-means in Hamming space on sign-random-projection codes, for many small sets at once.

UMTFSS, section "Feature-to-Prototype Assignment": hash the support features by the signs of random projections
(Shrivastava and Li 2014), then cluster the codes with Hamming distance, at O(N k r + N k b r + N d b).

Letters: B sets of N points of D dimensions, b bits, k clusters.
"""

from __future__ import annotations

import torch


def codes(points: torch.Tensor, planes: torch.Tensor) -> torch.Tensor:
    """Signs of the projections of (B, N, D) points on (b, D) planes: (B, N, b) float32 of -1 and +1."""
    return torch.where(points.float() @ planes.float().T >= 0, 1.0, -1.0)


def cluster(
    bits: torch.Tensor, members: torch.Tensor, start: torch.Tensor, k: int, rounds: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Lloyd with Hamming distance on each set: (B, N) labels in 0..k-1 and (B, k) bool, which clusters are in use.

    With -1/+1 codes the distance is (b - x.c) / 2, so the nearest centroid has the largest inner product; a centroid
    bit is the majority of its members', ties to +1. A cluster that loses its members keeps its centroid.

    Args:
        bits: (B, N, b) codes of -1 and +1.
        members: (B, N) bool, the points that take part; the labels of others mean nothing.
        start: (N,) scores in a fixed order of preference; the k members with the highest ones are the first centroids,
            of equal ones those that come first.
        k: number of clusters, at least 1; a set with fewer members uses as many clusters as it has members. Sets of no
            points get no clusters.
        rounds: Lloyd rounds.

    Raises:
        ValueError: for k below 1.
    """
    if k < 1:
        raise ValueError(
            f"expected at least 1 cluster, got {k}; raise model.options.foreground_prototypes or background_prototypes"
        )
    k = min(k, bits.shape[1])
    if k == 0:
        return members.new_zeros(members.shape, dtype=torch.int64), members.new_zeros(len(members), 0)
    order = start.argsort(descending=True, stable=True)  # topk leaves open which of equal scores it takes
    first = order[members[:, order].int().argsort(dim=1, descending=True, stable=True)[:, :k]]
    used = members.gather(1, first)
    centroids = bits.gather(1, first[..., None].expand(-1, -1, bits.shape[2]))
    closed = torch.where(used, 0.0, -torch.inf)[:, None]
    labels = _nearest(bits, centroids, closed)
    for _ in range(rounds):
        votes, counts = totals(bits, labels, members, k)
        majority = torch.where(votes >= 0, 1.0, -1.0)
        centroids = torch.where((counts > 0)[..., None], majority, centroids)
        before, labels = labels, _nearest(bits, centroids, closed)
        if not torch.compiler.is_exporting() and torch.equal(before, labels):  # nothing moves from here on
            break
    return labels, used & (totals(bits, labels, members, k)[1] > 0)


def _nearest(bits: torch.Tensor, centroids: torch.Tensor, closed: torch.Tensor) -> torch.Tensor:
    """(B, N) indices of the most similar centroids; `closed`, (B, 1, k), is added: 0, or -inf for those not in use."""
    return torch.baddbmm(closed, bits, centroids.transpose(1, 2)).argmax(dim=2)


def totals(
    values: torch.Tensor, labels: torch.Tensor, members: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums of (B, N, D) values over the members of each cluster, (B, k, D), and the numbers of members, (B, k)."""
    weight = members.to(values.dtype)
    sums = values.new_zeros(values.shape[0], k, values.shape[2])
    sums = sums.scatter_add(1, labels[..., None].expand_as(values), values * weight[..., None])
    counts = values.new_zeros(values.shape[0], k).scatter_add(1, labels, weight)
    return sums, counts
