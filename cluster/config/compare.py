"""The keys of `jobs.compare`."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from cluster.config import TrackingConfig


@dataclass
class CompareConfig:
    """Compare evaluations of the same episodes."""

    runs: str | list[str] = MISSING
    """Folders that evaluate wrote, or runs' folders, whose newest evaluation is taken; RUN:MODEL picks a model of its
    table by name, otherwise each gives its last model, and its floors once."""
    base: str | None = None
    """What the others are compared to: a run as given in runs=, or a model by name; none = the first run."""
    samples: int = 1000
    """Bootstrap replicates."""
    seed: int = 0
    """Of the replicates."""
    out: str | None = None
    """Where tables and picture go; none = a folder in <root>/compare, beside the first run."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def problems(self) -> list[str]:
        """What cannot work, one sentence each."""
        found = []
        if self.samples < 1:
            found.append(f"samples: expected at least 1, got {self.samples}")
        if self.seed < 0:
            found.append(f"seed: expected a number from 0, got {self.seed}")
        return found
