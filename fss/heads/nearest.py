"""The training-free read-out by nearest support pixels: no mean hides a support of several colours and parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from fss.backbones import Features
from fss.heads.parts.head import Head
from fss.heads.parts.options import A_LEVEL, HeadOptions
from fss.heads.parts.tokens import flat_masks, flat_tokens, prototype_cosines, unit_grid
from fss.keys import at_least, key


@dataclass(frozen=True, kw_only=True)
class Options(HeadOptions):
    """Of the read-out."""

    levels: tuple[str, ...] = key(("high",), A_LEVEL)
    """What the tokens are made of, side by side."""
    k: int = key(5, at_least(1))
    """Neighbours on either side, for each support that shows it."""
    scale: float = 20.0
    """A temperature: it does not move the border between the two sides."""


class NearestReadout(Head):
    """Foreground where the `k` nearest foreground cells of the support are nearer than the `k` nearest background ones.

    Logits are the mean cosines to them, times `scale` (a temperature, as in the prototype read-out). A cell belongs to
    the side that holds its majority; with K supports that show a side it is the k K nearest of all of them, so that the
    neighbourhood's share of the support stays. A side with fewer cells counts those it has, one with none its weighted
    mean.
    """

    title = "nearest support pixels"
    trained = False

    def __init__(self, channels: Mapping[str, int], options: Options):
        super().__init__()
        self.levels, self.k, self.scale = options.levels, options.k, options.scale

    def embed(self, features: Features) -> Features:
        """`tokens`: (B, C, h, w) of length 1."""
        return {"tokens": unit_grid(features, self.levels)}

    def match(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """(B, 2, h, w) logits in [-scale, scale]; see `Head.match`."""
        q, s, weights = query["tokens"].flatten(2), flat_tokens(support["tokens"]), flat_masks(masks)
        cosines = (q.transpose(1, 2) @ s).float()
        background, foreground = weights.unbind(1)
        members = (background > 0.5, foreground >= 0.5)
        means = prototype_cosines(q, s, weights).unbind(1)
        shown = [m.unflatten(1, (masks.shape[1], -1)).any(dim=2).sum(dim=1) for m in members]
        most = self.k * masks.shape[1]
        near = [nearest_mean(cosines, m, self.k * n, o, most) for m, n, o in zip(members, shown, means, strict=True)]
        return self.scale * torch.stack(near, dim=1).unflatten(2, query["tokens"].shape[-2:])


def nearest_mean(
    cosines: torch.Tensor, members: torch.Tensor, number: torch.Tensor, otherwise: torch.Tensor, most: int
) -> torch.Tensor:
    """Mean of the `number` (B,) largest of (B, N, M) cosines over the members (B, M): (B, N) float32.

    Fewer members count as many as they are; `otherwise` (B, N) where there is none. No number is above `most`.
    """
    most = min(most, cosines.shape[2])
    top = cosines.masked_fill(~members[:, None], -2.0).topk(most, dim=2).values
    real = (top > -1.5) & (torch.arange(most, device=top.device) < number[:, None, None])
    mean = (top * real).sum(dim=2) / real.sum(dim=2).clamp_min(1)
    return torch.where(members.any(dim=1)[:, None], mean, otherwise.float())


HEAD = NearestReadout
