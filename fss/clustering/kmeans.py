"""Lloyd's k-means as sums that add: what one part of the points contributes, and what all parts together decide.

Whoever owns the machines calls `partial_sums` on every part and adds the results in a fixed order (`add`); `lloyd` is
the loop around them. Sums are float64 and counts integers, so the result does not depend on who computed which part; up
to the assignment's own float32 rounding it is the k-means of one process.

Letters: N points, K centroids, D dimensions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from fss import rng
from fss.clustering.assign import assign, nearest
from fss.clustering.init import distinct, initial_centroids

__all__ = [
    "LloydOptions",
    "LloydState",
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


def partial_sums(points: np.ndarray, centroids: np.ndarray, weights: np.ndarray | None = None) -> Sums:
    """Assign one part's (N, D) points and add them up per centroid, times their (N,) `weights` if they have any.

    Raises:
        ValueError: for what `assign` refuses, and for weights that are not N finite numbers from 0.
    """
    labels, distances = assign(points, centroids)
    num = len(centroids)
    counts = np.bincount(labels, minlength=num)
    if weights is None:
        mass = counts.astype(np.float64)
    else:
        weights = np.asarray(weights, dtype=np.float64)
        if weights.shape != labels.shape or not (np.isfinite(weights) & (weights >= 0)).all():
            raise ValueError(
                f"expected {len(labels)} finite weights from 0, got {weights.shape}, least {weights.min():g}"
            )
        mass, distances = _by_label(labels, weights, num), distances * weights
    return Sums(_totals(points, labels, num, weights), mass, counts, _by_label(labels, distances, num))


def _by_label(labels: np.ndarray, values: np.ndarray, num: int) -> np.ndarray:
    """(num,) float64 sums in the order of the points; `bincount` makes integers of no points."""
    return np.bincount(labels, values, minlength=num).astype(np.float64)


def _totals(points: np.ndarray, labels: np.ndarray, num: int, weights: np.ndarray | None) -> np.ndarray:
    """(num, D) float64 sums in the order of the points, at a cost that hardly grows with `num`.

    A sparse matrix of memberships times a block, on one thread; PyTorch's index_add_ waits for threads at each block.
    """
    import scipy.sparse

    totals = np.zeros((num, points.shape[1]), dtype=np.float64)
    for start in range(0, len(points), _BLOCK):
        rows = slice(start, start + _BLOCK)
        present, place = np.unique(labels[rows], return_inverse=True)
        share = np.ones(len(place)) if weights is None else weights[rows]
        shape = (len(present), len(place))
        member = scipy.sparse.csc_array((share, place, np.arange(len(place) + 1)), shape=shape)
        totals[present] += member @ points[rows].astype(np.float64)
    return totals


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
        ValueError: for fewer distinct points than clusters, and for what `partial_sums` refuses.
    """
    recipe = LloydOptions(num, seed, iterations, method, spherical, restarts, tolerance)

    def start(restart_seed: int) -> np.ndarray:
        return initial_centroids(points, num, seed=restart_seed, method=method, weights=weights)

    for state in lloyd(lambda centroids: partial_sums(points, centroids, weights), start, recipe):
        best = state.best
    return best.centroids, list(best.history)
