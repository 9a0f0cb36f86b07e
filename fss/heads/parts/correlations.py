"""Maps of how much each query cell looks like the support, smoothed by the query's own affinities."""

from __future__ import annotations

import torch

from fss.heads.parts.tokens import prototype_cosines
from fss.heads.parts.walk import walked
from fss.precision import coarse

#: Levels whose tokens are compared.
LEVELS = ("mid", "high")
_STEPS = 3
#: Differences of cosines are small; this brings them to the range of the cosines.
_CONTRAST = 3.0


def correlation_maps(q: torch.Tensor, s: torch.Tensor, weights: torch.Tensor, walk: torch.Tensor) -> torch.Tensor:
    """Eight maps (B, 8, N) float32 of (B, C, N) query against (B, C, M) support tokens with (B, 2, M) shares.

    Cosine to the foreground's and background's mean; to the nearest foreground and background token; the difference of
    the former as it is, after one and after three steps of the walk; the difference of the latter after three.
    """
    to_background, to_foreground = prototype_cosines(q, s, weights).unbind(1)
    cosine = coarse(q).transpose(1, 2) @ coarse(s)
    background, foreground = weights.unbind(1)
    near_foreground = _nearest(cosine, foreground >= 0.5, to_foreground)
    near_background = _nearest(cosine, background > 0.5, to_background)
    contrasts = torch.stack([to_foreground - to_background, near_foreground - near_background], dim=2)
    once = walked(walk, contrasts)
    thrice = walked(walk, once, _STEPS - 1)
    smoothed = [contrasts[..., 0], once[..., 0], thrice[..., 0], thrice[..., 1]]
    plain = [to_foreground, to_background, near_foreground, near_background]
    return torch.stack([*plain, *(_CONTRAST * m for m in smoothed)], dim=1)


def _nearest(cosine: torch.Tensor, members: torch.Tensor, otherwise: torch.Tensor) -> torch.Tensor:
    """Largest of (B, N, M) cosines over the members (B, M); `otherwise` (B, N) where there is none."""
    outside = torch.where(members, 0.0, -3.0).to(cosine.dtype)[:, None]
    largest = (cosine + outside).amax(dim=2).float()  # filling by a mask takes thrice as long
    return torch.where(largest < -1.5, otherwise, largest)
