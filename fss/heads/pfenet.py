"""PFENet: a prior mask without training, and features enriched at several scales.

Source: PFENet (Tian et al., TPAMI 2020): prior mask, feature enrichment module of inter-source enrichment,
inter-scale interaction and information concentration, and the mean of the scales' losses with weight 1.
Where this departs:

* levels low and mid stand for ResNet's layer2 and layer3, each of length 1; the backbone never moves (in the released
  code the statistics of its batch normalisation do);
* the prior masks the support's high-level features, where the paper masks what the last stage sees: features are
  computed once for all masks of an image (the authors found no difference);
* of K shots, mean prototypes and priors are taken (as published) over those that show the thing;
* bins are shares of the grid (as in the released configuration for COCO), at least one cell.

A 1x1 convolution of query, expanded support vector and prior side by side is the sum of three, so the query's part is
computed once an image and the vector's once an episode; numbers and initial distribution of weights are those of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from fss.backbones import Features
from fss.heads.parts.convolutions import Join, classifier, kind, reduction, resized, two_convolutions
from fss.heads.parts.head import Auxiliary, Head, zero
from fss.heads.parts.options import LearnedOptions
from fss.heads.parts.shots import shot_means, shot_priors
from fss.heads.parts.tokens import middle_features
from fss.keys import FROM_ZERO, SHARE, SHARE_OR_NONE, at_least, key


@dataclass(frozen=True, kw_only=True)
class Options(LearnedOptions):
    """Of the head."""

    dim: int = key(256, at_least(1))
    """Channels everywhere inside."""
    bins: tuple[float, ...] = key((1.0, 0.5, 0.25, 0.125), SHARE)
    """Sides of the scales' grids as shares of the backbone's, from fine to coarse, in (0, 1]."""
    dropout: float = key(0.5, SHARE_OR_NONE)
    """Of whole channels of the reduced features."""
    inner: float = key(1.0, FROM_ZERO)
    """Weight of the mean loss of the scales' own predictions; 0 does without their classifiers."""


class PFENet(Head):
    """See the module's docstring."""

    def __init__(self, channels: Mapping[str, int], options: Options):
        super().__init__()
        self.bins, self.inner_weight = options.bins, options.inner
        dim, dropout = options.dim, options.dropout
        middle = channels["low"] + channels["mid"]
        self.reduce_query = reduction(middle, dim, dropout)
        self.reduce_support = reduction(middle, dim, dropout)
        self.scales = nn.ModuleList(Scale(dim, first=i == 0) for i in range(len(self.bins)))
        self.concentrate = nn.Sequential(nn.Conv2d(len(self.bins) * dim, dim, 1), nn.ReLU())
        self.residual = two_convolutions(dim)
        self.classify = classifier(dim)
        self.inner = nn.ModuleList(classifier(dim) for _ in self.bins if options.inner)

    def embed(self, features: Features) -> Features:
        """`query` and `support`: (B, dim, h, w), the reduced middle features for either role; `high` for the prior."""
        middle = middle_features(features).to(kind(self.reduce_query))
        return {
            "query": self.reduce_query(middle),
            "support": self.reduce_support(middle),
            "high": features["high"],
        }

    def focus(self, query: Features) -> Features:
        """`scale0`, ..: the query's part of what is merged at each scale, (B, dim, side, side), and `high`."""
        x = query["query"]
        return {"high": query["high"]} | {
            f"scale{i}": scale.join.own(_pooled(x, ratio))  # type: ignore[union-attr,operator]
            for i, (scale, ratio) in enumerate(zip(self.scales, self.bins, strict=True))
        }

    def match(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """(B, 2, h, w) logits; see `Head.match`."""
        return self._answer(self._enrich(query, support, masks), query)

    def learn(
        self, query: Features, support: Features, masks: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[Auxiliary, ...]]:
        """The logits, and as `inner0`, .. the prediction of each scale, on its own grid."""
        seen, shots = self.prepare(query, support, masks)
        maps = self._enrich(seen, shots, masks)
        weight = self.inner_weight / len(maps)
        inner = zip(self.inner, maps, strict=False)
        auxiliary = tuple(Auxiliary(f"inner{i}", classify(x).float(), weight) for i, (classify, x) in enumerate(inner))
        return self._answer(maps, seen), auxiliary

    def silence(self) -> None:
        """Start with logits of zero."""
        zero(self.classify[-1])

    def _enrich(self, query: Features, support: Features, masks: torch.Tensor) -> list[torch.Tensor]:
        """Inter-source and inter-scale enrichment: (B, dim, side, side) of each scale, from fine to coarse."""
        vector = shot_means(support["support"], masks[:, :, 1])
        prior = shot_priors(query["high"], support["high"], masks[:, :, 1]).to(vector.dtype)
        maps: list[torch.Tensor] = []
        for i, scale in enumerate(self.scales):
            maps.append(scale(query[f"scale{i}"], vector, prior, maps[-1] if maps else None))
        return maps

    def _answer(self, maps: list[torch.Tensor], query: Features) -> torch.Tensor:
        """Information concentration and the classifier: (B, 2, h, w) float32 logits."""
        x = self.concentrate(torch.cat([resized(m, query["high"].shape) for m in maps], dim=1))
        return self.classify(x + self.residual(x)).float()


class Scale(nn.Module):
    """One scale of the enrichment: merge query, support and prior, add what the finer scale found, convolve."""

    def __init__(self, dim: int, first: bool):
        super().__init__()
        self.join = Join(dim, maps=1)
        self.from_finer = None if first else nn.Sequential(nn.Conv2d(2 * dim, dim, 1), nn.ReLU())
        self.convolve = two_convolutions(dim)

    def forward(
        self, own: torch.Tensor, vector: torch.Tensor, prior: torch.Tensor, finer: torch.Tensor | None
    ) -> torch.Tensor:
        """(B, dim, side, side) from the query's part at this scale, (B, dim), a (B, 1, h, w) prior, the finer scale."""
        x = F.relu(self.join(own, vector, resized(prior, own.shape)))
        if self.from_finer is not None and finer is not None:
            x = x + self.from_finer(torch.cat([x, resized(finer, own.shape)], dim=1))
        return x + self.convolve(x)


def _pooled(x: torch.Tensor, ratio: float) -> torch.Tensor:
    """The averages of (B, C, h, w) in a grid of `ratio` times as many cells a side, at least one."""
    height, width = (max(1, round(ratio * side)) for side in x.shape[-2:])
    return x if (height, width) == x.shape[-2:] else F.adaptive_avg_pool2d(x, (height, width))


HEAD = PFENet
