"""From what was measured (`cluster.planning.calibrate`) to the plan of a corpus: how much of each step there is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import replace

from cluster.config import Config
from cluster.kmeans.stage import CHUNK_POINTS
from cluster.planning.calibrate import Measured, is_remote, layout
from cluster.planning.network import NetworkCost
from cluster.planning.plan import Amount, Cost, Machines, PlanRow, number, row, size
from cluster.shard.stage import chunk_size
from fss.clustering.init import points_wanted

_GIB = 2**30
#: Bytes that the driver keeps of a shard: names, sizes and hashes of its files in all stages.
_SHARD = 2000
#: Bytes of a listed input as Python objects; two chunks of them a worker wait with the driver.
_ENTRY = 300


def predict(config: Config, measured: Measured, machines: Machines) -> list[PlanRow]:
    """The plan for `plan.corpus_size` inputs. `fixed` seconds of a stage, measured once, are on its first step."""
    rows: list[PlanRow] = []
    for cost, amount in _steps(config, measured, machines.workers):
        remote = is_remote(config) and cost.step in ("hash", "build")
        one = row(cost, amount, machines, remote=remote)
        if all(other.stage != cost.stage for other in rows):
            one = dataclasses.replace(one, seconds=one.seconds + _fixed(config, measured, cost.stage))
        rows.append(one)
        if cost.step == "build":
            rows += _pretrain(config, measured, machines)
    return rows + _train(config, measured, machines)


def _fixed(config: Config, measured: Measured, stage: str) -> float:
    iterations = config.source.iterations * config.source.restarts if stage == "kmeans" else 0
    return measured.fixed.get(stage, 0.0) + iterations * measured.sums.iteration


def _inputs(config: Config) -> float:
    assert config.plan.corpus_size is not None
    return config.plan.corpus_size


def _steps(config: Config, measured: Measured, workers: int) -> Iterator[tuple[Cost, Amount]]:
    """Every step but training, with its amount."""
    costs, kept = measured.costs, _inputs(config) * measured.accepted
    shard = config.corpus.shard_size * measured.accepted
    yield from _shard(config, measured)
    if "sample" in costs:
        sampled = min(kept, (config.source.shards or math.inf) * shard)
        yield _timed(costs["sample"], measured), Amount(sampled, shard)
        yield _kmeans(config, measured, sampled, workers)
    yield _timed(costs["label"], measured), Amount(kept, shard)
    if "refine" in costs:
        yield _timed(costs["refine"], measured), Amount(kept, shard * config.pair.group_shards)
    yield from _quality(config, measured, kept, shard)
    if "pair" in costs:
        yield _timed(costs["pair"], measured), Amount(kept, shard * config.pair.group_shards)


def _quality(config: Config, measured: Measured, kept: float, shard: float) -> Iterator[tuple[Cost, Amount]]:
    """The report on regions: over some shards, whatever the corpus has."""
    costs, chosen = measured.costs, config.quality
    if "sum" not in costs:
        return
    looked = min(kept, (chosen.shards or math.inf) * shard)
    crops = (chosen.clusters if config.refine.on else min(chosen.clusters, config.source.clusters)) * chosen.regions
    group = shard * config.pair.group_shards
    if "mean" in costs:
        yield _timed(costs["mean"], measured), Amount(looked, group)
    yield _timed(costs["sum"], measured), Amount(looked, shard)
    yield _timed(costs["match"], measured), Amount(looked, group)
    yield _timed(costs["crop"], measured), Amount(crops, max(1.0, crops * shard / looked))


def _timed(cost: Cost, measured: Measured) -> Cost:
    return replace(cost, driver=measured.driver)


def _shard(config: Config, measured: Measured) -> Iterator[tuple[Cost, Amount]]:
    """The passes over rows: what comes with a row was measured in one bucket, the rest in as many as there will be."""
    inputs, costs, spread = _inputs(config), measured.costs, layout(config)
    passes, rows = measured.passes, measured.rows
    chunk = chunk_size(math.ceil(inputs))
    chunks = math.ceil(inputs / chunk)
    hashed = replace(
        _timed(costs["hash"], measured),
        seconds_unit=costs["hash"].seconds_unit + max(0.0, passes.hash - rows.hash),
        written=rows.hash_bytes / rows.count,
        written_unit=max(0.0, passes.hash_bytes - rows.hash_bytes) + costs["hash"].written_unit,
    )
    yield hashed, Amount(inputs, chunk)
    per_row = (rows.route + rows.bucket) / rows.count
    if spread.bands:
        parts = spread.bands * spread.buckets
        # pairs that share all bits of a band and meet in one part, a bit more with every image
        met = inputs / 2 ** (64 // spread.bands) / 2
        yield (
            replace(
                _timed(costs["find"], measured),
                seconds=per_row + met * measured.compare,
                seconds_unit=costs["find"].seconds_unit + chunks * passes.find,
                read=hashed.written,
            ),
            Amount(inputs * spread.bands, inputs * spread.bands / parts),
        )
    yield (
        replace(
            _timed(costs["route"], measured),
            seconds=per_row,
            seconds_unit=costs["route"].seconds_unit + chunks * passes.route + passes.bucket,
            read=hashed.written,
            written=rows.bucket_bytes / rows.count,
            written_unit=max(0.0, passes.bucket_bytes - rows.bucket_bytes),
        ),
        Amount(inputs, inputs / spread.buckets),
    )
    yield _timed(costs["build"], measured), Amount(inputs, config.corpus.shard_size)


def _kmeans(config: Config, measured: Measured, images: float, workers: int) -> tuple[Cost, Amount]:
    """Iterations over all points; those that do not fit the workers' memory are read again in each."""
    source, sums = config.source, measured.sums
    points = images * measured.points
    of_file = min(points, config.corpus.shard_size * measured.accepted * measured.points)
    finest = (*source.hierarchy, source.clusters)[0]
    chunk = of_file * max(1, math.ceil(CHUNK_POINTS * finest / of_file))
    passes = source.iterations * source.restarts
    total = points * sums.kept
    kept = min(1.0, workers * config.cluster.memory_gib * _GIB / total)
    reads = 2 + (1 - kept) * (passes - 1)  # for the centre, for the first iteration, and what was not kept
    tables = finest * measured.dimensions * 20  # float64 sums and products, float32 centroids
    start = 4 * min(points, points_wanted(finest)) * measured.dimensions
    cost = Cost(
        stage="kmeans",
        step="kmeans",
        seconds=sums.point + sums.read * reads / passes,
        driver=sums.driver,
        read=4 * measured.dimensions * reads,
        base=sums.memory + tables + of_file * (4 * measured.dimensions + sums.kept),
        parts={"assignment": sums.point, "disk": sums.read * reads / passes},
    )
    return cost, Amount(points, chunk, passes, kept * total + start)


