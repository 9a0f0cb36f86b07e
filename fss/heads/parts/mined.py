"""What MiningFSS keeps of the training images: latent classes, a global background, and an index of regions.

Source: "Mining Latent Classes for Few-shot Segmentation" (Yang et al., ICCV 2021), cited as MiningFSS.

Letters: N images, D channels of the features, C of what is learned, L = 1 + K latent classes (background first, then K
sub-clusters), M supports, T training images, h x w grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fss.clustering import kmeans
from fss.heads.parts.tokens import unit

#: Tokens (N, D, h, w) of some images and (N, 2, h, w) shares of background and foreground of their cells.
Shown = tuple[torch.Tensor, torch.Tensor]
_NOTHING = 1e-12


def prototypes(tokens: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Masked average pooling (Eq. 2): (N, S, D) float32 of (N, D, h, w) under (N, S, h, w) shares; 0 where none is."""
    weights = shares.float().flatten(2)
    weights = weights / weights.sum(dim=2, keepdim=True).clamp_min(_NOTHING)
    return (weights @ tokens.float().flatten(2).transpose(1, 2)).float()


def annotate(tokens: torch.Tensor, representatives: torch.Tensor) -> torch.Tensor:
    """Dense annotation (Eq. 3): (N, L, h, w) float32, 1 at the one of (L, D) of the largest cosine to a cell."""
    cosines = torch.einsum("ndhw,ld->nlhw", unit(tokens.float()), F.normalize(representatives.float(), dim=1))
    return F.one_hot(cosines.argmax(dim=1), len(representatives)).movedim(-1, 1).float()


class TrainingMemory(nn.Module):
    """Buffers of what was seen in training; they stay float32 when weights are rounded to bfloat16.

    A moving average of momentum .999 would stand still in bfloat16.

    Args:
        channels: D.
        dim: C.
        clusters: K.
        images: T, the size of the index; 0 = none.
        momentum: m of Eq. 6.
    """

    def __init__(self, channels: int, dim: int, clusters: int, images: int, momentum: float):
        super().__init__()
        self.momentum = momentum
        self.representatives: torch.Tensor
        self.images: torch.Tensor
        self.regions: torch.Tensor
        self.present: torch.Tensor
        self.background: torch.Tensor
        self.weight: torch.Tensor
        self.noted: torch.Tensor
        self.studied: torch.Tensor
        self.register_buffer("representatives", torch.zeros(1 + clusters, channels))
        self.register_buffer("images", torch.zeros(images, channels))
        self.register_buffer("regions", torch.zeros(images, 1 + clusters, channels))
        self.register_buffer("present", torch.zeros(images, 1 + clusters, dtype=torch.bool))
        self.register_buffer("background", torch.zeros(dim))
        self.register_buffer("weight", torch.zeros(1))
        self.register_buffer("noted", torch.zeros(1 + dim), persistent=False)
        self.register_buffer("studied", torch.tensor(False))

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> TrainingMemory:
        exact = dict(self.named_buffers())
        super()._apply(fn, recurse)
        for name, value in exact.items():
            setattr(self, name, value.to(getattr(self, name).device))
        return self

    def study(self, images: Iterable[Shown], seed: int) -> None:
        """Make the representatives of masks (section 3.3.1), then the index of regions by them (section 3.4).

        Args:
            images: gone through twice; those past T are not in the index.
            seed: of k-means.

        Raises:
            ValueError: for fewer images with a foreground than K.
        """
        self.representatives.copy_(self._representatives(images, seed))
        at = 0
        for shown, _ in images:
            tokens = shown[: len(self.images) - at]
            classes = annotate(tokens, self.representatives)
            rows = slice(at, at + len(tokens))
            self.images[rows] = tokens.float().mean(dim=(2, 3))
            self.regions[rows] = prototypes(tokens, classes)
            self.present[rows] = classes.amax(dim=(2, 3)) > 0
            at += len(tokens)
        self.studied.fill_(True)

    def _representatives(self, images: Iterable[Shown], seed: int) -> torch.Tensor:
        """(L, D): the mean of the background prototypes, and the centres of the foreground's."""
        sides: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
        for tokens, shares in images:
            pooled, there = prototypes(tokens, shares), shares.amax(dim=(2, 3)) > 0
            for side, means in enumerate(sides):
                means.append(pooled[there[:, side], side].cpu())
        background, foreground = (torch.cat(means) for means in sides)
        clusters = len(self.representatives) - 1
        if len(foreground) < clusters or not len(background):
            raise ValueError(
                f"model mining: expected training images with {clusters} foregrounds or more and a background, got "
                f"{len(foreground)} and {len(background)}; lower model.options.clusters, or give more images"
            )
        centres, _ = kmeans.fit(foreground.numpy(), clusters, seed=seed)
        return torch.cat([background.mean(dim=0, keepdim=True), torch.from_numpy(centres)])

    def note(self, current: torch.Tensor, there: torch.Tensor) -> None:
        """Remember (B, C) background prototypes of a training step, of those (B,) bool that have one."""
        there = there.float()[:, None]
        self.noted += torch.cat([there.sum(dim=0), (current.detach().float() * there).sum(dim=0)])

    def settle(self, noted: torch.Tensor) -> None:
        """Move the global background prototype (Eq. 6) by what all workers noted in a step, (1 + C,) counts and sums.

        `weight` is that of all prototypes so far, so that the average is not pulled to its start, which is zero.
        """
        share = (1 - self.momentum) * (noted[0] > 0).float()
        self.background.lerp_(noted[1:] / noted[0].clamp_min(1), share)
        self.weight.lerp_(torch.ones_like(self.weight), share)
        self.noted.zero_()

    def fused(self, current: torch.Tensor, share: float) -> torch.Tensor:
        """Eq. 7: (B, C) prototypes of the background, `share` of them the global one's; before any, (B, C) `current`'s.

        The global one is a memory: no gradient flows into it.
        """
        known = share * (self.weight > 0).float()
        return known * (self.background / self.weight.clamp_min(_NOTHING)) + (1 - known) * current

    def rectified(
        self,
        foreground: torch.Tensor,
        images: torch.Tensor,
        project: Callable[[torch.Tensor], torch.Tensor],
        number: int,
        beta: float,
    ) -> torch.Tensor:
        """Eqs. 8 and 9: (M, C) foreground prototypes moved towards the regions most like them in similar images.

        Negative cosines count as none; a prototype without any region like it stays.

        Args:
            foreground: (M, C).
            images: (M, D) embeddings of the supports.
            project: from (n, D) means of features to (n, C); linear, so that means commute with it.
            number: of similar images.
            beta: share of the regions.
        """
        likeness = F.normalize(images.float(), dim=1) @ F.normalize(self.images, dim=1).T
        likeness = likeness.masked_fill(~self.present.any(dim=1), -2)
        near = likeness.topk(min(number, len(self.images)), dim=1).indices
        regions = project(self.regions[near].flatten(0, 2)).float().unflatten(0, (*near.shape, -1))
        cosines = F.cosine_similarity(regions, foreground[:, None, None], dim=3)
        best, which = torch.where(self.present[near], cosines, 0.0).max(dim=2)
        chosen = regions.gather(2, which[:, :, None, None].expand(-1, -1, 1, regions.shape[3]))[:, :, 0]
        share = best.clamp_min(0)
        total = share.sum(dim=1, keepdim=True)
        mean = ((share / total.clamp_min(_NOTHING))[:, :, None] * chosen).sum(dim=1)
        return torch.where(total > 0, (1 - beta) * foreground + beta * mean, foreground)
