"""The training-free read-out: cosine to the supports' mean foreground and mean background. The floor of a backbone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from fss.backbones import Features


class PrototypeReadout(nn.Module):
    """Masked average pooling and cosine similarity (as in PANet, Wang et al. 2019), with no parameter to learn.

    Logits are the cosines to background and foreground prototype, times `scale` (a temperature: it does not move the
    border between the two).
    """

    def __init__(self, channels: dict[str, int], level: str = "high", scale: float = 20.0):
        super().__init__()
        if level not in channels:
            raise ValueError(f"expected a level of {', '.join(channels)}, got {level!r}")
        self.level = level
        self.scale = scale

    def forward(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """(B, 2, h, w) logits in [-scale, scale]; see `fss.models` for the arguments."""
        return self.scale * prototype_cosines(query[self.level], support[self.level], masks)


def prototype_cosines(query: torch.Tensor, support: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Cosines of (B, C, h, w) query features to background and foreground prototypes: (B, 2, h, w), float32.

    Prototypes are averages of (B, K, C, h, w) support features over all shots, weighted by (B, K, 2, M, M) `masks`.
    """
    prototypes = masked_average(support, masks)
    unit = F.normalize(query.float(), dim=1)
    return torch.einsum("bchw,bpc->bphw", unit, F.normalize(prototypes, dim=2))


def masked_average(features: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Averages of (B, K, C, h, w) features under (B, K, P, M, M) weights, over cells and shots: (B, P, C) float32."""
    weights = cell_shares(masks, features.shape[-2:])
    totals = torch.einsum("bkchw,bkphw->bpc", features.float(), weights)
    return totals / weights.sum(dim=(1, 3, 4)).clamp_min(1e-6)[..., None]


def cell_shares(masks: torch.Tensor, size: torch.Size | tuple[int, int]) -> torch.Tensor:
    """(B, K, P, M, M) shares to the feature grid: (B, K, P, *size), by averaging."""
    flat = F.adaptive_avg_pool2d(masks.flatten(0, 2)[:, None], tuple(size))
    return flat[:, 0].unflatten(0, masks.shape[:3])
