"""Where a query's two sides part: at zero, as its supports have it, or nearer to where its own logits do.

What one support says of another image is biased. All of that image may be less like the thing, or more, and at zero too
little of it is found, or too much. The query's own logits still fall into two groups, but where these part may be
another thing's border. So the threshold moves a share of the way, the less the more supports there are.
"""

from __future__ import annotations

import torch

from fss.clustering.otsu import otsu


def own(margins: torch.Tensor, share: float, shots: int) -> torch.Tensor:
    """`share` / `shots` of the threshold that parts each of (..., h, w) margins best (Otsu 1979): (..., 1, 1).

    No gradient passes through it.
    """
    if share == 0:
        return margins.new_zeros(*margins.shape[:-2], 1, 1)
    rows = margins.detach().flatten(-2).flatten(0, -2)
    return share / shots * otsu(rows).reshape(*margins.shape[:-2], 1, 1)


def moved(logits: torch.Tensor, share: float, shots: int) -> torch.Tensor:
    """(B, 2, h, w) logits whose margin, foreground less background, is lower by `own` of it."""
    half = own(logits[:, 1] - logits[:, 0], share, shots) / 2
    return logits + torch.stack([half, -half], dim=1)
