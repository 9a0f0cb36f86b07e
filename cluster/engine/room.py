"""How much a cluster holds: the machines that are there, and those that its autoscaler may add."""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
import yaml

from cluster.config import ClusterConfig
from cluster.engine.progress import format_duration

logger = logging.getLogger(__name__)

Resources = Mapping[str, float]
"""Of a machine, or what a process takes of one: `CPU`, `GPU`."""

#: Seconds without what is waited for after which the log says so, and then again and again.
_SOON, _AGAIN = 5.0, 60.0


#: What only the head has of, which no autoscaler adds or takes away.
_HEAD = "node:__internal_head__"


@dataclass(frozen=True)
class NodeGroup:
    """So many machines, each with these resources."""

    number: float
    each: Resources

    def hold(self, taken: Resources) -> int:
        """How many processes that take so much fit one of them."""
        return min(int(self.each.get(name, 0.0) / amount + 1e-6) for name, amount in taken.items())


@dataclass(frozen=True)
class Limit:
    """All the machines that an autoscaler may add, by kind, and how many it adds together."""

    kinds: tuple[NodeGroup, ...]
    most: float = math.inf


@dataclass(frozen=True)
class Room:
    """The machines that are there, and how many may come: none where nothing scales, None where nobody knows."""

    now: tuple[NodeGroup, ...]
    limit: Limit | None = Limit(())

    def fits(self, taken: Resources) -> int:
        """How many processes that take so much fit the machines that are there, if they are free."""
        return int(sum(kind.number * kind.hold(taken) for kind in self.now))

    def may_fit(self, taken: Resources) -> int | None:
        """How many there can ever be; None where nobody knows."""
        if self.limit is None:
            return None
        kept = Room(tuple(kind for kind in self.now if _HEAD in kind.each))
        fitting, left = float(kept.fits(taken)), self.limit.most
        for kind in sorted(self.limit.kinds, key=lambda kind: -kind.hold(taken)):
            number = min(kind.number, left)
            fitting, left = fitting + number * kind.hold(taken), left - number
        return max(self.fits(taken), int(min(fitting, 2**31)))

    @property
    def grows(self) -> bool:
        """Whether machines come and go with the work."""
        return self.limit is None or bool(self.limit.kinds)

    def __str__(self) -> str:
        kinds = [*self.now, *(self.limit.kinds if self.limit else ())]
        return " or ".join(dict.fromkeys(told(kind.each) for kind in kinds)) or "no machine"


def told(resources: Resources, number: float = 1) -> str:
    """`number` times the CPUs and GPUs, in words.

    >>> told({"CPU": 8.0, "GPU": 0.5}), told({"CPU": 1.0}, 3)
    ('8 CPUs and 0.5 GPUs', '3 CPUs and 0 GPUs')
    """
    return " and ".join(f"{number * resources.get(name, 0.0):g} {name}s" for name in ("CPU", "GPU"))


def worker(config: ClusterConfig) -> Resources:
    """What a worker of the shard stages takes."""
    return _some({"CPU": float(config.cpus_per_worker), "GPU": float(config.gpus_per_worker)})


def training_worker(config: ClusterConfig) -> Resources:
    """What a training worker takes."""
    return _some({"CPU": float(config.cpus_per_train_worker), "GPU": float(config.training_gpus())})


def _some(resources: Resources) -> Resources:
    return {name: amount for name, amount in resources.items() if amount}


def room(config: ClusterConfig, but: Collection[str] = ()) -> Room:
    """Of the cluster that a run has joined, of its own Ray, or of the one that it would start on this machine.

    `but`: Ray's ids of machines that do not count.
    """
    if not ray.is_initialized():
        return Room((_here(),))
    now = tuple(NodeGroup(1, node["Resources"]) for node in ray.nodes() if node["Alive"] and node["NodeID"] not in but)
    return Room(now) if config.joined() == "local" else Room(now, _limit(ray.get_runtime_context().gcs_address))


