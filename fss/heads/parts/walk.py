"""Random walks among the cells of a query: maps become even over what looks alike."""

from __future__ import annotations

import torch

from fss.precision import coarse


def affinity_walk(tokens: torch.Tensor) -> torch.Tensor:
    """One step of a random walk among (B, C, N) unit tokens, by max(cosine, 0) ** 4: (B, N, N), rows sum to 1.

    Multiplying a map by it replaces each cell by the mean of those that look alike. It is `coarse`.
    """
    tokens = coarse(tokens)
    affinity = (tokens.transpose(1, 2) @ tokens).clamp_min(0).square().square()  # a general power takes 8 times as long
    return affinity / affinity.sum(dim=2, keepdim=True)


def walked(walk: torch.Tensor, maps: torch.Tensor, steps: int = 1) -> torch.Tensor:
    """(B, N, P) maps after `steps` steps of the (B, N, N) walk, in the type of the maps."""
    kind = maps.dtype
    for _ in range(steps):
        maps = _step(walk, maps.to(walk.dtype))
    return maps.to(kind)


def _step(walk: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """One step. Where the walk is that of one query, expanded to B episodes, one product serves all."""
    if walk.stride(0) == 0 and len(walk) > 1:
        together = walk[0] @ maps.transpose(0, 1).flatten(1)
        return together.unflatten(1, (len(maps), -1)).transpose(0, 1)
    return walk @ maps
