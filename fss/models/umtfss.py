"""The UMTFSS head: self-attention, then cross-attention from the query to prototypes of the support.

Source: UMTFSS (AAAI 2024), section "Meta-training FSS from Noisy Meta Tasks", Eqs. 1-6. Where this departs from the
paper or its released code:

* the self-attended support really feeds the prototypes (in the released code its result is dropped);
* attention is plain scaled dot product, not deformable; the backbone's grid is small enough;
* all K shots are clustered together (as released), and averaged in the global prototype and the prior by cells, not by
  shots, so an empty support weighs nothing;
* hash planes and first centroids are fixed by the head's seed instead of drawn anew in every forward pass, so that
  equal inputs give equal masks;
* `maps` gives the query the correlation maps (`fss.models.correlation`) next to the prior mask;
* with `residual: smoothed` (`fss.models.residual`), its preset, training starts at the training-free read-out instead
  of below the floor.

Letters: B episodes, K shots, h x w grid, d = dim.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from fss.backbones import Features
from fss.models import hamming
from fss.models.correlation import LEVELS, correlation_maps
from fss.models.head import Head, zero
from fss.models.prototype import affinity_walk, flat_masks, flat_tokens, unit_grid

_BITS = 32
_ROUNDS = 10


class UMTFSS(Head):
    """See the module's docstring; `maps` are further inputs, `blocks` are repetitions of both attentions."""

    transformers = ("self_attention", "cross_attention")

    def __init__(
        self,
        channels: dict[str, int],
        dim: int = 128,
        heads: int = 4,
        blocks: int = 1,
        foreground_prototypes: int = 20,
        background_prototypes: int = 50,
        maps: bool = True,
    ):
        super().__init__()
        self.planes: torch.Tensor
        self.embeds_smoothed = maps
        self.prototypes = (background_prototypes, foreground_prototypes)
        middle = channels["low"] + channels["mid"]
        self.reduce = nn.Sequential(nn.Conv2d(middle, dim, 1), nn.GroupNorm(8, dim), nn.ReLU())
        self.merge_query = nn.Conv2d(2 * dim + 1 + 8 * maps, dim, 1)
        self.merge_support = nn.Conv2d(2 * dim, dim, 1)
        self.self_attention = nn.ModuleList(Block(dim, heads) for _ in range(blocks))
        self.cross_attention = nn.ModuleList(Block(dim, heads) for _ in range(blocks))
        self.marker = nn.Parameter(torch.zeros(2, dim))
        self.classify = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1), nn.ReLU(), nn.Conv2d(dim, 2, 1))
        self.register_buffer("planes", torch.randn(_BITS, dim))

    def silence(self) -> None:
        """Start the last layer at zero; the first step moves it, and with it the others."""
        zero(self.classify[-1])

    def embed(self, features: Features) -> Features:
        """`middle`: (B, dim, h, w); `high` for the prior mask, and with `maps` their `tokens`."""
        kind = self.merge_query.weight.dtype
        found = {"middle": self.reduce(middle_features(features).to(kind)), "high": features["high"]}
        return found | {"tokens": unit_grid(features, LEVELS)} if self.embeds_smoothed else found

    def focus(self, query: Features) -> Features:
        """With `maps`, `walk`: (B, N, N), one step of the query's own affinity walk."""
        return query | {"walk": affinity_walk(query["tokens"].flatten(2))} if self.embeds_smoothed else query

    def match(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """(B, 2, h, w) logits; see `Head.match`."""
        size, x_query, x_support = query["high"].shape[-2:], query["middle"], support["middle"]
        kind = x_query.dtype
        extra = self._readouts(query, support, masks)
        globe = masked_average(x_support, masks[:, :, 1].to(kind))
        wide = globe[..., None, None].expand(-1, -1, *size)
        x_query = self.merge_query(torch.cat([x_query, wide, extra.to(kind)], dim=1))
        wide = globe[:, None, :, None, None].expand_as(x_support)
        x_support = self.merge_support(torch.cat([x_support, wide], dim=2).flatten(0, 1))
        return self.classify(self._attend(x_query, x_support, masks)).float()

    def _readouts(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """The prior mask, with `maps` also the correlation maps: (B, 1 or 9, h, w)."""
        prior = prior_mask(query["high"], support["high"], masks[:, :, 1])
        if not self.embeds_smoothed:
            return prior
        q, s = query["tokens"].flatten(2), flat_tokens(support["tokens"])
        maps = correlation_maps(q, s, flat_masks(masks), query["walk"]).unflatten(2, query["high"].shape[-2:])
        return torch.cat([prior, maps], dim=1)

    def _attend(self, query: torch.Tensor, support: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Self-attention in query and supports, then attention from the query to the supports' prototypes."""
        episodes = len(query)
        q, s = to_tokens(query), to_tokens(support)
        shares = flat_masks(masks).transpose(1, 2)
        for own, cross in zip(self.self_attention, self.cross_attention, strict=True):
            q, s = own(q, q), own(s, s)
            tokens, used = self.support_prototypes(s.reshape(episodes, -1, s.shape[2]), shares)
            q = cross(q, tokens.to(q.dtype), used)
        return q.transpose(1, 2).reshape(query.shape)

    def support_prototypes(self, points: torch.Tensor, shares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Eq. 5: prototypes of background and foreground, (B, P, d) with their marker added, and (B, P) which exist.

        A cell belongs to the side that has more of it; the cell with the largest share of a side always belongs to it.
        """
        bits = hamming.codes(points.detach(), self.planes)
        order = torch.sin(torch.arange(points.shape[1], device=points.device) * 12.9898) * 43758.5453
        start = order - order.floor()
        found, used = [], []
        for side, number in enumerate(self.prototypes):
            share = shares[..., side]
            members = (share > 0) & ((share >= 0.5) | (share >= share.amax(dim=1, keepdim=True)))
            labels, exists = hamming.cluster(bits, members, start, number, _ROUNDS)
            sums, counts = hamming.totals(points, labels, members, exists.shape[1])
            found.append(sums / counts.clamp_min(1)[..., None] + self.marker[side])
            used.append(exists)
        return torch.cat(found, dim=1), torch.cat(used, dim=1)


class Block(nn.Module):
    """Eqs. 1 and 2: multi-head attention from X to Y and an MLP, each with residual and layer norm after."""

    def __init__(self, dim: int, heads: int, expansion: int = 2):
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(dim, expansion * dim), nn.GELU(), nn.Linear(expansion * dim, dim))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))

    def forward(self, x: torch.Tensor, y: torch.Tensor, used: torch.Tensor | None = None) -> torch.Tensor:
        """(B, N, d) queries attend to (B, M, d) tokens, of which only those `used` (B, M) bool count."""
        mask = None if used is None else ~used
        x = self.norms[0](x + self.attention(x, y, y, key_padding_mask=mask, need_weights=False)[0])
        return self.norms[1](x + self.mlp(x))


def middle_features(features: Features) -> torch.Tensor:
    """Levels low and mid of (B, C, h, w), the finer brought to the coarser's grid by averaging, concatenated."""
    low, mid = features["low"], features["mid"]
    if low.shape[-2:] != mid.shape[-2:]:
        low = F.adaptive_avg_pool2d(low, (mid.shape[-2], mid.shape[-1]))
    return torch.cat([F.normalize(low, dim=1), F.normalize(mid, dim=1)], dim=1)


def masked_average(features: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Average of (B, K, C, h, w) features under (B, K, h, w) weights, over cells and shots together: (B, C)."""
    total = (features * share[:, :, None]).sum(dim=(1, 3, 4))
    return total / share.sum(dim=(1, 2, 3)).clamp_min(1e-3)[:, None]


def prior_mask(query: torch.Tensor, support: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Largest cosine of every query cell to a foreground cell of the support, scaled to [0, 1]: (B, 1, h, w) float32.

    (PFENet, Tian et al. 2020, Eqs. 3-5, on high-level features; min-max normalised over the query.) `share` is the
    foreground of the support, (B, K, h, w); the cells with the largest share count even where none reaches a half.
    """
    foreground = share.float().flatten(1)
    inside = foreground >= foreground.amax(dim=1, keepdim=True).clamp(max=0.5)
    q = F.normalize(query.float().flatten(2), dim=1)
    s = F.normalize(support.float().transpose(1, 2).flatten(2), dim=1)
    cosine = (q.transpose(1, 2) @ s).masked_fill(~inside[:, None], -1.0).amax(dim=2)
    low, high = cosine.amin(dim=1, keepdim=True), cosine.amax(dim=1, keepdim=True)
    return ((cosine - low) / (high - low).clamp_min(1e-7)).reshape(-1, 1, *query.shape[-2:])


def to_tokens(grid: torch.Tensor) -> torch.Tensor:
    """(B, d, h, w) to (B, h w, d)."""
    return grid.flatten(2).transpose(1, 2)
