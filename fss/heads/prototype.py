"""Training-free read-outs: cosine to the supports' mean foreground and background, as it is and smoothed by a walk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F

from fss.backbones import Features
from fss.heads.parts.head import Head


class PrototypeReadout(Head):
    """The floor of a backbone: masked average pooling and cosine similarity (PANet, Wang et al. 2019), nothing learned.

    Logits are the cosines to background and foreground prototype, times `scale` (a temperature: it does not move the
    border between the two).
    """

    def __init__(self, channels: dict[str, int], levels: Sequence[str] = ("high",), scale: float = 20.0):
        super().__init__()
        self.levels = known_levels(levels, channels)
        self.scale = scale

    def embed(self, features: Features) -> Features:
        """`tokens`: (B, C, h, w) of length 1."""
        return {"tokens": unit_grid(features, self.levels)}

    def match(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """(B, 2, h, w) logits in [-scale, scale]; see `Head.match`."""
        tokens = query["tokens"]
        cosines = prototype_cosines(tokens.flatten(2), flat_tokens(support["tokens"]), flat_masks(masks))
        return self.scale * cosines.unflatten(2, tokens.shape[-2:])


class SmoothedReadout(Head):
    """The prototype read-out of levels mid and high together, smoothed by `steps` of the query's own affinity walk.

    Nothing learned either: residual heads start here, so what training adds is the difference to this.
    """

    def __init__(
        self, channels: dict[str, int], levels: Sequence[str] = ("mid", "high"), steps: int = 3, scale: float = 20.0
    ):
        super().__init__()
        self.plain = PrototypeReadout(channels, levels, scale)
        self.steps = steps

    def embed(self, features: Features) -> Features:
        """`tokens`: (B, C, h, w) of length 1."""
        return self.plain.embed(features)

    def focus(self, query: Features) -> Features:
        """`walk`: (B, N, N), one step of the walk."""
        return query | {"walk": affinity_walk(query["tokens"].flatten(2))}

    def match(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """(B, 2, h, w) logits; see `Head.match`."""
        logits = self.plain.match(query, support, masks)
        maps = logits.flatten(2).transpose(1, 2)
        for _ in range(self.steps):
            maps = walked(query["walk"], maps)
        return maps.transpose(1, 2).reshape(logits.shape)


def known_levels(levels: Sequence[str], channels: Mapping[str, int]) -> tuple[str, ...]:
    """`levels` as a tuple; ValueError for none, or for one that the backbone does not have."""
    wrong = [level for level in levels if level not in channels]
    if wrong or not levels:
        raise ValueError(f"expected levels of {', '.join(channels)}, got {repr(wrong[0]) if wrong else 'none'}")
    return tuple(levels)


def unit_grid(features: Features, levels: Sequence[str]) -> torch.Tensor:
    """Levels (B, C, h, w) of one grid, each of length 1, side by side and of length 1: (B, C, h, w) float32."""
    joint = torch.cat([unit(features[level].float()) for level in levels], dim=1)
    return unit(joint) if len(levels) > 1 else joint


def unit(features: torch.Tensor) -> torch.Tensor:
    """(B, C, ...) at length 1 along C; zeros stay zeros. Thrice as fast on a CPU as `F.normalize` across rows."""
    squares = features.square().sum(dim=1, keepdim=True)
    return features / squares.clamp_min(1e-24).sqrt()  # in this order: the root has no gradient at zero


def flat_tokens(support: torch.Tensor) -> torch.Tensor:
    """(B, K, C, h, w) tokens of K shots as one set: (B, C, K h w)."""
    return support.transpose(1, 2).flatten(2)


def flat_masks(masks: torch.Tensor) -> torch.Tensor:
    """(B, K, 2, h, w) shares to (B, 2, K h w), in the order of `flat_tokens`."""
    return masks.float().transpose(1, 2).flatten(2)


def members(share: torch.Tensor) -> torch.Tensor:
    """(B, M) bool: the cells that belong to a side with (B, M) shares: those that have at least half of it.

    The cells with the largest share of a side always belong to it, so that small things have one too.
    """
    return (share > 0) & ((share >= 0.5) | (share >= share.amax(dim=1, keepdim=True)))


def middle_features(features: Features, scaled: bool = True) -> torch.Tensor:
    """Levels low and mid of (B, C, h, w), the finer brought to the coarser's grid by averaging, concatenated.

    With `scaled` each level is scaled to length 1 first.
    """
    low, mid = features["low"], features["mid"]
    if low.shape[-2:] != mid.shape[-2:]:
        low = F.adaptive_avg_pool2d(low, (mid.shape[-2], mid.shape[-1]))
    return torch.cat([unit(level) if scaled else level for level in (low, mid)], dim=1)


def to_tokens(grid: torch.Tensor) -> torch.Tensor:
    """(B, d, h, w) to (B, h w, d)."""
    return grid.flatten(2).transpose(1, 2)


def prototype_cosines(query: torch.Tensor, support: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Cosines of (B, C, N) query tokens to the background's and foreground's mean support token: (B, 2, N).

    Means are over (B, C, M) support tokens weighted by (B, 2, M) shares, over all shots together.
    """
    prototypes = F.normalize(torch.einsum("bcm,bpm->bpc", support, weights), dim=2)
    return torch.einsum("bcn,bpc->bpn", query, prototypes)


def affinity_walk(tokens: torch.Tensor) -> torch.Tensor:
    """One step of a random walk among (B, C, N) unit tokens, by max(cosine, 0) ** 4: (B, N, N), rows sum to 1.

    Multiplying a map by it replaces each cell by the mean of those that look alike.
    """
    affinity = (tokens.transpose(1, 2) @ tokens).clamp_min(0).square().square()  # a general power takes 8 times as long
    return affinity / affinity.sum(dim=2, keepdim=True)


def walked(walk: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """(B, N, P) maps after one step of the (B, N, N) walk.

    Where the walk is that of one query, expanded to B episodes, one product serves all: the walk is read once.
    """
    if len(walk) > 1 and walk.stride(0) == 0:
        together = walk[0] @ maps.transpose(0, 1).flatten(1)
        return together.unflatten(1, (len(maps), -1)).transpose(0, 1)
    return walk @ maps
