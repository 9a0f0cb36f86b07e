"""Keys of jobs.predict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from fss.keys import key, ranged


@dataclass
class PredictConfig:
    """Segment the user's own images."""

    model: str = MISSING
    """Folder of an exported model, or a run's folder, whose model is taken."""
    support: Any = MISSING
    """Image, or list of images, that shows the thing."""
    support_mask: Any = MISSING
    """Its mask, or one for each support: nonzero (or 1) = the thing."""
    query: str = MISSING
    """Image or folder of images to segment."""
    out: str = MISSING
    threshold: float = key(0.5, ranged("a probability in (0, 1)", lambda value: 0 < value < 1))
    """Foreground probability from which a pixel belongs to the thing, in (0, 1)."""
    overwrite: bool = False
    device: str = "auto"
