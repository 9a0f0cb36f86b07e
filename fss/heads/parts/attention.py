"""The transformer block of UMTFSS, Eqs. 1 and 2: multi-head attention and an MLP, each with residual and norm after.

Letters: B sets, N tokens that ask, M tokens that are asked, d = dim.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    """Multi-head attention, Eq. 1. Only the output has a bias: that of the keys would never get a gradient."""

    def __init__(self, dim: int, heads: int, dropout: float = 0.0):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.out = nn.Linear(dim, dim)

    def forward(
        self, asking: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, used: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(B, N, d) of (B, N, d) queries and (B, M, d) keys and values, of which only those `used` (B, M) bool count.

        Where none is in use, all count.
        """
        mask = None if used is None else (used | ~used.any(dim=1, keepdim=True))[:, None, None]
        return self.joined(*self.split(asking, keys, values), mask)

    def split(
        self, asking: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries (B, H, N, d / H), keys and values (B, H, M, d / H) of the heads, from (B, N or M, d) tokens."""
        layers = ((self.query, asking), (self.key, keys), (self.value, values))
        q, k, v = (layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer, x in layers)
        return q, k, v

    def joined(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """(B, N, d) from what `split` returned, with a bool or additive `mask` that expands to (B, H, N, M)."""
        dropped = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropped)
        return self.out(attended.transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """Attention from X to Y and an MLP of `expansion` times the width, Eq. 2."""

    def __init__(self, dim: int, heads: int, expansion: int = 2, dropout: float = 0.0):
        super().__init__()
        self.attention = Attention(dim, heads, dropout)
        self.mlp = nn.Sequential(
            nn.Linear(dim, expansion * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(expansion * dim, dim)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.drop = nn.Dropout(dropout)

    def forward(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        used: torch.Tensor | None = None,
        places: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(B, N, d) tokens X attend to (B, M, d) tokens Y, of which only those `used` (B, M) bool count.

        `places`, (N, d), are added to what asks and, as N = M then, to the keys, but not to the values.
        """
        asking, keys = (x, y) if places is None else (x + places, y + places)
        x = self.norms[0](x + self.drop(self.attention(asking, keys, y, used)))
        return self.norms[1](x + self.drop(self.mlp(x)))


def sine_places(height: int, width: int, dim: int, device: torch.device) -> torch.Tensor:
    """Where the cells of a grid are, as sines and cosines of rows and columns: (h w, d) float32 in [-1, 1].

    (DETR, Carion et al. 2020: rows and columns from above 0 to 2 pi, wavelengths up to 10 000 times as long.)

    Raises:
        ValueError: if `dim` is no multiple of 4.
    """
    if dim % 4:
        raise ValueError(f"expected a multiple of 4 for sine positions, got {dim}: set model.options.dim=64")
    pace = 10000 ** (-torch.arange(dim // 4, device=device) * 4 / dim)
    parts = []
    for length in (height, width):
        angle = torch.arange(1, length + 1, device=device)[:, None] * (2 * torch.pi / length) * pace
        parts.append(torch.cat([angle.sin(), angle.cos()], dim=1))
    rows, columns = parts
    grid = torch.cat([rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)], dim=2)
    return grid.flatten(0, 1)
