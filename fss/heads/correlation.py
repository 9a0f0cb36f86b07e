"""Our own small head: correlation maps, smoothed by the query's own affinities, read by convolutions.

With `residual: smoothed` (`fss.heads.parts.residual`), its preset, it starts as the training-free read-out and
learns what to add to it. Compared with the published heads it has fewer parameters and no attention over the
support; K shots are simply one larger support, so that five shots are better than one without training for five.

Letters: B episodes, C channels, N query tokens, M = K h w support tokens, d = width.
"""

from __future__ import annotations

import torch
from torch import nn

from fss.backbones import Features
from fss.heads.parts.head import Head, zero
from fss.heads.prototype import affinity_walk, flat_masks, flat_tokens, prototype_cosines, unit_grid, walked

LEVELS = ("mid", "high")
_STEPS = 3
#: Differences of cosines are small; this brings them to the range of the cosines.
_CONTRAST = 3.0


class CorrelationHead(Head):
    """See the module's docstring. `dim` is the width of its layers."""

    embeds_smoothed = True

    def __init__(self, channels: dict[str, int], dim: int = 48):
        super().__init__()
        self.project = nn.Conv1d(channels["mid"] + channels["high"], dim, 1)
        self.merge = nn.Conv1d(8 + 2 * dim, dim, 1)
        self.local = nn.Sequential(nn.GroupNorm(4, dim), nn.GELU(), nn.Conv2d(dim, dim, 3, padding=1))
        self.spread = nn.Sequential(nn.GroupNorm(4, 2 * dim), nn.GELU(), nn.Conv2d(2 * dim, dim, 3, padding=1))
        self.out = nn.Sequential(nn.GroupNorm(4, dim), nn.GELU(), nn.Dropout2d(0.1), nn.Conv2d(dim, 1, 1))

    def silence(self) -> None:
        """Start the last layer at zero; the first step moves it, and with it the others."""
        zero(self.out[-1])

    def embed(self, features: Features) -> Features:
        """`tokens`: (B, C, h, w) of length 1."""
        return {"tokens": unit_grid(features, LEVELS)}

    def focus(self, query: Features) -> Features:
        """`walk`: (B, N, N), one step of the query's own affinity walk."""
        return query | {"walk": affinity_walk(query["tokens"].flatten(2))}

    def match(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """(B, 2, h, w) logits, the background's zero; see `Head.match`."""
        size, walk, weights = query["tokens"].shape[-2:], query["walk"], flat_masks(masks)
        q, s = query["tokens"].flatten(2), flat_tokens(support["tokens"])
        maps = correlation_maps(q, s, weights, walk)
        x = self._merge(maps, q, s, weights).unflatten(2, size)
        x = x + self.local(x)
        far = walked(walk.to(x.dtype), x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, size)
        x = x + self.spread(torch.cat([x, far], dim=1))
        logit = self.out(x)[:, 0].float()
        return torch.stack([torch.zeros_like(logit), logit], dim=1)

    def _merge(self, maps: torch.Tensor, q: torch.Tensor, s: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        kind = self.merge.weight.dtype
        own, other = self.project((4 * q).to(kind)), self.project((4 * s).to(kind))
        share = weights[:, 1].to(kind)
        prototype = (other * share[:, None]).sum(2) / share.sum(1).clamp_min(1e-3)[:, None]
        return self.merge(torch.cat([maps.to(kind), own, own * prototype[..., None]], dim=1))


def correlation_maps(q: torch.Tensor, s: torch.Tensor, weights: torch.Tensor, walk: torch.Tensor) -> torch.Tensor:
    """Eight maps (B, 8, N) float32 of (B, C, N) query against (B, C, M) support tokens with (B, 2, M) shares.

    Cosine to the foreground's and background's mean; to the nearest foreground and background token; the difference of
    the former as it is, after one and after three steps of the walk; the difference of the latter after three.
    """
    to_background, to_foreground = prototype_cosines(q, s, weights).unbind(1)
    cosine = q.transpose(1, 2) @ s
    background, foreground = weights.unbind(1)
    near_foreground = _nearest(cosine, foreground >= 0.5, to_foreground)
    near_background = _nearest(cosine, background > 0.5, to_background)
    contrasts = torch.stack([to_foreground - to_background, near_foreground - near_background], dim=2)
    once = walked(walk, contrasts)
    thrice = once
    for _ in range(_STEPS - 1):
        thrice = walked(walk, thrice)
    smoothed = [contrasts[..., 0], once[..., 0], thrice[..., 0], thrice[..., 1]]
    plain = [to_foreground, to_background, near_foreground, near_background]
    return torch.stack([*plain, *(_CONTRAST * m for m in smoothed)], dim=1)


def _nearest(cosine: torch.Tensor, members: torch.Tensor, otherwise: torch.Tensor) -> torch.Tensor:
    """Largest of (B, N, M) cosines over the members (B, M); `otherwise` (B, N) where there is none."""
    found = (cosine + torch.where(members, 0.0, -3.0)[:, None]).amax(dim=2)  # filling by a mask takes thrice as long
    return torch.where(found < -1.5, otherwise, found)
