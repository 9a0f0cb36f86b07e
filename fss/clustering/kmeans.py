"""Lloyd's k-means as sums that add: what one part of the points contributes, and what all parts together decide.

Whoever owns the machines has a `Part` of the points sum itself up and adds the results in a fixed order (`add`);
`lloyd` is the loop around them. A part that is kept moves only the points whose label has changed. Its sums are exact,
so that they are the same bits however often points have moved, and the result does not depend on who computed what.

Letters: N points, K centroids, D dimensions.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from fss import rng
from fss.clustering import rounded
from fss.clustering.assign import assign, labels_of, nearest
from fss.clustering.init import distinct, initial_centroids

__all__ = [
    "LloydOptions",
    "LloydState",
    "Part",
    "Sums",
    "add",
    "assign",
    "converged",
    "fit",
    "initial_centroids",
    "lloyd",
    "nearest",
    "partial_sums",
    "step",
]

#: Points that are turned to float64 and added at a time: few enough for the cache.
_BLOCK = 2048
#: A cluster whose points lie about their mean with less than this share of their squared distances has one place only.
_ONE_PLACE = 1e-4
#: Share of squared lengths below which a spread that is their difference has lost too many digits.
_LOST = 2.0**-20


@dataclasses.dataclass(frozen=True)
class Sums:
    """One part's contribution: per cluster sums of its points times their weights, weights, and numbers of points."""

    totals: np.ndarray
    """(K, D) float64"""
    weights: np.ndarray
    """(K,) float64; the counts where points carry no weights"""
    counts: np.ndarray
    """(K,) int64"""
    spread: np.ndarray
    """(K,) float64 weighted sums of the points' squared distances to the centroid."""

    @property
    def inertia(self) -> float:
        """Weighted sum of squared distances."""
        return float(self.spread.sum())


@dataclasses.dataclass(frozen=True)
class LloydOptions:
    """How k-means runs: see `fss.labelling.sources.clusters.Keys` for the fields."""

    clusters: int
    seed: int
    iterations: int = 25
    method: str = "k-means++"
    spherical: bool = False
    restarts: int = 1
    tolerance: float = 1e-5

    def start_seed(self, restart: int) -> int:
        """Seed of one restart's initialisation and steps."""
        return rng.mix(self.seed, "restart", restart) if restart else self.seed


@dataclasses.dataclass(frozen=True)
class Clustering:
    """A k-means that has ended, or stands after some iterations."""

    centroids: np.ndarray
    """(K, D) float32"""
    history: tuple[float, ...]
    """The inertia before each step; an empty one means that nothing was found yet."""
    counts: np.ndarray
    """(K,) int64 points of each cluster before the last step."""


@dataclasses.dataclass(frozen=True)
class LloydState:
    """Where `lloyd` stands: all that its next iteration depends on."""

    restart: int
    now: Clustering
    best: Clustering
    """The ended restart with the lowest last inertia, the earlier one if two are equal."""
    ended: bool
    """Whether the restart has converged or used up its iterations."""
    inertias: tuple[float, ...] = ()
    """Last inertia of each ended restart."""


