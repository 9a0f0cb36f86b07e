"""Our own small head: correlation maps, smoothed by the query's own affinities, read by convolutions.

With `residual: smoothed` (`fss.heads.parts.residual`), its preset, it starts as the training-free read-out and
learns what to add to it. Compared with the published heads it has fewer parameters and no attention over the
support; K shots are simply one larger support, so that five shots are better than one without training for five.

Letters: B episodes, C channels, N query tokens, M = K h w support tokens, d = width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from fss.backbones import Features
from fss.heads.parts.correlations import LEVELS, compared, correlation_maps
from fss.heads.parts.head import Head, zero
from fss.heads.parts.options import LearnedOptions, multiple_of
from fss.heads.parts.tokens import flat_masks, flat_tokens, unit_grid
from fss.heads.parts.walk import affinity_walk, walked
from fss.keys import key

_GROUPS = 4


@dataclass(frozen=True, kw_only=True)
class Options(LearnedOptions):
    """Of the head."""

    dim: int = key(48, multiple_of(_GROUPS))
    """Width of its layers, a multiple of 4."""


class CorrelationHead(Head):
    """See the module's docstring."""

    lends = "smoothed"

    def __init__(self, channels: Mapping[str, int], options: Options):
        super().__init__()
        dim = options.dim
        self.project = nn.Conv1d(channels["mid"] + channels["high"], dim, 1)
        self.merge = nn.Conv1d(8 + 2 * dim, dim, 1)
        self.local = nn.Sequential(nn.GroupNorm(_GROUPS, dim), nn.GELU(), nn.Conv2d(dim, dim, 3, padding=1))
        self.spread = nn.Sequential(nn.GroupNorm(_GROUPS, 2 * dim), nn.GELU(), nn.Conv2d(2 * dim, dim, 3, padding=1))
        self.out = nn.Sequential(nn.GroupNorm(_GROUPS, dim), nn.GELU(), nn.Dropout2d(0.1), nn.Conv2d(dim, 1, 1))

    def silence(self) -> None:
        """Start the last layer at zero; the first step moves it, and with it the others."""
        zero(self.out[-1])

    def embed(self, features: Features) -> Features:
        """`tokens`: (B, C, h, w) of length 1."""
        return {"tokens": unit_grid(features, LEVELS)}

    def focus(self, query: Features) -> Features:
        """`walk`: (B, N, N), one step of the query's own affinity walk; `own`: (B, d, N), the tokens projected."""
        tokens = query["tokens"].flatten(2)
        return query | {"walk": affinity_walk(tokens), "own": self._projected(tokens)}

    def show(self, support: Features, masks: torch.Tensor) -> Features:
        """What `compared` makes of them; `thing`: (B, d, 1), the mean token of the foreground projected."""
        tokens, weights = flat_tokens(support["tokens"]), flat_masks(masks)
        share = weights[:, 1, :, None]
        mean = tokens @ share / share.sum(dim=1, keepdim=True).clamp_min(1e-3)
        return compared(tokens, weights) | {"thing": self._projected(mean)}

    def match(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """(B, 2, h, w) logits, the background's zero; see `Head.match`."""
        size, walk, own = query["tokens"].shape[-2:], query["walk"], query["own"]
        maps = correlation_maps(query["tokens"].flatten(2), support, walk).to(own.dtype)
        x = self.merge(torch.cat([maps, own, own * support["thing"]], dim=1)).unflatten(2, size)
        x = x + self.local(x)
        far = walked(walk.to(x.dtype), x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, size)
        x = x + self.spread(torch.cat([x, far], dim=1))
        logit = self.out(x)[:, 0].float()
        return torch.stack([torch.zeros_like(logit), logit], dim=1)

    def _projected(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, d, N) of (B, C, N) tokens."""
        return self.project((4 * tokens).to(self.project.weight.dtype))


HEAD = CorrelationHead
