"""What `calibrate` times beside whole stages: functions that run in a worker, each of one thing alone."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster.engine import publish
from cluster.engine.pool import Pool
from cluster.engine.stage import File, Output, Unit, read_file, write_file
from cluster.features.backbone import BackboneSpec
from cluster.planning.network import NetworkCost, looked_at
from cluster.shard.hashing import FindNear, HashChunk, Route, ShardLayout
from cluster.shard.inputs import CorpusInput, Entry
from fss import rng, shards
from fss.backbones.extractor import device_by_name
from fss.clustering import kmeans
from fss.imaging import hashes as perceptual
from fss.imaging import images
from fss.imaging import intake as corpus

_POINTS = 20_000
_ROWS = 4096
_CHUNKS = 8
_UNITS = 48
_STEPS = 3


def _timed(function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


@dataclass(frozen=True)
class TimeParts:
    """Seconds an image of decoding and of the backbone alone, on one corpus shard; and what the backbone takes."""

    corpus: Path
    spec: BackboneSpec

    def __call__(self, file: File) -> tuple[float, float, NetworkCost]:
        """Decode all, then the backbone on all, in batches, after one batch that does not count."""
        samples = list(shards.unpack(read_file(self.corpus, file)))
        decoded, pictures = _timed(lambda: [images.decode(members["jpg"]) for _, members in samples])
        extractor = self.spec.load()
        list(extractor.stream(pictures[: extractor.call]))
        seconds, _ = _timed(_drain, extractor.stream(pictures))
        network = looked_at(extractor, lambda: _drain(extractor.stream(pictures[: extractor.call])))
        return decoded / len(samples), seconds / len(samples), network


def _drain(stream: Any) -> None:
    for features in stream:
        last = features
    float(next(iter(last.values())).sum())  # waits for the GPU


class _MadeUp(CorpusInput):
    """Files whose content is their name."""

    def read(self, path: str, offset: int = -1, size: int = 0) -> bytes:
        return path.encode()


class _MadeUpHash(HashChunk):
    """Hashes names; their looks are random bits."""

    def _phash(self, data: bytes) -> int:
        return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")


@dataclass(frozen=True)
class Passes:
    """What `count` rows cost in the passes before shards are built, whatever is in the files."""

    count: int
    hash: float
    """Seconds of a chunk of so many rows."""
    hash_bytes: float
    find: float
    """Seconds for each chunk that a part of near-duplicates is collected from."""
    route: float
    """Seconds for each chunk that a bucket is collected from."""
    bucket: float
    """Seconds of a bucket beside its chunks."""
    bucket_bytes: float


@dataclass(frozen=True)
class TimePasses:
    """The passes on made-up rows: a chunk for the layout's buckets, then a bucket of one and of several such chunks."""

    folder: Path

    def __call__(self, layout: ShardLayout) -> Passes:
        """Time them at the number of buckets that a corpus really has."""
        entries = [Entry(f"images/{number:024d}.jpg", 100_000) for number in range(_ROWS)]
        hashing = _MadeUpHash(_MadeUp(None), layout, corpus.Limits())
        seconds, output = _timed(hashing, Unit("chunk", entries))
        files = [write_file(self.folder, name, data) for name, data in output.files.items()]
        rows = next(file for file in files if file.path.endswith(".rows"))
        find = 0.0
        if looks := [file for file in files if file.path.endswith(".looks")]:
            find = _slope(lambda number: self._find(looks * number, layout))[0]
        route, bucket = _slope(lambda number: self._route([rows] * number, layout))
        size = sum(map(len, self._route([rows], layout).files.values()))
        return Passes(_ROWS, seconds, sum(map(len, output.files.values())), find, route, bucket, size)

    def _find(self, looks: Sequence[File], layout: ShardLayout) -> Output:
        return FindNear(self.folder, tuple(looks), layout)(Unit("near", 0))

    def _route(self, rows: Sequence[File], layout: ShardLayout) -> Output:
        return Route(self.folder, tuple(rows), (), layout)(Unit("bucket", 0))


def _slope(function: Callable[[int], Any]) -> tuple[float, float]:
    """Seconds for each further chunk, and of a bucket beside them; after a call that does not count."""
    function(1)
    one, many = _timed(function, 1)[0], _timed(function, 1 + _CHUNKS)[0]
    each = max(0.0, (many - one) / _CHUNKS)
    return each, max(0.0, one - each)


def compare(limit: int) -> float:
    """Seconds for each pair of hashes that may be near: all those that share a band."""
    hashes = rng.numpy_rng(0, "plan").integers(1 << 63, size=_ROWS, dtype=np.uint64)
    seconds, _ = _timed(perceptual.earlier_neighbours, hashes, np.zeros(_ROWS), limit)
    return seconds / (_ROWS * (_ROWS - 1) / 2)


