"""The nearest share of a cluster's regions for each query, by cosine: exactly, or with an estimated limit.

The limit of a query is the similarity that the share p = `nearest` of its candidates reaches: a quantile. Sampled, it
is the quantile of m random members. The share of candidates that reach the estimate then is p with a standard error of
sqrt(p (1 - p) / m), 0.016 for the half and m = 1000, whatever the size of the cluster; without replacement it is
smaller by sqrt(1 - m / M) among M members, so that m = M is exact. Supports follow by rejection: members are drawn,
those at or above the limit accepted. A query costs some m + 4 shots / p products instead of M.

Letters: R rows, D dimensions, M members of a cluster, m sampled ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from fss import rng
from fss.tasks.pairing.parts.rules import AcrossImages

Near = Callable[[np.random.Generator], Iterable[int]]
"""The candidates of one query in an order that a generator draws; without end repeats may come, but no own image."""
Search = Callable[[np.ndarray], Iterator[Near]]
"""From (n,) query rows of one cluster, equal ones next to each other, to the candidates of each."""

#: Similarities that are held at once, float32: 64 MiB.
_BLOCK = 1 << 24
#: Rounds of rejection before a query's candidates are searched exactly, each expected to accept this many supports.
_ROUNDS, _ACCEPTED = 8, 4


def search(descriptor: np.ndarray, image: np.ndarray, members: np.ndarray, rules: AcrossImages, *, seed: int) -> Search:
    """The search that `rules.similarity` names among the members (M,) of a cluster, rows of (R, D) and (R,) arrays.

    A cluster of no more than `rules.sample` members is searched exactly.
    """
    exact = Exact(descriptor, image, members, rules)
    if rules.similarity == "exact" or len(members) <= rules.sample:
        return exact
    return Sampled(exact, rng.numpy_rng(seed, "sample", members[0]).choice(members, rules.sample, replace=False))


class Exact:
    """Candidates are the `nearest` share, rounded up; more if fewer than `shots` images are among them."""

    def __init__(self, descriptor: np.ndarray, image: np.ndarray, members: np.ndarray, rules: AcrossImages):
        self.descriptor, self.image, self.members, self.rules = descriptor, image, members, rules

    def __call__(self, queries: np.ndarray) -> Iterator[Near]:
        """See `Search`."""
        distinct, times = _runs(queries)
        rows = _similarities(self.descriptor, self.image, distinct, self.members)
        for similarity, number in zip(rows, times, strict=True):
            near = self.nearest(similarity)
            yield from [lambda generator, near=near: map(int, generator.permutation(near))] * number

    def nearest(self, similarity: np.ndarray) -> np.ndarray:
        """Rows of a query's candidates, given (M,) similarities of the members, -inf in the query's own image."""
        count = int(np.isfinite(similarity).sum())
        number = int(np.ceil(self.rules.nearest * count))
        if number == 0:
            return self.members[:0]
        near = self.members[np.argpartition(similarity, len(similarity) - number)[-number:]]
        if self.rules.shots == 1 or len(set(self.image[near].tolist())) >= self.rules.shots:
            return near
        order = self.members[np.argsort(-similarity, kind="stable")[:count]]
        first = np.sort(np.unique(self.image[order], return_index=True)[1])[: self.rules.shots]
        return order[: max(number, int(first[-1]) + 1)]


class Sampled:
    """Candidates are the members at or above a limit estimated from `sample` (m,), drawn again and again."""

    def __init__(self, exact: Exact, sample: np.ndarray):
        self.exact, self.sample = exact, sample

    def __call__(self, queries: np.ndarray) -> Iterator[Near]:
        """See `Search`."""
        distinct, times = _runs(queries)
        for query, limit, number in zip(distinct.tolist(), self.limits(distinct), times, strict=True):
            yield from [lambda generator, q=query, limit=limit: self._draw(q, limit, generator)] * number

    def limits(self, queries: np.ndarray) -> Iterator[float]:
        """The estimated limit of the similarities of each query's candidates."""
        share = self.exact.rules.nearest
        for similarity in _similarities(self.exact.descriptor, self.exact.image, queries, self.sample):
            number = max(int(np.ceil(share * np.isfinite(similarity).sum())), 1)
            yield float(np.partition(similarity, len(similarity) - number)[-number])

    def _draw(self, query: int, limit: float, generator: np.random.Generator) -> Iterator[int]:
        descriptor, image, members = self.exact.descriptor, self.exact.image, self.exact.members
        size = int(np.ceil(_ACCEPTED * self.exact.rules.shots / self.exact.rules.nearest))
        for _ in range(_ROUNDS):
            rows = members[generator.integers(len(members), size=size)]
            rows = rows[image[rows] != image[query]]
            yield from rows[descriptor[rows] @ descriptor[query] >= limit].tolist()
        for near in self.exact(np.array([query])):  # all the same image, used up, or a limit that nothing reaches
            yield from near(generator)


def _similarities(
    descriptor: np.ndarray, image: np.ndarray, queries: np.ndarray, members: np.ndarray
) -> Iterator[np.ndarray]:
    """For each of (n,) queries the (M,) cosines to the members, -inf in its own image, computed in blocks."""
    candidates = descriptor[members]
    block = max(_BLOCK // len(members), 1)
    for start in range(0, len(queries), block):
        part = queries[start : start + block]
        similarity = descriptor[part] @ candidates.T
        similarity[image[part][:, None] == image[members]] = -np.inf
        yield from similarity


def _runs(values: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """(n,) values without those that repeat the one before, and how often each came in a row."""
    first = np.flatnonzero(np.diff(values, prepend=values[:1] - 1))
    return values[first], np.diff(first, append=len(values)).tolist()