class Part:
    """One part's points, and what the next iteration need not find again: their labels and the sums of their clusters.

    Points are added as multiples of so large a power of two that float64 holds every sum of them without rounding
    (Demmel and Nguyen 2015). What that takes from a point is less than 2**-49 of the longest point's length times
    the number of points. So adding those that come to a cluster and taking away those that leave it makes the same bits
    as adding up its points anew.
    """

    def __init__(self, points: np.ndarray, weights: np.ndarray | None = None):
        """Of (N, D) points, times their (N,) `weights` if they have any.

        Raises:
            ValueError: for weights that are not N finite numbers from 0.
        """
        self.points = np.ascontiguousarray(points, dtype=np.float32)
        self.weights = None if weights is None else np.asarray(weights, dtype=np.float64)
        if self.weights is not None:
            _check_weights(self.weights, len(self.points))
        self._labels: np.ndarray | None = None
        self._totals = np.zeros((0, 0))

    @property
    def nbytes(self) -> int:
        """Bytes of the points and of what is kept beside them."""
        beside = self._rounded.nbytes if "_rounded" in vars(self) else 0
        return self.points.nbytes + beside + 16 * len(self.points) + self._totals.nbytes

    @functools.cached_property
    def _rounded(self) -> rounded.Rounded:
        return rounded.Rounded(self.points)

    @functools.cached_property
    def _squares(self) -> np.ndarray:
        """(N,) float64 squared lengths, times the weights."""
        squares = np.einsum("nd,nd->n", self.points, self.points, dtype=np.float64)
        return squares if self.weights is None else squares * self.weights

    @functools.cached_property
    def _anchor(self) -> float:
        """Added and taken away again, it leaves of a number what is a multiple of the power of two."""
        longest = float(np.sqrt(self._squares.max(initial=0.0)))  # of a point times the root of its weight
        most = longest if self.weights is None else longest * float(np.sqrt(self.weights.max(initial=0.0)))
        return 1.5 * 2.0 ** (np.frexp(most * len(self.points))[1] + 2)

    def sums(self, centroids: np.ndarray) -> Sums:
        """Assign the points to (K, D) centroids and add them up per centroid.

        Raises:
            ValueError: for what `assign` refuses.
        """
        labels, num = self._assigned(centroids), len(centroids)
        self._move(labels, num)
        counts = np.bincount(labels, minlength=num)
        mass = counts.astype(np.float64) if self.weights is None else _by_label(labels, self.weights, num)
        return Sums(self._totals.copy(), mass, counts, self._spread(centroids, mass))

    def _assigned(self, centroids: np.ndarray) -> np.ndarray:
        """(N,) labels, in bfloat16 where that is faster and can be done; they are the same."""
        labels = self._rounded.labels(centroids) if rounded.pays(len(self.points) * len(centroids)) else None
        return labels_of(self.points, centroids) if labels is None else labels

    def _move(self, labels: np.ndarray, num: int) -> None:
        """Let the totals be those of `labels`."""
        before, self._labels = self._labels, labels
        if before is not None and len(self._totals) == num:
            moved = np.flatnonzero(labels != before)
            if 2 * len(moved) < len(labels):
                self._add(moved, np.stack([labels[moved], before[moved]], axis=1), (1.0, -1.0))
                return
        self._totals = np.zeros((num, self.points.shape[1]))
        self._add(np.arange(len(labels)), labels[:, None], (1.0,))

    def _add(self, rows: np.ndarray, labels: np.ndarray, signs: tuple[float, ...]) -> None:
        """Add the (n,) points numbered `rows`, times the s signs, to the totals of their (n, s) labels.

        A sparse matrix of memberships times a block, on one thread: its cost hardly grows with the number of clusters,
        and PyTorch's index_add_ waits for threads each time.
        """
        import scipy.sparse

        block = np.empty((min(_BLOCK, len(rows)), self.points.shape[1]))
        for start in range(0, len(rows), _BLOCK):
            own = rows[start : start + _BLOCK]
            exact = block[: len(own)]
            exact[:] = self.points[own]
            if self.weights is not None:
                exact *= self.weights[own, None]
            exact += self._anchor
            exact -= self._anchor
            present, place = np.unique(labels[start : start + len(own)], return_inverse=True)
            ends = np.arange(0, len(signs) * len(own) + 1, len(signs))
            shape = (len(present), len(own))
            member = scipy.sparse.csc_array((np.tile(signs, len(own)), place.ravel(), ends), shape=shape)
            self._totals[present] += member @ exact

    def _spread(self, centroids: np.ndarray, mass: np.ndarray) -> np.ndarray:
        """(K,) of `Sums`: squared lengths of points and centroids less twice their products.

        Where too few digits are left, that of the squared differences.
        """
        labels, centres = self._labels, centroids.astype(np.float64)
        assert labels is not None
        lengths = _by_label(labels, self._squares, len(centroids)) + mass * np.square(centres).sum(axis=1)
        spread = lengths - 2 * np.einsum("kd,kd->k", centres, self._totals)
        near = (spread <= _LOST * lengths) & (lengths > 0)
        rows = np.flatnonzero(near[labels])
        squares = np.empty(len(rows))
        for start in range(0, len(rows), _BLOCK):
            own = rows[start : start + _BLOCK]
            squares[start : start + _BLOCK] = np.square(self.points[own] - centres[labels[own]]).sum(axis=1)
        if self.weights is not None:
            squares *= self.weights[rows]
        spread[near] = _by_label(labels[rows], squares, len(centroids))[near]
        return spread


