"""The keys of `jobs.compare`."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from cluster.config.tracking import TrackingConfig
from fss.keys import FROM_ZERO, at_least, key


@dataclass
class CompareConfig:
    """Compare evaluations of the same episodes."""

    runs: str | list[str] = MISSING
    """Folders that evaluate wrote, or runs' folders, whose newest evaluation is taken; RUN:MODEL picks a model of its
    table by name, otherwise each gives its last model, and its floors once."""
    base: str | None = None
    """What the others are compared to: a run as given in runs=, or a model by name; none = the first run."""
    samples: int = key(1000, at_least(1))
    """Bootstrap replicates."""
    seed: int = key(0, FROM_ZERO)
    """Of the replicates."""
    out: str | None = None
    """Where tables and picture go; none = a folder in <root>/compare, beside the first run."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
