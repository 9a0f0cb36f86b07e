"""Keys of jobs.plan."""

from __future__ import annotations

from dataclasses import dataclass

from fss.keys import POSITIVE, at_least, key


@dataclass
class PlanConfig:
    """What `jobs.plan` predicts, and for which machines."""

    corpus_size: float | None = None
    """Images to plan for; on the command line of jobs.plan simply corpus_size=1e9."""
    images: int = key(64, at_least(16))
    """Images that the stages are measured on."""
    workers: int | None = key(None, at_least(1))
    """Processes to plan for; none = as many as this cluster has."""
    network_gbit: float | None = key(None, POSITIVE)
    """What the cluster reads from an object store, Gbit/s; none = not looked at."""
    disk_mb_s: float | None = key(None, POSITIVE)
    """What the run's file system takes from all workers together, MB/s; none = what one process was seen to write."""
