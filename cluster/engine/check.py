"""What is looked at before any work: here, or on a cluster in a task, which sees the files that workers see."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from cluster.config import ClusterConfig, Config
from cluster.engine import places, room
from cluster.engine.seen import Mark
from cluster.storage import bucket
from cluster.tracking.redact import redact

Look = Callable[[Config], Sequence[str]]


def on_a_cluster(config: ClusterConfig) -> bool:
    """Whether workers are on machines that the driver may not be on."""
    return config.joined() != "local"


def problems(config: Config, looks: Sequence[Look]) -> list[str]:
    """What is wrong with where the run writes, and with what `looks` look at."""
    wrong = _root(config)
    for look in looks:
        wrong += look(config)
    return list(dict.fromkeys(wrong))


def on_machines(config: Config, looks: Sequence[Look], training: bool) -> list[str]:
    """All that is wrong on a cluster; `looks` are left out where no machine is there to look, and none may come."""
    wrong = machines(config.cluster, training)
    if wrong and not room.room(config.cluster).fits({"CPU": 1.0}):
        return wrong
    return [*wrong, *remotely(config, looks)]


def remotely(config: Config, looks: Sequence[Look]) -> list[str]:
    """`problems` as a worker sees them; the first machine may have to come for it."""
    import ray

    asked = ray.remote(num_cpus=1)(problems).remote(config, looks)
    wrong: list[str] = ray.get(list(room.awaited([asked], lambda: "a CPU, to look at what workers will need")))[0]
    return wrong


def unseen(mark: Mark) -> list[str]:
    """The machines that do not see what the driver wrote; those that come later look before their first unit."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(num_cpus=0)(Mark.problem)
    asked = [
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=True)).remote(mark)
        for node in room.hosts()
    ]
    return sorted({problem for problem in ray.get(asked) if problem})


def _root(config: Config) -> list[str]:
    """Whether the run's folder can be written; nothing is made."""
    if bucket.is_address(config.root):
        wrong = bucket.problem(bucket.key(places.root(config.root) / config.name) or "")
        return [redact(wrong)] if wrong else []
    folder = Path(config.root).resolve() / config.name
    there = next(one for one in (folder, *folder.parents) if one.exists())
    if not there.is_dir():
        return [f"root: expected a folder to write {folder} in, {there} is a file; set root=FOLDER"]
    if not os.access(there, os.W_OK | os.X_OK):
        return [f"root: expected a folder that can be written, {there} cannot; set root=FOLDER, or change its rights"]
    return []


def machines(config: ClusterConfig, training: bool) -> list[str]:
    """Whether a worker of the shard stages can ever fit the cluster, and all training workers together, if it trains.

    The other workers of the shard stages may wait until there is room; training only starts with all of its own.
    """
    there = room.room(config)
    wrong = room.lacking(1, room.worker(config), "worker", "cluster.cpus_per_worker or cluster.gpus_per_worker", there)
    if training:
        keys = "cluster.train_workers, cluster.cpus_per_train_worker or cluster.train_gpus"
        each = room.training_worker(config)
        wrong += room.lacking(config.train_workers, each, "training workers", keys, there)
    return wrong
