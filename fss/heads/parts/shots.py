"""What K supports say together: prior masks, and prototypes where the published rule is the mean over shots.

PANet, PFENet and CyCTR average over the cells of one support first and over supports then, so that a support counts
once however large the thing is in it. One that does not show it (a distractor) is left out instead of pulling the mean
towards zero, as it would in the released codes.

Letters: B episodes, K shots, C channels, h x w grid.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fss.heads.parts.tokens import flat_tokens, unit
from fss.precision import coarse

_NOTHING = 1e-12


def cell_weights(share: torch.Tensor) -> torch.Tensor:
    """Weights of cells from (B, K, ..., h, w) shares, float32 of the same shape: of an episode they sum to 1.

    Each shot with any share has the same sum; where no shot has, all are 0.
    """
    share = share.float()
    total = share.sum(dim=(-2, -1), keepdim=True)
    speaks = (total > 0).float()
    return share / total.clamp_min(_NOTHING) * speaks / speaks.sum(dim=1, keepdim=True).clamp_min(1)


def shot_means(features: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Masked average pooling: (B, C), mean over shots of the average of (B, K, C, h, w) under (B, K, h, w) shares."""
    weights = cell_weights(share).to(features.dtype).flatten(1)
    return (features.transpose(1, 2).flatten(2) @ weights[:, :, None])[..., 0]


def prior_mask(query: torch.Tensor, support: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Largest cosine of every query cell to a foreground cell of the support, scaled to [0, 1]: (B, 1, h, w) float32.

    (PFENet, Tian et al. 2020, Eqs. 3-5, on high-level features; min-max normalised over the query.) `share` is the
    foreground of the support, (B, K, h, w); the cells with the largest share count even where none reaches a half.
    """
    foreground = share.float().flatten(1)
    inside = foreground >= foreground.amax(dim=1, keepdim=True).clamp(max=0.5)
    q, s = coarse(unit(query.float().flatten(2))), coarse(unit(flat_tokens(support.float())))
    outside = torch.where(inside, 0.0, -3.0).to(q.dtype)[:, None]  # added, as filling by a mask takes thrice as long
    cosine = torch.baddbmm(outside, q.transpose(1, 2), s).amax(dim=2).float()
    low, high = cosine.amin(dim=1, keepdim=True), cosine.amax(dim=1, keepdim=True)
    return ((cosine - low) / (high - low).clamp_min(1e-7)).reshape(-1, 1, *query.shape[-2:])


def for_each_shot(values: torch.Tensor, shots: int) -> torch.Tensor:
    """(B K, ...) of (B, ...): each as often as its episode has shots."""
    return values[:, None].expand(-1, shots, *values.shape[1:]).flatten(0, 1)


@torch.no_grad()
def shot_priors(query: torch.Tensor, support: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """PFENet's prior of (B, C, h, w) queries: (B, 1, h, w) float32 in [0, 1], the mean of each shot's own.

    Args:
        query: high-level features.
        support: (B, K, C, h, w), the same of the supports.
        share: (B, K, h, w) foreground of the supports' cells.
    """
    shots = share.shape[1]
    alone = share.flatten(0, 1)[:, None]
    priors = prior_mask(for_each_shot(query, shots), support.flatten(0, 1)[:, None], alone)
    speaks = (share.sum(dim=(2, 3)) > 0).float()
    weights = speaks / speaks.sum(dim=1, keepdim=True).clamp_min(1)
    return (priors.unflatten(0, (-1, shots)) * weights[:, :, None, None, None]).sum(dim=1)


def cosine_logits(tokens: torch.Tensor, prototypes: torch.Tensor, alpha: float = 20.0) -> torch.Tensor:
    """`alpha` times the cosine of (B, C, h, w) tokens to (B, 2, C) prototypes: (B, 2, h, w) float32 (PANet)."""
    cells = tokens.float().flatten(2)
    along = F.normalize(prototypes.float(), dim=2) @ cells
    squares = cells.square().sum(dim=1, keepdim=True)  # divided last: 2 rows instead of C, a third of the time
    return alpha * (along * squares.clamp_min(1e-24).rsqrt()).unflatten(2, tokens.shape[-2:])


def aligned(
    query: torch.Tensor, support: torch.Tensor, predicted: torch.Tensor, masks: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Segment the supports by the query's prototypes under its prediction: PANet's alignment (PAR).

    Args:
        query: (B, C, h, w) tokens.
        support: (B, K, C, h, w).
        predicted: (B, 2, h, w) weights of the query's cells on either side; no gradient flows into them.
        masks: (B, K, 2, h, w) shares.

    Returns:
        (B K, 2, h, w) logits and their target, the supports' shares. A support that shows nothing of the thing, and one
        whose query is predicted to show nothing, has an empty target: its loss is none.
    """
    weights = cell_weights(predicted.detach()[:, None])[:, 0].to(query.dtype)
    prototypes = weights.flatten(2) @ query.flatten(2).transpose(1, 2)
    shots = masks.shape[1]
    logits = cosine_logits(support.flatten(0, 1), for_each_shot(prototypes, shots))
    meant = (masks[:, :, 1].amax(dim=(2, 3)) > 0) & (predicted[:, 1].amax(dim=(1, 2)) > 0)[:, None]
    return logits, (masks * meant[:, :, None, None, None]).flatten(0, 1)
