"""What is looked at before any work: here, or on a cluster in a task, which sees the files that workers see."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cluster.config import ClusterConfig, Config

Look = Callable[[Config], Sequence[str]]


def on_a_cluster(config: ClusterConfig) -> bool:
    """Whether workers are on machines that the driver may not be on."""
    return config.joined() != "local"


def problems(config: Config, looks: Sequence[Look]) -> list[str]:
    """What is wrong with where the run writes, with the workers that it asks for, and with what `looks` look at."""
    wrong = [*_root(config), *workers(config.cluster)]
    for look in looks:
        wrong += look(config)
    return list(dict.fromkeys(wrong))


def remotely(config: Config, looks: Sequence[Look]) -> list[str]:
    """`problems` as a worker sees them."""
    import ray

    wrong: list[str] = ray.get(ray.remote(num_cpus=1)(problems).remote(config, looks))
    return wrong


def _root(config: Config) -> list[str]:
    """Whether the run's folder can be written; nothing is made."""
    folder = Path(config.root).resolve() / config.name
    there = next(one for one in (folder, *folder.parents) if one.exists())
    if not there.is_dir():
        return [f"root: expected a folder to write {folder} in, {there} is a file; set root=FOLDER"]
    if not os.access(there, os.W_OK | os.X_OK):
        return [f"root: expected a folder that can be written, {there} cannot; set root=FOLDER, or change its rights"]
    return []


def workers(config: ClusterConfig) -> list[str]:
    """Whether one worker of the shard stages fits the cluster; more than fit wait until others are done."""
    each = {"CPU": float(config.cpus_per_worker), "GPU": float(config.gpus_per_worker)}
    return _lacking(each, "a worker", "cluster.cpus_per_worker or cluster.gpus_per_worker")


def training_workers(config: ClusterConfig) -> list[str]:
    """Whether all training workers fit the cluster together: they only start at once."""
    number = config.train_workers
    every = {"CPU": float(number * config.cpus_per_train_worker), "GPU": float(number * (config.gpus_per_worker > 0))}
    return _lacking(every, f"{number} training workers", "cluster.train_workers or cluster.cpus_per_train_worker")


def _lacking(wanted: dict[str, float], what: str, keys: str) -> list[str]:
    most = _most()
    lacking = {name: number for name, number in wanted.items() if number > most.get(name, 0.0)}
    if not lacking:
        return []
    asked = " and ".join(f"{number:g} {name}s" for name, number in lacking.items())
    there = " and ".join(f"{most.get(name, 0.0):g}" for name in lacking)
    return [f"cluster: expected room for {what}, which takes {asked}, got {there} at most; lower {keys}"]


def _most() -> dict[str, float]:
    """CPUs and GPUs that there can ever be: the autoscaler's limits, what is there, or what Ray would find here."""
    import ray

    if ray.is_initialized():
        limits: dict[str, Any] = ray._private.state.state.get_max_resources_from_cluster_config() or {}
        there = ray.cluster_resources()
        return {name: max(float(limits.get(name, 0)), float(there.get(name, 0))) for name in ("CPU", "GPU")}
    from ray._private.accelerators.nvidia_gpu import NvidiaGPUAcceleratorManager
    from ray._private.utils import get_num_cpus

    gpus = NvidiaGPUAcceleratorManager.get_current_node_num_accelerators()
    shown = NvidiaGPUAcceleratorManager.get_current_process_visible_accelerator_ids()
    return {"CPU": float(get_num_cpus()), "GPU": float(gpus if shown is None else min(gpus, len(shown)))}
