"""Keys of the machines."""

from __future__ import annotations

import os
from dataclasses import dataclass

from fss.keys import FROM_ZERO, at_least, key


@dataclass
class ClusterConfig:
    """Machines: how many processes, and what each takes."""

    address: str | None = None
    """Ray address to join, e.g. `auto`; none starts Ray on this machine, or joins the job's own cluster."""
    workers: int | None = key(None, at_least(1))
    """Processes for the shard stages; none = as many as fit the cluster's CPUs (and GPUs)."""
    cpus_per_worker: int = key(1, at_least(1))
    """CPUs of each."""
    gpus_per_worker: float = key(0, FROM_ZERO)
    """GPUs of each; above 0 each training worker takes one too."""
    images_per_batch: int = key(32, at_least(1))
    """Images that the backbone of a worker with a GPU takes at a time; on a CPU they go one by one."""
    train_workers: int = key(1, at_least(1))
    """Processes of pre-training and meta-training."""
    cpus_per_train_worker: int = key(1, at_least(1))
    """CPUs of each."""
    memory_gib: float = key(2.0, FROM_ZERO)
    """What an evaluating worker keeps of images in memory, on its GPU if it has one, and of points in k-means, GiB."""
    features: str | None = None
    """Folder of the evaluation images' features, which all workers and runs share; none = <root>/features."""
    features_gib: float = key(32.0, FROM_ZERO)
    """Size of that folder from which on nothing more is kept there; 0 = nothing is kept on disk."""

    def joined(self) -> str:
        """The address of the Ray that a run joins; `local` where it starts one of its own."""
        return self.address or os.environ.get("RAY_ADDRESS") or "local"
