"""kmeans: exact Lloyd over the sampled embeddings. Every worker keeps its parts; only K x D sums travel.

A part is one file of the sample stage. Sums are added in the order of the parts, so the centroids do not depend on the
number of workers.
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from cluster.progress import Progress
from cluster.run import Run
from cluster.stage import File, Manifest, Stage, read_file, write_file
from fss import kmeans, pseudo, rng

_INIT_POINTS = 65_536


@dataclass(frozen=True)
class RowSum:
    """One part's contribution to the centre."""

    sample: Path

    def __call__(self, file: File) -> np.ndarray:
        """(D,) float64 sum of the part's rows."""
        return load_part(self.sample, file).sum(axis=0, dtype=np.float64)


@dataclass(frozen=True)
class PartialSums:
    """One part's contribution to one iteration."""

    sample: Path
    centre: np.ndarray
    centroids: np.ndarray

    def __call__(self, file: File) -> kmeans.Sums:
        """Sums of the part in `file`, which stays in this worker's memory for the next iteration."""
        return kmeans.partial_sums(pseudo.centred(load_part(self.sample, file), self.centre), self.centroids)


@functools.cache
def load_part(sample: Path, file: File) -> np.ndarray:
    """The (n, D) float32 embeddings of one part."""
    return np.load(io.BytesIO(read_file(sample, file)), allow_pickle=False)


def _settings(run: Run) -> dict[str, Any]:
    source = run.config.source
    keys = ("clusters", "iterations", "init", "spherical")
    return {"seed": run.config.seed, **{key: getattr(source, key) for key in keys}}


def _work(run: Run, folder: Path) -> tuple[Sequence[File], Mapping[str, int]]:
    source, sample = run.config.source, run.manifest("sample")
    parts = [file for file in sample.named(".npy") if file.count]
    number = sum(file.count for file in parts)
    centre = sum(run.pool.on_each(RowSum(sample.folder), parts)) / number
    first = pseudo.centred(_first_points(sample, parts), centre)
    centroids = kmeans.initial_centroids(first, source.clusters, seed=run.config.seed, method=source.init)
    progress = Progress("kmeans", source.iterations, "points", parts="iterations")
    history: list[float] = []
    for iteration in range(source.iterations):
        sums = kmeans.add(run.pool.on_each(PartialSums(sample.folder, centre, centroids), parts))
        history.append(sums.inertia)
        seed = rng.mix(run.config.seed, iteration)
        centroids = kmeans.step(sums, centroids, seed=seed, spherical=source.spherical)
        progress.update(items=int(sums.counts.sum()))
        if kmeans.converged(history):
            break
    progress.close()
    _log(run, history, sums.counts)
    report = {"inertia": history, "points": number, "sizes": sums.counts.tolist()}
    found = safetensors.numpy.save({"centroids": centroids, "centre": centre.astype(np.float32)})
    files = [
        write_file(folder, "clusters.safetensors", found, len(centroids)),
        write_file(folder, "report.json", json.dumps(report).encode()),
    ]
    return files, {"points": number, "iterations": len(history), "clusters": len(centroids)}


def _first_points(sample: Manifest, parts: Sequence[File]) -> np.ndarray:
    """Points of the first parts, which are uniform samples of the corpus, as many as an initialisation needs."""
    found, number = [], 0
    for file in parts:
        found.append(load_part(sample.folder, file))
        number += file.count
        if number >= _INIT_POINTS:
            break
    load_part.cache_clear()
    return np.concatenate(found)[:_INIT_POINTS]


def _log(run: Run, history: Sequence[float], sizes: np.ndarray) -> None:
    with run.journal("kmeans") as journal:
        for step, inertia in enumerate(history):
            journal.metrics({"kmeans/inertia": inertia}, step=step)
        shares = sizes[sizes > 0] / sizes.sum()
        entropy = float(-(shares * np.log(shares)).sum() / np.log(len(sizes))) if len(sizes) > 1 else 1.0
        journal.metrics({"kmeans/entropy": entropy, "kmeans/empty": float((sizes == 0).sum())})


def read_clusters(manifest: Manifest) -> pseudo.Clusters:
    """What a finished stage found."""
    return pseudo.Clusters(**safetensors.numpy.load(manifest.path("clusters.safetensors").read_bytes()))


STAGE = Stage("kmeans", lambda run: ("sample",), _settings, _work)
