"""The salient side of an image, without any support."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fss.backbones import Features
from fss.clustering.saliency import cut
from fss.heads.parts.tokens import unit_grid

#: Levels that are cut in two.
LEVELS = ("mid", "high")


def two_sided(margin: torch.Tensor) -> torch.Tensor:
    """(B, 1, h, w) margins, positive inside, as (B, 2, h, w) logits of background and foreground."""
    return torch.cat([torch.zeros_like(margin), margin], dim=1)


def salient(features: Features, levels: Sequence[str]) -> torch.Tensor:
    """How far each cell is on the salient side: (B, 1, h, w) float32, positive inside.

    Features may bring a saliency map of their own, level `saliency`, (B, 1, h, w) in [0, 1] on the grid of `levels`:
    then it is the map's log-odds. Otherwise each image is cut in two (`cut`).
    """
    if "saliency" in features:
        return torch.logit(features["saliency"].float(), eps=1e-3)
    tokens = unit_grid(features, levels).detach().permute(0, 2, 3, 1)
    margins = np.stack([cut(image) for image in tokens.cpu().numpy()])
    return torch.from_numpy(margins).float()[:, None].to(tokens.device)
