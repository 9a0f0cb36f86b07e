"""One step of meta-training as a module: a head, its loss, and what is worth watching."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from fss.backbones import Features
from fss.losses import Loss


class MetaModule(nn.Module):
    """Wraps a head so that `forward` gives the loss of a batch of episodes and figures of its health."""

    def __init__(self, head: nn.Module, loss: Loss):
        super().__init__()
        self.head = head
        self.loss = loss

    def forward(self, query: Features, support: Features, masks: torch.Tensor) -> dict[str, torch.Tensor]:
        """Scalars `loss`, `iou` and `area_ratio` of B episodes.

        Args:
            query: levels (B, C, h, w).
            support: levels (B, K, C, h, w).
            masks: (B, 1 + K, 2, M, M) shares of background and foreground in [0, 1], the query's first.
        """
        logits = self.head(query, support, masks[:, 1:])
        truth = masks[:, 0]
        logits = F.interpolate(logits.float(), size=truth.shape[-2:], mode="bilinear", align_corners=False)
        return {"loss": self.loss(logits, truth), **_figures(logits.detach(), truth)}


def _figures(logits: torch.Tensor, truth: torch.Tensor) -> dict[str, torch.Tensor]:
    """Mean IoU of the episodes and predicted over true area, on the cells of the loss."""
    predicted = (logits[:, 1] > logits[:, 0]).float() * truth.sum(dim=1)
    real = truth[:, 1]
    both = torch.minimum(predicted, real).flatten(1).sum(1)
    union = torch.maximum(predicted, real).flatten(1).sum(1)
    area = predicted.sum() / real.sum().clamp_min(1e-6)
    return {"iou": (both / union.clamp_min(1e-6)).mean(), "area_ratio": area}
