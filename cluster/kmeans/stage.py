"""kmeans: exact Lloyd over the sampled embeddings. Workers keep their points; only K x D sums travel.

The sample's files are divided into chunks of consecutive ones, chunk i always on worker i modulo their number. Where
chunks begin follows from the files alone and sums are added in the order of the chunks, so the centroids do not depend
on the number of workers. After every iteration the driver writes down where it stands (`.lloyd`): killed and started
again, it ends with the same bytes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import safetensors.numpy

from cluster.engine import publish
from cluster.engine.progress import Progress
from cluster.engine.settings import picked
from cluster.engine.stage import File, Manifest, Stage, Work, read_array, write_file
from cluster.label import sources
from cluster.storage import paths
from fss import seals
from fss.clustering import hierarchy, kmeans
from fss.clustering import init as kmeans_init
from fss.clustering.kmeans import Clustering, LloydState
from fss.labelling import pseudo

logger = logging.getLogger(__name__)

#: Points a cluster that a chunk has at least: its K x D sums then take little time beside its assignment.
CHUNK_POINTS = 4
#: Points a cluster below which FAISS too warns that centroids are noise.
_FEW_POINTS = 39

Chunk = tuple[File, ...]


@dataclass(frozen=True)
class RowSum:
    """One chunk's contribution to the centre."""

    sample: Path

    def __call__(self, chunk: Chunk) -> np.ndarray:
        """(D,) float64 sum of the chunk's rows."""
        return sum(read_array(self.sample, file).sum(axis=0, dtype=np.float64) for file in chunk)


@dataclass(frozen=True)
class PartialSums:
    """One chunk's contribution to one iteration."""

    sample: Path
    centre: np.ndarray
    centroids: np.ndarray
    memory: float
    """GiB of parts that a worker keeps for the next iteration; what does not fit is read again every time."""

    def __call__(self, chunk: Chunk) -> kmeans.Sums:
        """Sums of the points in `chunk`."""
        key = (self.sample, chunk)
        part = _kept.get(key) or self._part(chunk)
        sums = part.sums(self.centroids)
        if key not in _kept and sum(kept.nbytes for kept in _kept.values()) + part.nbytes <= self.memory * 2**30:
            _kept[key] = part
        return sums

    def _part(self, chunk: Chunk) -> kmeans.Part:
        read = (pseudo.centred(read_array(self.sample, file), self.centre) for file in chunk)
        return kmeans.Part(np.concatenate(list(read)))


#: A worker's points of length 1 around the centre, by sample folder and chunk; emptied when the stage ends.
_kept: dict[tuple[Path, Chunk], kmeans.Part] = {}


def _forget(_: Any) -> None:
    _kept.clear()


def chunks(parts: Sequence[File], points: int) -> list[Chunk]:
    """Consecutive files together until they hold `points` or more."""
    together: list[Chunk] = []
    now: list[File] = []
    for file in parts:
        now.append(file)
        if sum(f.count for f in now) >= points:
            together.append(tuple(now))
            now = []
    return [*together, tuple(now)] if now else together


@dataclass(frozen=True)
class KmeansSettings:
    """What shapes the centroids."""

    seed: int
    clusters: int
    hierarchy: tuple[int, ...]
    iterations: int
    init: str
    spherical: bool
    restarts: int
    tolerance: float

    @property
    def levels(self) -> tuple[int, ...]:
        """Numbers of clusters, the finest level first."""
        return (*self.hierarchy, self.clusters)


@dataclass(frozen=True)
class KmeansMeans:
    """How much of the sample stays in memory."""

    memory_gib: float


KmeansWork: TypeAlias = Work[KmeansSettings, KmeansMeans]


def _work(work: KmeansWork) -> tuple[Sequence[File], Mapping[str, int]]:
    chosen, folder, sample = work.settings, work.folder, work.inputs["sample"]
    finest, *coarser = chosen.levels
    parts = [file for file in sample.named(".npy") if file.count]
    number = sum(file.count for file in parts)
    if number < _FEW_POINTS * finest:
        logger.warning(
            "kmeans: %d points for %d clusters, fewer than %d each; give more images, or lower source.clusters",
            number,
            finest,
            _FEW_POINTS,
        )
    state, centre = _lloyd(work, sample, chunks(parts, CHUNK_POINTS * finest), number)
    best = state.best
    arrays = {"centroids": best.centroids, "centre": centre}
    sizes = best.counts
    if coarser:
        arrays["parents"], _ = hierarchy.ancestors(
            best.centroids, coarser, seed=chosen.seed, method=chosen.init, spherical=chosen.spherical
        )
        sizes = np.bincount(arrays["parents"], best.counts, minlength=chosen.clusters).astype(np.int64)
    _log(work, best.history, sizes)
    report = {
        "inertia": best.history,
        "restarts": state.inertias,
        "points": number,
        "sizes": sizes.tolist(),
    }
    files = [
        write_file(folder, "clusters.safetensors", safetensors.numpy.save(arrays), len(sizes)),
        write_file(folder, "report.json", json.dumps(report).encode()),
    ]
    return files, {"points": number, "iterations": len(best.history), "clusters": len(sizes)}