def partial_sums(points: np.ndarray, centroids: np.ndarray, weights: np.ndarray | None = None) -> Sums:
    """The sums of a `Part` that is not kept.

    Raises:
        ValueError: for what `Part` and its `sums` refuse.
    """
    return Part(points, weights).sums(centroids)


def _check_weights(weights: np.ndarray, number: int) -> None:
    if weights.shape != (number,) or not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError(f"expected {number} finite weights from 0, got {weights.shape}, least {weights.min():g}")


def _by_label(labels: np.ndarray, values: np.ndarray, num: int) -> np.ndarray:
    """(num,) float64 sums in the order of the points; `bincount` makes integers of no points."""
    return np.bincount(labels, values, minlength=num).astype(np.float64)


def add(parts: Iterable[Sums]) -> Sums:
    """Add one or more contributions in the order given, one in memory at a time; the same order gives the same bits.

    Raises:
        ValueError: for no contributions.
    """
    feed = iter(parts)
    first = next(feed, None)
    if first is None:
        raise ValueError("expected the sums of at least one part, got none")
    total = Sums(**{name: array.copy() for name, array in vars(first).items()})
    for part in feed:
        for name, array in vars(total).items():
            np.add(array, getattr(part, name), out=array)
    return total


def step(sums: Sums, centroids: np.ndarray, *, seed: int, spherical: bool = False) -> np.ndarray:
    """New (K, D) float32 centroids: the means, all different; clusters without points take half of a large one's.

    A cluster that has no points, or the same mean as one before it, copies a donor drawn with probability proportional
    to its points minus one, and the two move apart by 1/1024 of the points' length, so that the next assignment divides
    the donor's points (FAISS does much the same). A donor has points of more than one place.

    Only where there are too few places for so many clusters, some stay where they were.
    """
    filled = sums.weights > 0
    counts = np.where(filled, sums.counts, 0)
    means = centroids.astype(np.float64)
    means[filled] = sums.totals[filled] / sums.weights[filled, None]
    lengths = np.sqrt(_inner(sums, centroids, means) / np.where(filled, sums.weights, 1))
    generator = rng.numpy_rng(seed, "empty clusters")
    for empty in _lost(means, filled, spherical):
        spare = np.maximum(counts - 1, 0) * (lengths > 0)
        if spare.sum() == 0:
            break
        donor = generator.choice(len(counts), p=spare / spare.sum())
        apart = _direction(generator, means.shape[1]) * np.hypot(np.linalg.norm(means[donor]), lengths[donor]) / 1024
        means[empty], means[donor] = means[donor] + apart, means[donor] - apart
        lengths[empty] = lengths[donor]
        counts[empty] = counts[donor] // 2
        counts[donor] -= counts[empty]
    return _placed(means, spherical)


def _inner(sums: Sums, centroids: np.ndarray, means: np.ndarray) -> np.ndarray:
    """(K,) weighted sums of the points' squared distances to their mean; 0 where all points have one place."""
    moved = sums.weights * np.square(means - centroids).sum(axis=1)
    return np.where(sums.spread - moved > _ONE_PLACE * sums.spread, sums.spread - moved, 0.0)


