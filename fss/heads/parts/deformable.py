"""Deformable self-attention of one level in plain torch, no kernel of its own.

Source: Deformable DETR (Zhu et al. 2021), section 4.1, Eq. 2: every cell attends to a few points around it; where they
lie and how much they count are linear in the cell's features. Departure: attention weights are not dropped.

Letters: B maps, H heads, P points, h x w grid, N = h w cells, d = dim.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn


class DeformableAttention(nn.Module):
    """Multi-head deformable attention of a map to itself.

    It starts as the plain mean over P points on each head's own ray (section A.4 of the paper).

    Args:
        dim: channels, a multiple of `heads`.
        heads: H.
        points: P, of each head.
        dropout: probability that a cell is left out of what is sampled, as if it were zero.
    """

    def __init__(self, dim: int, heads: int = 8, points: int = 9, dropout: float = 0.0):
        super().__init__()
        self.heads, self.points = heads, points
        self.offsets = nn.Linear(dim, heads * points * 2)
        self.weights = nn.Linear(dim, heads * points)
        self.values = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        self.drop = nn.Dropout1d(dropout)
        for layer in (self.offsets, self.weights):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.offsets.bias.copy_(rays(heads, points).flatten())

    def forward(self, x: torch.Tensor, places: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """(B, N, d) of (B, N, d) cells of a grid of `size`.

        Args:
            x: what is gathered.
            places: (B, N, d) what decides where and how much, `x` with positions.
            size: (h, w).
        """
        offsets = self.offsets(places).float().unflatten(2, (self.heads, self.points, 2))
        weights = self.weights(places).float().unflatten(2, (self.heads, self.points)).softmax(dim=3)
        values = self.drop(self.values(x)).float().transpose(1, 2)
        values = values.unflatten(2, size).unflatten(1, (self.heads, -1)).flatten(0, 1)
        points = centres(size, x.device)[:, None] + offsets.transpose(1, 2).flatten(0, 1)
        weighted = sample(values, points) * weights.transpose(1, 2).flatten(0, 1)[:, None]
        gathered = weighted.sum(dim=3).unflatten(0, (-1, self.heads)).flatten(1, 2).transpose(1, 2)
        return self.out(gathered.to(x.dtype))


def rays(heads: int, points: int) -> torch.Tensor:
    """(H, P, 2) first offsets (x, y) in cells: point p of head i lies p + 1 cells along direction 2 pi i / H.

    A length is the larger of both coordinates, so that eight heads look to the eight neighbours.
    """
    angles = torch.arange(heads) * (2 * math.pi / heads)
    directions = torch.stack([angles.cos(), angles.sin()], dim=1)
    directions = directions / directions.abs().amax(dim=1, keepdim=True)
    return directions[:, None] * torch.arange(1, points + 1)[None, :, None]


def centres(size: tuple[int, int], device: torch.device | None = None) -> torch.Tensor:
    """(N, 2) float32 coordinates (x, y) of the cells of a grid (h, w), row by row; the first cell's are (0, 0)."""
    rows, columns = torch.meshgrid(*(torch.arange(n, device=device) for n in size), indexing="ij")
    return torch.stack([columns, rows], dim=2).flatten(0, 1).float()


def sample(values: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w) maps at (B, N, P, 2) coordinates (x, y) in cells, bilinear, zero outside: (B, C, N, P)."""
    sides = torch.tensor([values.shape[3], values.shape[2]], device=points.device)
    return F.grid_sample(values, (2 * points + 1) / sides - 1, "bilinear", "zeros", align_corners=False)
