"""Maps of how much each query cell looks like the support, smoothed by the query's own affinities."""

from __future__ import annotations

import torch

from fss.backbones import Features
from fss.heads.parts.tokens import prototypes
from fss.heads.parts.walk import walked
from fss.precision import coarse

#: Levels whose tokens are compared.
LEVELS = ("mid", "high")
_STEPS = 3
#: Differences of cosines are small; this brings them to the range of the cosines.
_CONTRAST = 3.0
#: Added to cosines, it makes them the least.
_OUTSIDE = -3.0


def compared(tokens: torch.Tensor, weights: torch.Tensor) -> Features:
    """What the maps want of (B, C, M) support tokens with (B, 2, M) shares, whatever the query.

    `prototypes`: (B, 2, C), means of background and foreground; `compared`: (B, C, M), the tokens, `coarse`; `outside`:
    (B, 2, M), 0 for the tokens of either side, less than any cosine for all others.
    """
    background, foreground = weights.unbind(1)
    members = torch.stack([background > 0.5, foreground >= 0.5], dim=1)
    rough = coarse(tokens)
    outside = torch.where(members, 0.0, _OUTSIDE).to(rough.dtype)
    return {"prototypes": prototypes(tokens, weights), "compared": rough, "outside": outside}


def correlation_maps(q: torch.Tensor, support: Features, walk: torch.Tensor) -> torch.Tensor:
    """Eight maps (B, 8, N) float32 of (B, C, N) query tokens against what `compared` made of the support's.

    Cosine to the foreground's and background's mean; to the nearest foreground and background token; the difference of
    the former as it is, after one and after three steps of the walk; the difference of the latter after three.
    """
    to_background, to_foreground = (support["prototypes"] @ q).unbind(1)
    cosine = coarse(q).transpose(1, 2) @ support["compared"]
    background, foreground = support["outside"].unbind(1)
    near_foreground = _nearest(cosine, foreground, to_foreground)
    near_background = _nearest(cosine, background, to_background)
    contrasts = torch.stack([to_foreground - to_background, near_foreground - near_background], dim=2)
    once = walked(walk, contrasts)
    thrice = walked(walk, once, _STEPS - 1)
    smoothed = [contrasts[..., 0], once[..., 0], thrice[..., 0], thrice[..., 1]]
    plain = [to_foreground, to_background, near_foreground, near_background]
    return torch.stack([*plain, *(_CONTRAST * m for m in smoothed)], dim=1)


def _nearest(cosine: torch.Tensor, outside: torch.Tensor, otherwise: torch.Tensor) -> torch.Tensor:
    """Largest of (B, N, M) cosines over those not (B, M) `outside`; `otherwise` (B, N) where there is none."""
    largest = (cosine + outside[:, None]).amax(dim=2).float()  # filling by a mask takes thrice as long
    return torch.where(largest < _OUTSIDE / 2, otherwise, largest)
