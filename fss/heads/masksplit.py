"""MaskSplit's model: levels of the query beside the supports' prototypes, decoded to a grid finer than the backbone's.

Source: MaskSplit (Amac et al., WACV 2023), section 3.3 and its released code: projections of three levels, a 3x3
convolution over query and broadcast prototypes, and a decoder. Where this departs:

* levels low, mid and high stand for block2 to block4; low is averaged to the grid of the others where it is finer (with
  backbone.stride=8 it is not, and the grid is the paper's);
* the support's mask is its cells' shares, where the released code takes the nearest pixel;
* the backbone never moves (in the released code the statistics of its batch normalisation do);
* several shots, of which the paper has none: prototypes are averaged, or the logits of each shot alone, as the authors
  suggest to users;
* the decoder's grid is divided as the backbone's geometry has it (`fss.grid`), so that nothing moves by half a cell.

The 3x3 convolution of query and prototypes side by side is the sum of two, so the query's is computed once an image; a
prototype is the same in every cell, so that its part differs only where the kernel leaves the image.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from fss.backbones import Features
from fss.heads.parts.convolutions import kind
from fss.heads.parts.head import Head, zero
from fss.heads.parts.options import LEVELS, LearnedOptions, multiple_of
from fss.heads.parts.shots import for_each_shot, shot_means
from fss.keys import key, one_of

#: Groups of all normalisations.
_GROUPS = 4
#: How several shots are taken together.
SHOTS = ("prototypes", "logits")


@dataclass(frozen=True, kw_only=True)
class Options(LearnedOptions):
    """Of the head."""

    dim: int = key(128, multiple_of(8 * _GROUPS))
    """Channels of projections and mixture, a multiple of 32; the decoder ends with an eighth."""
    shots: str = key("prototypes", one_of(*SHOTS))
    """`prototypes` = their mean, `logits` = the mean of each shot's own, over shots that show the thing."""


class MaskSplit(Head):
    """See the module's docstring.

    Logits are on a grid of 8 times as many cells a side, less 7 where the outermost centres lie on the border.
    """

    def __init__(self, channels: Mapping[str, int], options: Options):
        super().__init__()
        self.shots, dim = options.shots, options.dim
        self.project = nn.ModuleDict({level: normed_convolution(channels[level], dim) for level in LEVELS})
        self.mix = MixingModule(len(LEVELS) * dim, dim)
        widths = (dim, dim, dim // 2, dim // 4)
        self.decode = nn.ModuleList(
            nn.Sequential(normed_convolution(before, width), normed_convolution(width, width))
            for before, width in itertools.pairwise(widths)
        )
        self.classify = nn.Sequential(normed_convolution(dim // 4, dim // 8), nn.Conv2d(dim // 8, 2, 1, bias=False))

    def embed(self, features: Features) -> Features:
        """`levels`: (B, 3 dim, h, w), the projections side by side, of either role."""
        height, width = features["mid"].shape[-2:]
        low = features["low"]
        if low.shape[-2:] != (height, width):
            low = F.adaptive_avg_pool2d(low, (height, width))
        levels = {**features, "low": low}
        projected = [project(levels[name].to(kind(project))) for name, project in self.project.items()]
        return {"levels": torch.cat(projected, dim=1)}

    def focus(self, query: Features) -> Features:
        """`own`: (B, dim, h, w), the query's part of the mixture."""
        return {"own": self.mix.own(query["levels"])}

    def match(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """(B, 2, H, W) logits on the finer grid; see `Head.match`."""
        own, levels, share = query["own"], support["levels"], masks[:, :, 1]
        if self.shots == "prototypes":
            return self._answer(own, shot_means(levels, share))
        number = share.shape[1]
        alone = shot_means(levels.flatten(0, 1)[:, None], share.flatten(0, 1)[:, None])
        logits = self._answer(for_each_shot(own, number), alone).unflatten(0, (-1, number))
        speaks = (share.flatten(2).sum(dim=2) > 0).float()
        speaks = torch.where(speaks.any(dim=1, keepdim=True), speaks, 1.0)  # of none that shows it, all are as good
        return (logits * (speaks / speaks.sum(dim=1, keepdim=True))[:, :, None, None, None]).sum(dim=1)

    def silence(self) -> None:
        """Start with logits of zero."""
        zero(self.classify[-1])

    def _answer(self, own: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
        """The mixture and the decoder: (B, 2, H, W) float32 logits."""
        x = self.mix(own, prototypes)
        for convolve in self.decode:
            x = doubled(convolve(x), self.corners)
        return self.classify(x).float()


class MixingModule(nn.Module):
    """A 3x3 convolution, group norm and ReLU of each level beside a vector that is the same in every cell.

    `own` is the convolution's part of the levels with the bias, which callers compute beforehand.
    """

    def __init__(self, channels: int, dim: int):
        super().__init__()
        self.own = nn.Conv2d(channels, dim, 3, padding=1)
        self.vector = nn.Linear(channels, 9 * dim, bias=False)
        self.norm = nn.GroupNorm(_GROUPS, dim)
        bound = (2 * channels * 9) ** -0.5  # of the one convolution that the two are parts of
        for part in (self.own, self.vector):
            for parameter in part.parameters():
                nn.init.uniform_(parameter, -bound, bound)

    def forward(self, own: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        """(B, dim, h, w) from `own` of the query's levels and (B, channels) prototypes."""
        taps = self.vector(vector).unflatten(1, (-1, 9))  # (B, dim, 9): what each of the kernel's places adds
        height, width = own.shape[-2:]
        inside = F.unfold(own.new_ones(1, 1, height, width), 3, padding=1)[0]  # (9, h w): which places are in the image
        return F.relu(self.norm(own + (taps @ inside).unflatten(2, (height, width))))


def normed_convolution(before: int, width: int) -> nn.Sequential:
    """3x3 convolution, group norm, ReLU."""
    return nn.Sequential(nn.Conv2d(before, width, 3, padding=1), nn.GroupNorm(_GROUPS, width), nn.ReLU())


def doubled(x: torch.Tensor, corners: bool) -> torch.Tensor:
    """(B, C, h, w) at twice as many cells, bilinear: with `corners`, whose outermost centres stay, 2 h - 1 a side."""
    size = [2 * side - corners for side in x.shape[-2:]]
    return F.interpolate(x, size=size, mode="bilinear", align_corners=corners)


HEAD = MaskSplit
