"""A learned number by which logits are multiplied."""

from __future__ import annotations

import torch
from torch import nn


class Gain(nn.Module):
    """Multiplies by a learned number that starts at 1; a module of its own, for ZeRO-3 gathers weights by modules."""

    def __init__(self) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.ones(1))

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """`logits` times the number."""
        return self.share.float() * logits
