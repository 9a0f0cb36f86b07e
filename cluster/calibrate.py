"""What the stages cost on this cluster: the real stages on a few of the user's images, each unit timed in its worker.

The stages run twice, as one shard and as shards of `_UNIT` images. Two sizes tell bytes that come with an image from
bytes that come with a file; times are of the second run, without the first unit of a process, which loads libraries and
the backbone. k-means is timed on its own at the configured number of clusters, decoding and backbone on one shard.
"""

from __future__ import annotations

import copy
import dataclasses
import io
import itertools
import math
import os
import re
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq

from cluster import backbone, publish
from cluster.backbone import BackboneSpec
from cluster.config import Config
from cluster.plan import Amount, Cost, Machines, Row, row
from cluster.pool import Failure, Pool
from cluster.run import Run
from cluster.stage import File, Stage, read_file
from cluster.stages.shard import source
from fss import images, kmeans, rng, shards

STAGES = ("shard", "sample", "label", "pair")
_UNIT = 16  # images: what a backbone is given at once
_SCAN = 10_000  # entries of the listing of which the calibration's images are taken
_CHUNK = 2048  # inputs that are hashed as one unit
_POINTS = 20_000


@dataclass(frozen=True)
class Note:
    """What one unit cost its worker: seconds, and bytes of memory before it began."""

    step: str
    unit: str
    process: tuple[str, int]
    seconds: float
    memory: int


@dataclass(frozen=True)
class Timed:
    """Runs in a worker: a function with a note of what it cost."""

    function: Callable[[Any], Any]

    def __call__(self, unit: Any) -> tuple[Any, Note]:
        """What the function returns, and the note."""
        memory, start = psutil.Process().memory_info().rss, time.perf_counter()
        result = self.function(unit)
        seconds = time.perf_counter() - start
        inner = type(getattr(self.function, "function", self.function)).__name__
        step = re.findall("[A-Z][a-z0-9]*", inner)[0].lower()
        return result, Note(step, getattr(unit, "name", ""), (os.uname().nodename, os.getpid()), seconds, memory)


class TimedPool:
    """A pool that keeps a note of every unit."""

    def __init__(self, pool: Pool):
        self._pool = pool
        self.notes: list[Note] = []

    def map(self, function: Callable[[Any], Any], units: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        """As `Pool.map`."""
        for index, result in self._pool.map(Timed(function), units):
            if isinstance(result, Failure):
                yield index, result
            else:
                self.notes.append(result[1])
                yield index, result[0]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)


@dataclass(frozen=True)
class Measured:
    """What calibration found: costs of the steps, and how many of a thing come of how many others."""

    costs: tuple[Cost, ...]
    fixed: Mapping[str, float]
    """Seconds of each stage in which no worker had a unit."""
    accepted: float
    """Share of the inputs that end in the corpus."""
    points: float
    """Sampled embeddings of an image."""
    dimensions: int
    workers: int
    disk: float
    """Bytes a second that were written, and synced, by one process."""
    seconds: float
    """How long calibration took."""


def calibrate(config: Config, stages: Mapping[str, Stage], number: int) -> Measured:
    """Run `stages` on about `number` of the configured images in a temporary folder below config.root.

    Raises:
        ValueError: if there are no images, or the configuration does not work on them.
    """
    start = time.monotonic()
    Path(config.root).mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix=".plan-", dir=Path(config.root).resolve()))
    try:
        small = _subset(config, stages, root, number)
        with Run(_sized(small, number), stages) as first:
            pool = TimedPool(first.pool)
            whole = Trial.go(first, pool)
            parts = Trial.go(Run(_sized(small, _UNIT), stages), pool)
            costs = [cost for stage in STAGES for cost in _steps(stage, whole, parts)]
            costs = [_explained(cost, parts.run, pool) for cost in costs]
            points = _some_points(parts.run)
            costs.insert(3, _kmeans(config, points, pool))
            disk = _disk(root)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    corpus, sample = (parts.run.manifest(name).counts for name in ("shard", "sample"))
    return Measured(
        costs=tuple(costs),
        fixed=parts.fixed,
        accepted=corpus["accepted"] / corpus["inputs"],
        points=sample["points"] / sample["images"],
        dimensions=points.shape[1],
        workers=pool.size,
        disk=disk,
        seconds=time.monotonic() - start,
    )