def _pretrain(config: Config, measured: Measured, machines: Machines) -> list[PlanRow]:
    if "pretrain" not in measured.training:
        return []
    steps, chosen = measured.training["pretrain"], config.pretrain
    cost = Cost(
        "pretrain",
        "pretrain",
        steps.step + steps.images * steps.fetch,
        parts={"decode": steps.images * steps.fetch},
        base=measured.sums.memory,
    )
    return [_trained(cost, chosen.steps, config, machines)]


def _train(config: Config, measured: Measured, machines: Machines) -> list[PlanRow]:
    """The head: features of a view of an image are computed once if they fit, views are drawn at random."""
    if "train" not in measured.training:
        return []
    steps, chosen = measured.training["train"], config.train
    looks = chosen.steps * steps.images
    fixed = chosen.views if chosen.features == "cached" else 0
    views = _inputs(config) * measured.accepted * fixed
    different = views * -math.expm1(-looks / views) if views else looks
    room = chosen.cache_gib * _GIB / steps.bytes if steps.bytes else 0.0
    kept = min(1.0, room / different)
    fetched = (different * kept + looks * (1 - kept)) * steps.fetch / chosen.steps
    cost = Cost(
        "train",
        "train",
        steps.step + fetched,
        parts={"head": steps.step, "backbone": fetched},
        base=measured.sums.memory + different * kept * steps.bytes,
    )
    return [_trained(cost, chosen.steps, config, machines)]


def _network(network: NetworkCost) -> str:
    """What the backbone takes, in words."""
    memory = f"beside its weights {size(network.working)} of a worker's memory while it computes one"
    if network.gpu:
        memory = f"{size(network.gpu)} of a GPU's memory while it computes {network.together} together"
    return (
        f"{network.name} has {network.parameters / 1e6:.3g} million parameters; an image of {network.size} x "
        f"{network.size} pixels takes {number(network.operations / 1e9)} billion operations, and {memory}"
    )


def _trained(cost: Cost, steps: int, config: Config, machines: Machines) -> PlanRow:
    """All training workers take part in every step, as if they were one."""
    workers = config.cluster.train_workers
    cpus, gpus = workers * config.cluster.cpus_per_train_worker, workers if machines.gpus else 0
    return row(cost, Amount(steps, steps), Machines(1, cpus, gpus))


def notes(config: Config, measured: Measured, rows: list[PlanRow], machines: Machines) -> Iterator[str]:
    """What the reader of the table should know before starting: what is not in it, and what no machine has."""
    inputs = _inputs(config)
    yield _network(measured.network)
    waiting = 2 * machines.workers * chunk_size(math.ceil(inputs)) * _ENTRY
    files = inputs / config.corpus.shard_size * _SHARD
    if files > 4e9:
        yield f"the driver keeps {size(files)} of names and hashes of files; raise corpus.shard_size"
    if waiting > 4e9:
        yield f"listed inputs that wait for a worker take up to {size(waiting)} of the driver while it hashes"
    points = next((one for one in rows if one.step == "kmeans"), None)
    if points is None:
        yield f"source.name={config.source.name} clusters nothing"
    elif points.roof in ("driver", "disk") and config.source.shards is None and points.seconds > 3600:
        yield (
            f"k-means takes {points.items:.2g} points and waits for the {points.roof}; source.shards=N takes those of "
            "N corpus shards, which are uniform samples of the corpus"
        )
    if config.plan.disk_mb_s is None and any(one.roof == "disk" for one in rows):
        yield "the disk's speed is what one process was seen to write; plan.disk_mb_s=N gives that of all workers"
    if config.corpus.near_duplicates is not None:
        yield "near-duplicates are planned for random hashes; images that look alike take longer"
    if any(one.stage == "train" for one in rows):
        yield "training is planned without the start of Ray Train, DeepSpeed's own work and validation"
    if config.backbone.levels_by is not None:
        yield f"backbone.levels_by={config.backbone.levels_by} is not planned; it takes the same for any corpus"
    yield "evaluation is not planned"