def _lost(means: np.ndarray, filled: np.ndarray, spherical: bool) -> np.ndarray:
    """The clusters that have no points, or the centroid of one before them."""
    kept = distinct(_placed(means, spherical), np.flatnonzero(filled))
    return np.setdiff1d(np.arange(len(means)), kept)


def _placed(means: np.ndarray, spherical: bool) -> np.ndarray:
    """(K, D) float32 centroids, if `spherical` of length 1."""
    if spherical:
        means = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    return means.astype(np.float32)


def _direction(generator: np.random.Generator, dims: int) -> np.ndarray:
    drawn = generator.standard_normal(dims)
    return np.asarray(drawn / np.linalg.norm(drawn))


def lloyd(
    sums_of: Callable[[np.ndarray], Sums],
    start: Callable[[int], np.ndarray],
    recipe: LloydOptions,
    state: LloydState | None = None,
) -> Iterator[LloydState]:
    """k-means with restarts; yields after every iteration. The last state's `best` is the result.

    A restart ends after `recipe.iterations`, or once an iteration lowers the inertia by no more than
    `recipe.tolerance` of it while no cluster is empty. Of the restarts the one with the lowest last inertia wins.

    Args:
        sums_of: adds up all points for (K, D) centroids.
        start: the first (K, D) centroids of a seed.
        recipe: how it runs.
        state: go on from here, with the same outcome as if it had never stopped.
    """
    if state is None:
        nothing = Clustering(np.zeros((0, 0), np.float32), (), np.zeros(0, np.int64))
        state = LloydState(-1, nothing, nothing, ended=True)
    while not (state.ended and state.restart + 1 == recipe.restarts):
        if state.ended:
            begun = Clustering(start(recipe.start_seed(state.restart + 1)), (), np.zeros(0, np.int64))
            state = dataclasses.replace(state, restart=state.restart + 1, now=begun, ended=False)
        state = _iteration(sums_of, recipe, state)
        yield state


def _iteration(sums_of: Callable[[np.ndarray], Sums], recipe: LloydOptions, state: LloydState) -> LloydState:
    done = len(state.now.history)
    sums = sums_of(state.now.centroids)
    seed = rng.mix(recipe.start_seed(state.restart), done)
    centroids = step(sums, state.now.centroids, seed=seed, spherical=recipe.spherical)
    now = Clustering(centroids, (*state.now.history, sums.inertia), sums.counts)
    still = converged(now.history, recipe.tolerance) and bool(sums.counts.all())
    if not (still or done + 1 >= recipe.iterations):
        return dataclasses.replace(state, now=now)
    better = not state.best.history or sums.inertia < state.best.history[-1]
    inertias = (*state.inertias, sums.inertia)
    return LloydState(state.restart, now, now if better else state.best, ended=True, inertias=inertias)


def converged(history: Sequence[float], tolerance: float = 1e-5) -> bool:
    """Whether the last step lowered the inertia by no more than `tolerance` of it."""
    return len(history) >= 2 and history[-2] - history[-1] <= tolerance * history[-2]


def fit(
    points: np.ndarray,
    num: int,
    *,
    seed: int,
    iterations: int = 25,
    method: str = "k-means++",
    spherical: bool = False,
    restarts: int = 1,
    tolerance: float = 1e-5,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, list[float]]:
    """k-means of one part in this process: (num, D) centroids and the inertia before each step.

    Raises:
        ValueError: for fewer distinct points than clusters, and for what `Part` refuses.
    """
    recipe = LloydOptions(num, seed, iterations, method, spherical, restarts, tolerance)
    part = Part(points, weights)

    def start(restart_seed: int) -> np.ndarray:
        return initial_centroids(points, num, seed=restart_seed, method=method, weights=weights)

    for state in lloyd(part.sums, start, recipe):
        best = state.best
    return best.centroids, list(best.history)
