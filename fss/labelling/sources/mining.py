"""Source `mining`: the latent class of every cell, 0 = background (MiningFSS, Yang et al. 2021, section 3.3.1).

Sub-clusters of foregrounds, which a trained `mining` model studied, annotate any other image densely: what they find
makes new tasks, of images that nobody has cut up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from fss import grid
from fss.heads.parts.mined import annotate
from fss.labelling import pseudo
from fss.labelling.sources import Block, Maps


@dataclass(frozen=True)
class MiningLabeller:
    """Labels by the largest cosine to one of (1 + K, D) `representatives`, the background's first (Eq. 3)."""

    representatives: np.ndarray

    def maps(self, block: Block) -> list[Maps]:
        """See `fss.labelling.sources.Labeller`; sub-cluster k is label k, from 1."""
        known = torch.from_numpy(self.representatives).to(block.fields)
        found = annotate(block.fields.movedim(-1, 1), known).argmax(dim=1).cpu().numpy()
        return [
            (
                grid.enlarge_labels(cells, photo.size, block.corners)[None],
                pseudo.regions(cells[None], field, first=1),
            )
            for photo, cells, field in zip(block.photos, found, block.fields, strict=True)
        ]
