"""What the stages cost on this cluster: the real stages on a few of the user's images, each unit timed in its worker.

The stages run twice, first in four small shards, then in two large ones. Two sizes tell bytes that come with an image
from bytes that come with a file; times are of the second run, by workers that have loaded libraries and the backbone in
the first. What depends on the size of the corpus and not on its images is timed on its own (see `probes`): rows on
their way to the shards, k-means at the configured number of clusters, the driver's part of every unit, and a few
optimiser steps.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from cluster.config import Config
from cluster.engine.refused import refusing
from cluster.engine.run import Run
from cluster.engine.stage import Stage
from cluster.features import backbone
from cluster.label import sources
from cluster.label.kept import FIELDS
from cluster.planning import probes
from cluster.planning.network import NetworkCost
from cluster.planning.plan import Cost
from cluster.planning.probes import Passes, Steps
from cluster.planning.timing import Note, Timed, TimedPool, Trial
from cluster.pretrain import stage as pretrain
from cluster.quality import stage as quality
from cluster.shard import stage as shard
from cluster.shard.hashing import ShardLayout
from cluster.shard.inputs import Some
from cluster.shard.places import is_url
from cluster.storage import paths
from cluster.train import stage as train
from fss import heads

_SCAN = 10_000  # entries of the listing of which the calibration's images are taken
#: Bytes of an input's row as Python objects, and in the columns of a few tables.
_ROW, _COLUMNS = 1000, 400
#: Bytes of a region's row beside its descriptor, which is there as float16 and as float32.
_REGION = 200


@dataclass(frozen=True)
class KmeansCost:
    """What k-means costs, in seconds; where nothing is clustered all but `memory` is 0."""

    point: float
    """Of a point in one iteration."""
    read: float
    """Of reading a point again."""
    driver: float
    """Of the driver, for the sums of a chunk."""
    kept: float
    """Bytes of a worker's memory of a point."""
    memory: float
    """Bytes of a worker's memory before it holds points."""
    iteration: float
    """Of the driver, for an iteration beside its chunks: handing them out, writing down where it stands."""


@dataclass(frozen=True)
class Measured:
    """What calibration found: costs of the steps, and how many of a thing come of how many others."""

    costs: Mapping[str, Cost]
    """By step; training's and k-means' are made of what follows, for a corpus of a size."""
    passes: Passes
    rows: Passes
    """The same for a single bucket: what comes with the rows."""
    compare: float
    """Seconds for each pair of images that are looked at as near-duplicates."""
    sums: KmeansCost
    network: NetworkCost
    """The backbone, where labels are made."""
    training: Mapping[str, Steps]
    """Of `pretrain` and `train`, if they are configured."""
    driver: float
    """Seconds of the driver for a unit."""
    fixed: Mapping[str, float]
    """Seconds of each stage in which no worker had a unit, and of what workers load in it that did nothing before."""
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


def calibrate(config: Config, stages: Mapping[str, Stage]) -> Measured:
    """Run `stages` on about `plan.images` of the configured images in a temporary folder below config.root.

    Raises:
        ValueError: if there are no images, or the configuration does not work on them.
    """
    start = time.monotonic()
    with refusing():
        chosen = _chosen(config)
    above = paths.place(config.root)
    above.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix=".plan-", dir=above.resolve()))
    try:
        measured = _measure(config, chosen, stages, root)
    finally:
        paths.remove_tree(root)
    return dataclasses.replace(measured, seconds=time.monotonic() - start)