def _here() -> NodeGroup:
    """What Ray would find on this machine."""
    from ray._private.accelerators.nvidia_gpu import NvidiaGPUAcceleratorManager
    from ray._private.utils import get_num_cpus

    gpus = NvidiaGPUAcceleratorManager.get_current_node_num_accelerators()
    shown = NvidiaGPUAcceleratorManager.get_current_process_visible_accelerator_ids()
    return NodeGroup(1, {"CPU": get_num_cpus(), "GPU": gpus if shown is None else min(gpus, len(shown))})


@functools.cache
def _limit(cluster: str) -> Limit | None:
    """What the autoscaler of the cluster at this address may add.

    Ray tells this to nobody, so the head is asked with which configuration its autoscaler runs; a platform may also
    have written it down for all. An autoscaler that runs elsewhere, as KubeRay's does, keeps it to itself.
    """
    if reported := ray._private.state.state.get_max_resources_from_cluster_config():
        return Limit((NodeGroup(1, reported),))
    asked = ray.remote(num_cpus=0, resources={_HEAD: 0.001})(_configured)
    config: Mapping[str, Any] | None = ray.get(asked.remote(cluster))
    return None if config is None else configured(config)


def configured(config: Mapping[str, Any]) -> Limit:
    """What an autoscaler of this configuration, in the form that `ray up` takes, may add."""
    most = float(config.get("max_workers", math.inf))
    others = [one for name, one in config.get("available_node_types", {}).items() if name != config["head_node_type"]]
    kinds = [NodeGroup(one.get("max_workers", most), one.get("resources", {})) for one in others]
    return Limit(tuple(kind for kind in kinds if kind.number and kind.each), most)


def _configured(cluster: str) -> Mapping[str, Any] | None:
    """Runs on the head: the configuration of the autoscaler beside it, empty where it scales nothing."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        options = dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
        if options.get("--gcs-address") == cluster and any(word.endswith("monitor.py") for word in words):
            path = options.get("--autoscaling-config")
            return yaml.safe_load(Path(path).expanduser().read_text()) if path else {}
    return None


def lacking(number: int, taken: Resources, what: str, keys: str, there: Room) -> list[str]:
    """Why so many processes can never be there together; nothing if they can, or nobody knows."""
    fitting = there.may_fit(taken)
    if fitting is None or fitting >= number:
        return []
    return [
        f"cluster: expected room for {number} {what}, which takes {told(taken)}, got room for {fitting} at most on "
        f"machines of {there}; lower {keys}"
    ]


def awaited(
    references: Sequence[Any], what: Callable[[], str], timeout: float = math.inf, soon: float | None = None
) -> Iterator[Any]:
    """Yield each reference when it is there, for `timeout` seconds at most; the log says what is waited for, how long,
    from `soon` seconds on.

    What is asked for makes an autoscaler add machines, which takes minutes.
    """
    start, missing, patience = time.monotonic(), list(references), _SOON if soon is None else soon
    while missing and (passed := time.monotonic() - start) < timeout:
        done, missing = ray.wait(missing, num_returns=1, timeout=min(patience, timeout - passed))
        yield from done
        if not done and (passed := time.monotonic() - start) < timeout:
            logger.warning("waiting for %s since %s; %s", what(), format_duration(passed), _state())
            patience = _AGAIN


def _state() -> str:
    """What the cluster has, in words."""
    there, free = ray.cluster_resources(), ray.available_resources()
    return f"of the cluster's {told(there)}, {told(free)} are free"


def hosts() -> dict[str, str]:
    """Names of the machines that are there, by the ids of their Ray nodes."""
    return {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}


def gone(before: Mapping[str, str]) -> Iterable[str]:
    """Names of machines that were there before and are there no more."""
    alive = hosts()
    return [host for node, host in before.items() if node not in alive]
