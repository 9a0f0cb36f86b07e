"""Keys of the machines."""

from __future__ import annotations

import os
from dataclasses import dataclass

from fss.keys import FROM_ZERO, at_least, key, one_of


@dataclass
class ClusterConfig:
    """Machines: how many processes, and what each takes."""

    address: str | None = None
    """Ray address to join, e.g. `auto`; none starts Ray on this machine, or joins the job's own cluster."""
    workers: int | None = key(None, at_least(1))
    """Processes for the shard stages; none = as many as fit the cluster, with all that its autoscaler may add."""
    cpus_per_worker: int = key(1, at_least(1))
    """CPUs of each: images that it looks at at a time. They shape no byte, for each computes on one."""
    gpus_per_worker: float = key(0, FROM_ZERO)
    """GPUs of each."""
    train_workers: int = key(1, at_least(1))
    """Processes of pre-training and meta-training; they start together."""
    cpus_per_train_worker: int = key(1, at_least(1))
    """CPUs of each."""
    train_gpus: int | None = key(None, one_of(0, 1))
    """GPUs of each; none = 1 if the workers of the shard stages have any. They may be on other machines."""
    mixed: bool = False
    """Whether machines with other processors, GPUs or libraries may share a stage: its last bits may differ then."""
    memory_gib: float = key(2.0, FROM_ZERO)
    """What an evaluating worker keeps of images in memory, on its GPU if it has one, and of points in k-means, GiB."""
    features: str | None = None
    """Folder of the evaluation images' features, which all workers and runs share; none = <root>/features."""
    features_gib: float = key(32.0, FROM_ZERO)
    """Size of that folder from which on nothing more is kept there; 0 = nothing is kept on disk."""

    def joined(self) -> str:
        """The address of the Ray that a run joins; `local` where it starts one of its own."""
        return self.address or os.environ.get("RAY_ADDRESS") or "local"

    def training_gpus(self) -> int:
        """GPUs of each training worker."""
        return int(self.gpus_per_worker > 0) if self.train_gpus is None else self.train_gpus
