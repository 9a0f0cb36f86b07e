"""Cells of features as tokens: levels brought together, shots laid side by side, cosines to what they mean."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from fss.backbones import Features


def unit_grid(features: Features, levels: Sequence[str]) -> torch.Tensor:
    """Levels (B, C, h, w) of one grid, each of length 1, side by side and of length 1: (B, C, h, w) float32."""
    joint = torch.cat([unit(features[level].float()) for level in levels], dim=1)
    return unit(joint) if len(levels) > 1 else joint


def unit(features: torch.Tensor) -> torch.Tensor:
    """(B, C, ...) at length 1 along C; zeros stay zeros. Thrice as fast on a CPU as `F.normalize` across rows."""
    squares = features.square().sum(dim=1, keepdim=True)
    return features / squares.clamp_min(1e-24).sqrt()  # in this order: the root has no gradient at zero


def middle_features(features: Features, scaled: bool = True) -> torch.Tensor:
    """Levels low and mid of (B, C, h, w), the finer brought to the coarser's grid by averaging, concatenated.

    With `scaled` each level is scaled to length 1 first.
    """
    low, mid = features["low"], features["mid"]
    if low.shape[-2:] != mid.shape[-2:]:
        low = F.adaptive_avg_pool2d(low, (mid.shape[-2], mid.shape[-1]))
    return torch.cat([unit(level) if scaled else level for level in (low, mid)], dim=1)


def flat_tokens(support: torch.Tensor) -> torch.Tensor:
    """(B, K, C, h, w) tokens of K shots as one set: (B, C, K h w)."""
    return support.transpose(1, 2).flatten(2)


def flat_masks(masks: torch.Tensor) -> torch.Tensor:
    """(B, K, 2, h, w) shares to (B, 2, K h w), in the order of `flat_tokens`."""
    return masks.float().transpose(1, 2).flatten(2)


def to_tokens(grid: torch.Tensor) -> torch.Tensor:
    """(B, d, h, w) to (B, h w, d)."""
    return grid.flatten(2).transpose(1, 2)


def members(share: torch.Tensor) -> torch.Tensor:
    """(B, M) bool: the cells that belong to a side with (B, M) shares: those that have at least half of it.

    The cells with the largest share of a side always belong to it, so that small things have one too.
    """
    return (share > 0) & ((share >= 0.5) | (share >= share.amax(dim=1, keepdim=True)))


def prototypes(tokens: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """(B, S, C) means, of length 1, of (B, C, M) tokens under (B, S, M) weights; zero where there is no weight."""
    return F.normalize(torch.einsum("bcm,bpm->bpc", tokens, weights), dim=2)


def prototype_cosines(query: torch.Tensor, support: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Cosines of (B, C, N) query tokens to the background's and foreground's mean support token: (B, 2, N).

    Means are over (B, C, M) support tokens weighted by (B, 2, M) shares, over all shots together.
    """
    return torch.einsum("bcn,bpc->bpn", query, prototypes(support, weights))