def _lloyd(work: KmeansWork, sample: Manifest, units: Sequence[Chunk], number: int) -> tuple[LloydState, np.ndarray]:
    """The finest level's k-means and the (D,) float32 centre of its points."""
    chosen, pool = work.settings, work.pool
    recipe = picked(kmeans.LloydOptions, chosen, clusters=chosen.levels[0], method=chosen.init)
    # As whoever labels with the clusters reads it: the same embedding is the same point to both.
    centre = np.asarray(sum(pool.each(RowSum(sample.folder), units)) / number, dtype=np.float32)

    def sums_of(centroids: np.ndarray) -> kmeans.Sums:
        function = PartialSums(sample.folder, centre, centroids, work.means.memory_gib)
        before = pool.present
        sums = kmeans.add(pool.each(function, units))
        if pool.present != before:  # others have come: nobody keeps points of chunks that went to them
            pool.on_all(_forget)
        return sums

    def start(seed: int) -> np.ndarray:
        first = pseudo.centred(_first_points(sample.folder, units, recipe.clusters), centre)
        return kmeans.initial_centroids(first, recipe.clusters, seed=seed, method=recipe.method)

    path = work.folder / ".lloyd" / "state"
    state = before = read_state(path)
    progress = Progress("kmeans", chosen.iterations * chosen.restarts, "points", parts="iterations")
    progress.skip(_iterations(recipe, state))
    for state in kmeans.lloyd(sums_of, start, recipe, before):
        publish.write_bytes(path, write_state(state))
        progress.update(parts=_iterations(recipe, state) - progress.done, items=number)
    progress.close()
    pool.on_all(_forget)
    assert state is not None
    return state, centre


def _iterations(recipe: kmeans.LloydOptions, state: LloydState | None) -> int:
    """Iterations of the whole run that are behind us; a restart that ended early counts as all of its own."""
    if state is None:
        return 0
    return (
        (state.restart + 1) * recipe.iterations
        if state.ended
        else (state.restart * recipe.iterations + len(state.now.history))
    )


def _first_points(sample: Path, units: Sequence[Chunk], clusters: int) -> np.ndarray:
    """Points of the first files, which are uniform samples of the corpus, as many as a start needs."""
    wanted = kmeans_init.points_wanted(clusters)
    points: list[np.ndarray] = []
    for file in (file for chunk in units for file in chunk):
        points.append(read_array(sample, file)[: wanted - sum(map(len, points))])
        if sum(map(len, points)) >= wanted:
            break
    return np.concatenate(points)


def write_state(state: LloydState) -> bytes:
    """`state` as safetensors, sealed: every bit of it."""
    arrays = {
        "place": np.array([state.restart, int(state.ended)], dtype=np.int64),
        "inertias": np.array(state.inertias, dtype=np.float64),
    }
    for name, solution in (("now", state.now), ("best", state.best)):
        arrays[f"{name}.centroids"] = np.ascontiguousarray(solution.centroids)
        arrays[f"{name}.history"] = np.array(solution.history, dtype=np.float64)
        arrays[f"{name}.counts"] = solution.counts
    return seals.seal(safetensors.numpy.save(arrays))


def read_state(path: Path) -> LloydState | None:
    """What `write_state` wrote; None if there is nothing, or nothing whole."""
    written = next(paths.read_each([path]))
    if written is None:
        return None
    data = seals.unseal(written)
    if data is None:
        logger.warning("kmeans: %s is damaged: starting again", path)
        return None
    arrays = safetensors.numpy.load(data)

    def found(name: str) -> Clustering:
        history = tuple(arrays[f"{name}.history"].tolist())
        return Clustering(arrays[f"{name}.centroids"], history, arrays[f"{name}.counts"])

    restart, ended = arrays["place"].tolist()
    return LloydState(restart, found("now"), found("best"), bool(ended), tuple(arrays["inertias"].tolist()))


def _log(work: KmeansWork, history: Sequence[float], sizes: np.ndarray) -> None:
    with work.journal() as journal:
        for step, inertia in enumerate(history):
            journal.metrics({"kmeans/inertia": inertia}, step=step)
        shares = sizes[sizes > 0] / sizes.sum()
        entropy = float(-(shares * np.log(shares)).sum() / np.log(len(sizes))) if len(sizes) > 1 else 1.0
        journal.metrics({"kmeans/entropy": entropy, "kmeans/empty": float((sizes == 0).sum())})


STAGE = Stage(
    "kmeans",
    lambda config: ("sample",),
    lambda config: picked(KmeansSettings, config.source, seed=config.seed),
    _work,
    means=lambda config: picked(KmeansMeans, config.cluster),
    check=lambda config: sources.without_clusters(config, "kmeans"),
    size=lambda settings: {"iterations": settings("kmeans").iterations * settings("kmeans").restarts},
    unit="points",
    version=4,
)
