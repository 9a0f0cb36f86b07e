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
    """Segments of (B, h, w, D) embeddings: (B, G, h, w) int64 on their device, see `fss.labelling.segments.segment`."""
    height, width = fields.shape[1:3]
    trees = [list(_merges(image)) for image in fields.cpu().numpy().astype(np.float64)]
    segments = np.stack([[_cut(tree, height * width, number) for number in granularities] for tree in trees])
    return torch.from_numpy(segments).to(fields.device).unflatten(2, (height, width))


def _cut(merges: Sequence[tuple[int, int]], cells: int, number: int) -> np.ndarray:
    """The cells' segments when `number` are left, 0..S-1 in order of their first cell."""
    parent = np.arange(cells)
    for kept, gone in merges[: max(cells - number, 0)]:
        parent[gone] = kept
    while not np.array_equal(parent, above := parent[parent]):
        parent = above
    return np.unique(parent, return_inverse=True)[1].astype(np.int64)


def _merges(field: np.ndarray) -> Iterator[tuple[int, int]]:
    """(kept, gone) of every merge of an (h, w, D) float64 field down to one segment, named by its first cell.

    Entries of the heap that a merge has made old are known by their segments' ages.
    """
    sums = field.reshape(-1, field.shape[-1]).copy()
    norms: list[float] = np.einsum("nd,nd->n", sums, sums).tolist()
    sizes, ages = [1] * len(sums), [0] * len(sums)
    around: list[set[int]] = [set() for _ in sums]
    heap = []
    for a, b, product in _edges(field):
        around[a].add(b)
        around[b].add(a)
        heap.append((_cost(1, 1, norms[a], norms[b], product), a, b, 0, 0))
    heapq.heapify(heap)
    while heap:
        _, kept, gone, *seen = heapq.heappop(heap)
        if seen != [ages[kept], ages[gone]]:
            continue
        sums[kept] += sums[gone]
        sizes[kept] += sizes[gone]
        ages[kept], ages[gone] = ages[kept] + 1, -1
        around[gone].remove(kept)
        for other in around[gone]:
            around[other].remove(gone)
            around[other].add(kept)
        around[kept] = (around[kept] | around[gone]) - {gone}
        others = list(around[kept])
        block = sums.take([kept, *others], axis=0)
        norms[kept], *products = block.dot(block[0]).tolist()
        for other, product in zip(others, products, strict=True):
            cost = _cost(sizes[kept], sizes[other], norms[kept], norms[other], product)
            a, b = (kept, other) if kept < other else (other, kept)
            heapq.heappush(heap, (cost, a, b, ages[a], ages[b]))
        yield kept, gone


def _edges(field: np.ndarray) -> Iterator[tuple[int, int, float]]:
    """Each pair of neighbouring cells, the lower number first, and the inner product of their embeddings."""
    cells = np.arange(field.shape[0] * field.shape[1]).reshape(field.shape[:2])
    for (a, b), (x, y) in (
        ((cells[:-1], cells[1:]), (field[:-1], field[1:])),
        ((cells[:, :-1], cells[:, 1:]), (field[:, :-1], field[:, 1:])),
    ):
        products = np.einsum("ijd,ijd->ij", x, y)
        yield from zip(a.ravel().tolist(), b.ravel().tolist(), products.ravel().tolist(), strict=True)


def _cost(first: int, second: int, norm: float, other: float, product: float) -> float:
    """Growth of the squared distances when segments of so many cells, squared sums and product of sums are merged."""
    apart = norm / first**2 + other / second**2 - 2 * product / (first * second)
    return round(first * second / (first + second) * apart, 6)  # rounding noise makes no difference between equals
