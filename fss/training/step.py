"""One step of meta-training as a module: a head, its loss, and what is worth watching."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from fss.backbones import Features
from fss.grid import enlarge
from fss.heads.parts.head import Head
from fss.heads.parts.losses import Loss


class MetaModule(nn.Module):
    """Wraps a head so that `forward` gives the loss of a batch of episodes and figures of its health."""

    #: Beginnings of the names of buffers that training never changes: checkpoints leave them out.
    unchanging: ClassVar[tuple[str, ...]] = ()

    def __init__(self, head: Head, loss: Loss, corners: bool):
        super().__init__()
        self.head = head
        self.loss = loss
        self.corners = corners

    def forward(
        self, query: Features, support: Features, masks: torch.Tensor, truth: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Scalars of B episodes: `loss`, `loss_NAME` of each auxiliary prediction, and figures without gradient.

        `iou`, mean of the episodes; `area_ratio`, predicted over true foreground; `predicted_share` of what is not
        void; `empty_share` of the episodes show nothing in the query or in all supports.

        Args:
            query: levels (B, C, h, w).
            support: levels (B, K, C, h, w).
            masks: (B, K, 2, h, w) shares of background and foreground of the supports' cells, in [0, 1].
            truth: (B, 2, M, M), the same of the query, in the cells of the loss.
        """
        coarse, auxiliary = self.head.learn(*self.features(query, support), masks)
        logits = self._enlarged(coarse, truth)
        total = self.loss(logits, truth)
        parts: dict[str, torch.Tensor] = {}
        for part in auxiliary:
            target = truth if part.target is None else part.target
            parts[f"loss_{part.name}"] = (part.loss or self.loss)(self._enlarged(part.logits, target), target)
            total = total + part.weight * parts[f"loss_{part.name}"]
        return {"loss": total, **parts, **_figures(logits.detach(), truth), "empty_share": _empty(masks, truth)}

    def features(self, query: Features, support: Features) -> tuple[Features, Features]:
        """What the head takes, of what `forward` was given: here the features themselves."""
        return query, support

    def tuned(self) -> dict[str, torch.Tensor]:
        """Parameters of the backbone that are trained, by their names in a `fss.backbones.Backbone`: none here."""
        return {}

    def _enlarged(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return enlarge(logits, (target.shape[-2], target.shape[-1]), self.corners)


def _figures(logits: torch.Tensor, truth: torch.Tensor) -> dict[str, torch.Tensor]:
    """Mean IoU of the episodes, predicted over true area, and its share of all, on the cells of the loss."""
    predicted = (logits[:, 1] > logits[:, 0]).float() * truth.sum(dim=1)
    real = truth[:, 1]
    both = torch.minimum(predicted, real).flatten(1).sum(1)
    union = torch.maximum(predicted, real).flatten(1).sum(1)
    area = predicted.sum() / real.sum().clamp_min(1e-6)
    share = predicted.sum() / truth.sum().clamp_min(1e-6)
    return {"iou": (both / union.clamp_min(1e-6)).mean(), "area_ratio": area, "predicted_share": share}


def _empty(masks: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    nothing = (masks[:, :, 1].flatten(1).sum(1) == 0) | (truth[:, 1].flatten(1).sum(1) == 0)
    return nothing.float().mean()