@dataclass(frozen=True)
class TimeSums:
    """Seconds a point of one iteration of k-means, and of reading it, and bytes; `unit` is the number of centroids."""

    sample: Path
    file: File

    def __call__(self, unit: int) -> tuple[float, float, float]:
        """Of two iterations on points repeated to a number that fills the machine's caches; and bytes kept of a point.

        The iteration before them does not count: it finds what the others need not.
        """
        seconds, data = _timed(read_file, self.sample, self.file)
        more, points = _timed(np.load, io.BytesIO(data))
        read = (seconds + more) / len(points)
        part = kmeans.Part(np.resize(points, (_POINTS, points.shape[1])))
        centroids = rng.numpy_rng(0, "plan").standard_normal((unit, points.shape[1]), dtype=np.float32)
        taken = []
        for iteration in range(3):
            seconds, sums = _timed(part.sums, centroids)
            taken.append(seconds)
            centroids = kmeans.step(sums, centroids, seed=iteration)
        return sum(taken[1:]) / 2 / _POINTS, read, part.nbytes / _POINTS


def _sums(shape: tuple[int, int]) -> kmeans.Sums:
    return kmeans.Sums(np.zeros(shape), np.zeros(shape[0]), np.zeros(shape[0], np.int64), np.zeros(shape[0]))


def adding(pool: Pool, shape: tuple[int, int]) -> tuple[float, float]:
    """The driver's seconds for the (K, D) sums of one chunk, and for an iteration beside its chunks."""

    def go(units: int) -> float:
        return _timed(lambda: kmeans.add(pool.each(_sums, [shape] * units)))[0]

    go(pool.size)
    one, many = go(1), go(_UNITS)
    each = max(0.0, (many - one) / (_UNITS - 1))
    return each, max(0.0, one - each)


def handing_out(pool: Pool) -> float:
    """The driver's seconds for a unit that does nothing."""
    units: Sequence[Unit] = [Unit(f"{number}", None) for number in range(_UNITS)]
    return _timed(lambda: list(pool.map(_nothing, units)))[0] / _UNITS


def _nothing(unit: Unit) -> dict[str, int]:
    return {}


@dataclass(frozen=True)
class Steps:
    """What training costs one worker."""

    step: float
    """Seconds of an optimiser step whose images it has had before."""
    fetch: float
    """Seconds for each image that it has not: decoding, and the frozen backbone's features."""
    images: float
    """Images that it looks at in a step."""
    bytes: float
    """Memory that it keeps of an image."""


@dataclass(frozen=True)
class TimeSteps:
    """A few optimiser steps of a training recipe, plain torch, with this worker's threads and share."""

    threads: int
    world: int
    images: int = 0
    """Images that a step fetches where the recipe has no bank of features, which knows."""

    def __call__(self, recipe: Any) -> Steps:
        """The same batches twice: with images that are new, and with known ones."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            return self._steps(recipe)
        finally:
            torch.set_num_threads(before)

    def _steps(self, recipe: Any) -> Steps:
        device = device_by_name()
        module = recipe.module(device).to(device)
        optimizer = recipe.optimizer(module)
        bank = getattr(recipe, "bank", None)

        def go(start: int, stop: int) -> None:
            for batch in recipe.batches(start, stop, 0, self.world):
                optimizer.zero_grad()
                loss = module(*batch)["loss"]
                loss.backward()
                optimizer.step()
                recipe.after_step(module)
                float(loss.detach())  # waits for the GPU

        go(0, 1)
        known, looked = (bank.misses, bank.hits + bank.misses) if bank else (0, 0)
        cold, _ = _timed(go, 1, 1 + _STEPS)
        new, seen = (bank.misses - known, bank.hits + bank.misses - looked) if bank else (self.images * _STEPS,) * 2
        warm, _ = _timed(go, 1, 1 + _STEPS)
        fetch = max(0.0, cold - warm) / max(new, 1)
        kept = bank.bytes / max(bank.misses, 1) if bank else 0.0
        return Steps(warm / _STEPS, fetch, seen / _STEPS, kept)


def disk(folder: Path) -> tuple[float, float]:
    """Bytes a second that one process publishes, and seconds of a small file."""
    small, _ = _timed(lambda: [publish.write_bytes(folder / "small" / f"{n}", b"0") for n in range(16)])
    data = bytes(32 << 20)
    seconds, _ = _timed(publish.write_bytes, folder / "disk", data)
    return len(data) / seconds, small / 16
