"""Layers that heads of convolutions share, those of PFENet above all."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Join(nn.Module):
    """A 1x1 convolution of features, a vector that is the same in every cell, and `maps` further channels.

    `own` is the features' part with the bias, which callers may compute beforehand.
    """

    def __init__(self, dim: int, maps: int = 0):
        super().__init__()
        self.own = nn.Conv2d(dim, dim, 1)
        self.vector = nn.Linear(dim, dim, bias=False)
        self.maps = nn.Conv2d(maps, dim, 1, bias=False) if maps else None
        bound = (2 * dim + maps) ** -0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, own: torch.Tensor, vector: torch.Tensor, maps: torch.Tensor | None = None) -> torch.Tensor:
        """(B, dim, h, w) from `own` of the features, (B, dim) and (B, maps, h, w)."""
        joined = own + self.vector(vector)[..., None, None]
        return joined if self.maps is None or maps is None else joined + self.maps(maps)


def reduction(channels: int, dim: int, dropout: float) -> nn.Sequential:
    """1x1 convolution to `dim` channels, ReLU, dropout of channels."""
    return nn.Sequential(nn.Conv2d(channels, dim, 1), nn.ReLU(), nn.Dropout2d(dropout))


def two_convolutions(dim: int) -> nn.Sequential:
    """3x3, ReLU, 3x3, ReLU."""
    return nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1), nn.ReLU(), nn.Conv2d(dim, dim, 3, padding=1), nn.ReLU())


def classifier(dim: int) -> nn.Sequential:
    """3x3, ReLU, dropout of channels, 1x1 to the two sides."""
    return nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1), nn.ReLU(), nn.Dropout2d(0.1), nn.Conv2d(dim, 2, 1))


def kind(module: nn.Module) -> torch.dtype:
    """The type of a module's weights, in which it wants its input."""
    return next(module.parameters()).dtype


def resized(maps: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """(B, C, h, w) maps on the grid of `shape`, bilinear between corners (as published)."""
    size = (shape[-2], shape[-1])
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=True)