def _subset(config: Config, stages: Mapping[str, Stage], root: Path, number: int) -> Config:
    """The configuration on a few images, evenly spaced over the listing's beginning, that writes below `root`."""
    small = copy.deepcopy(config)
    small.root, small.tracking.enabled = str(root), False
    small.source.clusters = min(config.source.clusters, 2 * number)  # labelling hardly depends on it
    small.source.shards = None
    if config.backbone.weights == "pretrain":
        small.backbone.weights = "random"  # which is as fast
    if config.corpus.kind == "scenes":
        small.corpus.scenes, small.corpus.scenes_val = number, 1
        return small
    listing = [entry[0] for entry in itertools.islice(source(Run(config, stages)).entries(), _SCAN)]
    if not listing:
        raise ValueError(f"expected images in corpus.root={config.corpus.root}, found none")
    step = max(1, len(listing) // number)
    small.corpus.list = str(root / "images.txt")
    text = "\n".join(listing[::step][:number])
    (root / "images.txt").write_text(text, encoding="utf-8", errors="surrogateescape")
    return small


def _sized(config: Config, shard_size: int) -> Config:
    """`config` with shards of `shard_size` images; the images are paired as one group, or two if there are shards."""
    sized = copy.deepcopy(config)
    sized.corpus.shard_size = shard_size
    sized.pair.group_shards = max(1, -(-config.plan.images // shard_size) // 2)
    return sized


@dataclass(frozen=True)
class Trial:
    """A run of the stages with the notes of its units and, of each stage, the seconds in which no worker had one."""

    run: Run
    notes: Mapping[str, list[Note]]
    fixed: Mapping[str, float]

    @classmethod
    def go(cls, run: Run, pool: TimedPool) -> Trial:
        """Run every stage."""
        run.__dict__["pool"] = pool
        run.ensure("shard")
        notes, fixed = {}, {}
        for name in STAGES:
            manifest = run.ensure(name)
            known = {path.stem for path in (manifest.folder / ".units").iterdir()}
            notes[name], pool.notes = [n for n in pool.notes if n.unit in known], []
            busy: dict[Any, float] = defaultdict(float)
            for note in notes[name]:
                busy[note.process] += note.seconds
            fixed[name] = max(0.0, run.seconds(manifest) - max(busy.values()))
        return cls(run, notes, fixed)

    def record(self, stage: str, unit: str) -> tuple[float, float]:
        """Items and bytes, the record's own included, of a unit."""
        path = self.run.manifest(stage).folder / ".units" / f"{unit}.json"
        value = publish.read_sealed(path)
        assert value is not None, path
        counts = value["counts"]
        written = sum(file["bytes"] for file in value["files"]) + path.stat().st_size
        return max(counts.get("inputs", 0), counts.get("images", 0)), written

    def step(self, stage: str, name: str) -> tuple[list[Note], list[tuple[float, float]]]:
        """Notes of a step, and items and bytes of each."""
        notes = [note for note in self.notes[stage] if note.step == name]
        return notes, [self.record(stage, note.unit) for note in notes]


def _steps(stage: str, whole: Trial, parts: Trial) -> Iterator[Cost]:
    """Cost of every step of a stage."""
    read = _bytes_read(stage, parts.run)
    for name in dict.fromkeys(note.step for note in parts.notes[stage]):
        (_, one), (notes, many) = whole.step(stage, name), parts.step(stage, name)
        items = sum(number for number, _ in many)
        totals = [sum(written for _, written in records) for records in (one, many)]
        more = len(many) - len(one)
        unit = max(0.0, (totals[1] - totals[0]) / more) if more else 0.0
        warm = _warm(notes, {note.process for note in whole.notes[stage] if note.step == name})
        counted = sum(many[i][0] for i in warm)
        yield Cost(
            stage=stage,
            step=name,
            seconds=sum(notes[i].seconds for i in warm) / max(counted, 1),
            read=read,
            written=(totals[1] - unit * len(many)) / items,
            written_unit=unit,
            base=max(note.memory for note in notes),
        )


def _warm(notes: list[Note], known: set[tuple[str, int]]) -> list[int]:
    """Positions of the notes of processes that had done this step before; all if there are none."""
    warm = []
    for index, note in enumerate(notes):
        if note.process in known:
            warm.append(index)
        known = known | {note.process}
    return warm or list(range(len(notes)))


def _bytes_read(stage: str, run: Run) -> float:
    """Bytes that a step of the stage reads for one of its items."""
    corpus = run.manifest("shard")
    if stage == "shard":
        tables = [pq.read_table(corpus.folder / file.path) for file in corpus.named(".ledger.parquet")]
        return sum(sum(table["size"].to_pylist()) for table in tables) / corpus.counts["inputs"]
    shard = sum(file.bytes for file in corpus.named(".tar"))
    labels = sum(file.bytes for file in run.manifest("label").files) if stage == "pair" else 0
    return (shard + labels) / corpus.counts["accepted"]


@dataclass(frozen=True)
class TimeParts:
    """Runs in a worker: seconds an image of decoding and of the backbone alone, on one corpus shard."""

    corpus: Path
    spec: BackboneSpec

    def __call__(self, file: File) -> tuple[float, float]:
        """Decode all, then the backbone on all, in batches, after one batch that does not count."""
        samples = list(shards.unpack(read_file(self.corpus, file)))
        start = time.perf_counter()
        pictures = [images.decode(members["jpg"]) for _, members in samples]
        decoded = time.perf_counter() - start
        extractor = self.spec.load()
        list(extractor.stream(pictures[: extractor.batch]))
        start = time.perf_counter()
        for features in extractor.stream(pictures):
            last = features
        float(next(iter(last.values())).sum())  # waits for the GPU
        return decoded / len(samples), (time.perf_counter() - start) / len(samples)


def _explained(cost: Cost, run: Run, pool: TimedPool) -> Cost:
    """The cost with what is known of its parts."""
    if cost.stage not in ("sample", "label"):
        return cost
    corpus = run.manifest("shard")
    files = sorted(corpus.named(".tar"), key=lambda file: -file.count)[:1]
    ((_, (decode, network)),) = pool.map(TimeParts(corpus.folder, backbone.spec(run)), files)
    pool.notes.clear()
    rest = max(0.0, cost.seconds - decode - network)
    return dataclasses.replace(cost, parts={"decode": decode, "backbone": network, "segments": rest})


def _some_points(run: Run) -> np.ndarray:
    manifest = run.manifest("sample")
    parts = [np.load(io.BytesIO(read_file(manifest.folder, file))) for file in manifest.named(".npy") if file.count]
    return np.concatenate(parts)


@dataclass(frozen=True)
class TimeSums:
    """Runs in a worker: seconds a point of one iteration of k-means; `unit` is the number of centroids."""

    points: np.ndarray

    def __call__(self, unit: int) -> float:
        """The faster of two runs on points repeated to a number that fills the machine's caches."""
        points = np.resize(self.points, (_POINTS, self.points.shape[1]))
        centroids = rng.numpy_rng(0, "plan").standard_normal((unit, points.shape[1]), dtype=np.float32)
        seconds = []
        for _ in range(2):
            start = time.perf_counter()
            kmeans.partial_sums(points, centroids)
            seconds.append(time.perf_counter() - start)
        return min(seconds) / len(points)


def _kmeans(config: Config, points: np.ndarray, pool: TimedPool) -> Cost:
    """Cost of one point in one iteration; k-means reads its sample once and writes next to nothing."""
    ((_, seconds),) = pool.map(TimeSums(points), [config.source.clusters])
    memory = pool.notes[-1].memory
    return Cost("kmeans", "kmeans", seconds, base=memory)


def _disk(folder: Path) -> float:
    data = bytes(32 << 20)
    start = time.perf_counter()
    publish.write_bytes(folder / "disk", data)
    return len(data) / (time.perf_counter() - start)


def predict(config: Config, measured: Measured, corpus_size: float, machines: Machines) -> list[Row]:
    """The plan for `corpus_size` inputs. `fixed` seconds of a stage, measured once, are on its first step."""
    kept = corpus_size * measured.accepted
    shard, shard_kept = config.corpus.shard_size, config.corpus.shard_size * measured.accepted
    sampled = min(kept, (config.source.shards or math.inf) * shard_kept)
    amounts = {
        "hash": Amount(corpus_size, _CHUNK),
        "build": Amount(corpus_size, shard),
        "sample": Amount(sampled, shard_kept),
        "kmeans": Amount(
            sampled * measured.points,
            shard_kept * measured.points,
            config.source.iterations,
            sampled * measured.points * measured.dimensions * 4,
        ),
        "label": Amount(kept, shard_kept),
        "pair": Amount(kept, shard_kept * config.pair.group_shards),
    }
    remote = "://" in (config.corpus.root or "")
    rows, seen = [], set()
    for cost in measured.costs:
        one = row(cost, amounts[cost.step], machines, remote=remote and cost.stage == "shard")
        if cost.stage not in seen:
            one = dataclasses.replace(one, seconds=one.seconds + measured.fixed.get(cost.stage, 0.0))
        seen.add(cost.stage)
        rows.append(one)
    return rows