def _measure(config: Config, chosen: Some | None, stages: Mapping[str, Stage], root: Path) -> Measured:
    small = _small(config, root)
    if chosen is not None:
        stages = {**stages, "shard": shard.stage(chosen)}
    names = planned(config)
    number = config.plan.images
    with Run(_sized(small, -(-number // 4), groups=2), stages) as run:
        run.pool.on_each(Timed(abs), [0] * run.pool.size)  # workers' start is the cluster's, what times them is ours
        pool = TimedPool(run.pool)
        first = Trial.go(run, pool, names)
        second = Trial.go(Run(_sized(small, -(-number // 2), groups=1), stages), pool, names)
        disk, publishing = probes.disk(root)
        costs = {cost.step: cost for name in names for cost in _costs(name, first, second, publishing)}
        for step in [name for name in names if name in ("sample", "label")]:
            costs[step], network = _explained(costs[step], second.run, pool)
        corpus, dimensions = second.run.manifest("shard").counts, _dimensions(second.run)
        sums, points = KmeansCost(0.0, 0.0, 0.0, 0.0, costs["label"].base, 0.0), 0.0
        fixed = {name: first.fixed[name] + _start(name, first, costs) for name in names}
        if "sample" in names:
            sample = second.run.manifest("sample").counts
            sums = _kmeans(config, second.run, pool, dimensions)
            sums = dataclasses.replace(sums, iteration=sums.iteration + publishing)
            fixed["kmeans"] = first.run.seconds(first.run.manifest("kmeans"))
            points = sample["points"] / sample["images"]
        return Measured(
            costs=_held(costs, second.run, dimensions),
            passes=pool.one(probes.TimePasses(root / "passes"), layout(config))[0],
            rows=pool.one(probes.TimePasses(root / "rows"), layout(config, bucket=True))[0],
            compare=probes.compare(config.corpus.near_duplicates or 0),
            sums=sums,
            network=network,
            training=dict(_training(config, second.run, pool)),
            driver=probes.handing_out(run.pool),
            fixed=fixed,
            accepted=corpus["accepted"] / corpus["inputs"],
            points=points,
            dimensions=dimensions,
            workers=pool.size,
            disk=disk,
            seconds=0.0,
        )


def planned(config: Config) -> list[str]:
    """The stages whose units are planned, in order."""
    clusters = sources.chosen(config).clusters
    labels = [*(["sample"] if clusters else []), "label", *(["refine"] if config.refine.on else [])]
    reports = ["quality"] if quality.wanted(config) else []
    return ["shard", *labels, *reports, *([] if config.train.tasks == "stream" else ["pair"])]


def layout(config: Config, *, bucket: bool = False) -> ShardLayout:
    """How the rows of the planned corpus are spread, or those of a single bucket."""
    size = config.plan.corpus_size
    assert size is not None
    number = 1 if bucket else math.ceil(size / config.corpus.shard_size)
    return ShardLayout(number, config.seed, config.corpus.near_duplicates)


def _chosen(config: Config) -> Some | None:
    """Evenly spaced images of the listing's beginning; None where images are rendered."""
    if config.corpus.kind == "scenes":
        return None
    given = shard.source(config)
    assert given is not None
    listing = list(itertools.islice(given.entries(), _SCAN))
    if not listing:
        raise ValueError(f"expected images in corpus.root={config.corpus.root}, found none")
    step = max(1, len(listing) // config.plan.images)
    return Some(**vars(given), chosen=tuple(listing[::step][: config.plan.images]))


def _small(config: Config, root: Path) -> Config:
    """The configuration for a few images that writes below `root`."""
    small, number = copy.deepcopy(config), config.plan.images
    small.root, small.tracking.enabled = str(root), False
    if sources.chosen(config).clusters:
        finest = min((*config.source.hierarchy, config.source.clusters)[0], 2 * number)  # hardly matters to labelling
        small.source.clusters, small.source.hierarchy, small.source.shards = finest, [], None
        small.source.iterations, small.source.restarts = min(config.source.iterations, 5), 1
    small.quality.masks = None
    if config.backbone.weights == "pretrain":
        small.backbone.weights = "random"  # which is as fast
    small.backbone.levels_by = None  # what chooses them costs the same for any corpus
    if config.corpus.kind == "scenes":
        small.corpus.scenes, small.corpus.scenes_val = number, 1
    return small


def _sized(config: Config, shard_size: int, *, groups: int) -> Config:
    """`config` with shards of `shard_size` images, paired in so many groups."""
    sized = copy.deepcopy(config)
    sized.corpus.shard_size = shard_size
    sized.pair.group_shards = math.ceil(math.ceil(config.plan.images / shard_size) / groups)
    return sized


def _costs(stage: str, first: Trial, second: Trial, publishing: float) -> Iterator[Cost]:
    """Cost of every step of a stage; `publishing` a file takes so many seconds."""
    read = _bytes_read(stage, second.run)
    for name in second.steps(stage):
        (known, many), (notes, few) = first.step(stage, name), second.step(stage, name)
        size, more = sum(made.bytes for made in few), len(many) - len(few)
        unit = max(0.0, (sum(made.bytes for made in many) - size) / more) if more else 0.0
        warm = _warm(notes, {note.process for note in known})
        counted, seconds = sum(few[i].items for i in warm), sum(notes[i].seconds for i in warm)
        yield Cost(
            stage=stage,
            step=name,
            seconds=max(0.0, seconds - publishing * sum(few[i].files for i in warm)) / max(counted, 1),
            seconds_unit=publishing * sum(made.files for made in few) / len(few),
            read=read,
            written=max(0.0, size - unit * len(few)) / max(sum(made.items for made in few), 1),
            written_unit=unit,
            base=max(note.memory for note in notes),
        )


def _start(stage: str, first: Trial, costs: Mapping[str, Cost]) -> float:
    """Seconds that the slowest worker's first units of a stage took beyond what such units cost: what it loads."""
    beyond: dict[tuple[str, int], float] = defaultdict(float)
    for step in first.steps(stage):
        known, cost = set(), costs[step]
        for note, made in zip(*first.step(stage, step), strict=True):
            if note.process not in known:
                known.add(note.process)
                beyond[note.process] += note.seconds - made.items * cost.seconds - cost.seconds_unit
    return max(0.0, *beyond.values())


def _warm(notes: Sequence[Note], known: set[tuple[str, int]]) -> list[int]:
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
        return float(sum(sum(table["size"].to_pylist()) for table in tables) / corpus.counts["inputs"])
    labels = "label" if stage == "refine" else run.config.refine.labels
    read = {"pair": (".tar", ".parquet"), "quality": (".tar", ".parquet"), "refine": (FIELDS,)}.get(stage, ())
    more = sum(file.bytes for suffix in read for file in run.manifest(labels).named(suffix))
    return (sum(file.bytes for file in corpus.named(".tar")) + more) / corpus.counts["accepted"]


def _held(costs: Mapping[str, Cost], run: Run, dimensions: int) -> dict[str, Cost]:
    """The costs with what an item of a unit takes of a worker's memory, as the stages' code has it."""
    corpus, labels = run.manifest("shard").counts["accepted"], run.manifest(run.config.refine.labels)
    region, kept = 6 * dimensions + _REGION, 0.0
    if run.config.refine.on:
        kept = sum(file.bytes for file in run.manifest("label").named(FIELDS)) / corpus
    regions = labels.counts["regions"] / corpus * region + sum(f.bytes for f in labels.named(".parquet")) / corpus

    def held(cost: Cost) -> float:
        if cost.stage == "shard":
            return {"hash": _ROW, "build": _ROW + 2 * cost.written}.get(cost.step, _COLUMNS)
        return {"pair": regions, "refine": kept + 2 * cost.written}.get(cost.stage, cost.read + 2 * cost.written)

    return {name: dataclasses.replace(cost, held=held(cost)) for name, cost in costs.items()}


def _explained(cost: Cost, run: Run, pool: TimedPool) -> tuple[Cost, NetworkCost]:
    """The cost with what is known of its parts and of the memory that its networks compute in."""
    corpus = run.manifest("shard")
    file = max(corpus.named(".tar"), key=lambda file: file.count)
    label = run.work("label")
    spec = backbone.spec(label.settings.backbone, label.means.weights, label.inputs)
    (decode, seconds, network), _ = pool.one(probes.TimeParts(corpus.folder, spec), file)
    parts = {"decode": decode, "backbone": seconds, "segments": max(0.0, cost.seconds - decode - seconds)}
    at_once = 1 if network.gpu else label.means.threads
    return dataclasses.replace(cost, base=cost.base + at_once * network.working, parts=parts), network


def _dimensions(run: Run) -> int:
    """Of the embeddings, which a region's descriptor has too."""
    labels = run.manifest("label")
    tables = (pq.read_schema(labels.folder / file.path) for file in labels.named(".regions.parquet"))
    return max(int(table.field("descriptor").type.list_size) for table in tables)  # 1 where there is no region


def _kmeans(config: Config, run: Run, pool: TimedPool, dimensions: int) -> KmeansCost:
    """What a point of so many dimensions costs at the configured number of clusters."""
    sample, finest = run.manifest("sample"), (*config.source.hierarchy, config.source.clusters)[0]
    file = max(sample.named(".npy"), key=lambda file: file.count)
    (point, read, kept), note = pool.one(probes.TimeSums(sample.folder, file), finest)
    driver, iteration = probes.adding(pool.pool, (finest, dimensions))
    return KmeansCost(point, read, driver, kept, note.memory, iteration)


def _training(config: Config, run: Run, pool: TimedPool) -> Iterator[tuple[str, Steps]]:
    """The optimiser steps of what is trained: the backbone, the head, both or nothing."""
    cluster = config.cluster
    timed = probes.TimeSteps(cluster.cpus_per_train_worker, cluster.train_workers, config.pretrain.batch)
    recipes: dict[str, Any] = {}
    if config.backbone.weights == "pretrain":
        recipes["pretrain"] = pretrain.job(run.work("pretrain", run.folder)).recipe
    if config.model.name not in (*heads.training_free(), "trained"):
        recipes["train"] = train.job(run.work("train", run.folder)).recipe
    for name, recipe in recipes.items():
        yield name, pool.one(timed, recipe)[0]


def is_remote(config: Config) -> bool:
    """Whether the user's images come over the network."""
    return any(is_url(place) for place in (config.corpus.root, config.corpus.list) if place)
