"""Connected segments: neighbouring tokens are merged by Ward's rule, the pair that costs least first.

The cost of a merge is the growth of the squared distances to the segments' means,
n_a n_b / (n_a + n_b) |m_a - m_b|^2 (Ward 1963), and only segments that share an edge of the grid (4 neighbours) are
merged: the number of segments falls by one with each merge, so one sequence of merges gives every granularity.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

import numpy as np
import torch


def agglomerate(fields: torch.Tensor, granularities: Sequence[int]) -> torch.Tensor:
    """Segments of (B, h, w, D) embeddings: (B, G, h, w) int64 on their device, see `fss.segments.segment`."""
    height, width = fields.shape[1:3]
    rows = fields.flatten(1, 2).float()
    products = (rows @ rows.transpose(1, 2)).cpu().numpy()
    trees = (list(_merges(image, height, width)) for image in products)
    found = np.stack([[_cut(tree, height * width, number) for number in granularities] for tree in trees])
    return torch.from_numpy(found).to(fields.device).unflatten(2, (height, width))


def _cut(merges: Sequence[tuple[int, int]], cells: int, number: int) -> np.ndarray:
    """The cells' segments when `number` are left, 0..S-1 in order of their first cell."""
    parent = np.arange(cells)
    for kept, gone in merges[: max(cells - number, 0)]:
        parent[gone] = kept
    while not np.array_equal(parent, above := parent[parent]):
        parent = above
    return np.unique(parent, return_inverse=True)[1].astype(np.int64)


def _merges(products: np.ndarray, height: int, width: int) -> Iterator[tuple[int, int]]:
    """(kept, gone) of every merge down to one segment, from the (N, N) inner products of the cells' embeddings.

    A segment is named by its first cell. Inner products of sums of tokens are sums of inner products, so nothing of
    length D is touched; entries of the heap that a merge has made old are known by their segments' ages.
    """
    sums = products.astype(np.float64)
    norms: list[float] = sums.diagonal().tolist()
    sizes, ages = [1] * len(sums), [0] * len(sums)
    around = _neighbours(height, width)
    heap = [(_cost(sums, norms, sizes, a, b), a, b, 0, 0) for a in range(len(sums)) for b in around[a] if a < b]
    heapq.heapify(heap)
    while heap:
        _, kept, gone, *seen = heapq.heappop(heap)
        if seen != [ages[kept], ages[gone]]:
            continue
        norms[kept] += norms[gone] + 2 * float(sums[kept, gone])
        sums[kept] += sums[gone]
        sums[:, kept] += sums[:, gone]
        sizes[kept] += sizes[gone]
        ages[kept] += 1
        ages[gone] = -1
        around[kept] |= around[gone]
        around[kept] -= {kept, gone}
        for other in around[kept]:
            around[other].discard(gone)
            around[other].add(kept)
            a, b = min(kept, other), max(kept, other)
            heapq.heappush(heap, (_cost(sums, norms, sizes, a, b), a, b, ages[a], ages[b]))
        yield kept, gone


def _neighbours(height: int, width: int) -> list[set[int]]:
    cells = np.arange(height * width).reshape(height, width)
    around: list[set[int]] = [set() for _ in range(height * width)]
    for a, b in ((cells[1:], cells[:-1]), (cells[:, 1:], cells[:, :-1])):
        for one, other in zip(a.ravel().tolist(), b.ravel().tolist(), strict=True):
            around[one].add(other)
            around[other].add(one)
    return around


def _cost(sums: np.ndarray, norms: list[float], sizes: list[int], a: int, b: int) -> float:
    first, second = sizes[a], sizes[b]
    apart = norms[a] / first**2 + norms[b] / second**2 - 2 * float(sums[a, b]) / (first * second)
    return round(first * second / (first + second) * apart, 6)  # rounding noise makes no difference between equals
