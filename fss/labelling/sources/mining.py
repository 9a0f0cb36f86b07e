"""Source `mining`: the latent class of every cell, 0 = background (MiningFSS, Yang et al. 2021, section 3.3.1).

Sub-clusters of foregrounds, which a trained `mining` model studied, annotate any other image densely: what they find
makes new tasks, of images that nobody has cut up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fss.keys import key, one_of
from fss.labelling.sources import LEVELS, Block, Maps, SourceKeys


@dataclass
class Keys(SourceKeys):
    """Source `mining`: the latent classes of an exported mining model."""

    name: str = "mining"
    levels: list[str] = key(["mid"], one_of(*LEVELS))
    """Backbone levels whose embeddings, side by side, are looked at: those of the model."""
    model: str | None = key(None, path=True)
    """Exported mining model, or run's folder, whose latent classes label the images."""


@dataclass(frozen=True)
class MiningLabeller:
    """Labels by the largest cosine to one of (1 + K, D) `representatives`, the background's first (Eq. 3)."""

    representatives: np.ndarray

    def maps(self, block: Block) -> list[Maps]:
        """See `fss.labelling.sources.Labeller`; sub-cluster k is label k, from 1."""
        import torch

        from fss import grid
        from fss.heads.parts.mined import annotate
        from fss.labelling import pseudo

        known = torch.from_numpy(self.representatives).to(block.fields)
        nearest = annotate(block.fields.movedim(-1, 1), known).argmax(dim=1).cpu().numpy()
        return [
            (
                grid.enlarge_labels(cells, photo.size, block.corners)[None],
                pseudo.regions(cells[None], field, first=1),
            )
            for photo, cells, field in zip(block.photos, nearest, block.fields, strict=True)
        ]
