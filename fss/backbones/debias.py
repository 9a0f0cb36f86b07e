"""Position taken out of features, as INSID3 (arXiv 2603.28480, CVPR 2026) does for DINOv3.

Rotary tables, position tables and zero padding leave in features where a cell lies, so that cells of unlike things at
one place resemble each other. A black image shows that alone: the directions in which its cells differ most are the
position's. They are found once for a backbone and a size, and taken out of every image: x - U U'x. INSID3 takes 500 of
the 1024 directions of a ViT-L, and the features' mean is left in.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

from fss.backbones.network import Features
from fss.imaging.images import normalise

#: Cells, of length 1, that differ by less than this along a direction (standard deviation) do not differ.
_LEAST = 1e-5


class Debias(nn.Module):
    """Takes `share` of its directions out of each level: `bases` are (C, k) float32, orthonormal columns."""

    def __init__(self, bases: Mapping[str, torch.Tensor], share: float) -> None:
        super().__init__()
        self.share = share
        for level, basis in bases.items():
            self.register_buffer(level, basis)

    def forward(self, features: Features) -> Features:
        """Levels (B, C, h, w), float32 whatever they came in."""
        return {level: self._without(level, values) for level, values in features.items()}

    def _without(self, level: str, values: torch.Tensor) -> torch.Tensor:
        basis = self.get_buffer(level)
        with torch.autocast(values.device.type, enabled=False):
            cells = values.float().flatten(2)
            return (cells - basis @ (basis.T @ cells)).unflatten(2, values.shape[-2:])


def of_black(net: nn.Module, size: int, share: float) -> Debias:
    """What takes this `share`, in (0, 1), of each level's directions out of the features of a network on the CPU.

    Where a black image of side `size` has fewer directions in which its cells differ, fewer are taken.
    """
    with torch.no_grad():
        features = net(normalise(torch.zeros(1, 3, size, size)))
    found = {level: directions(values[0].flatten(1), share) for level, values in features.items()}
    return Debias({level: axes[:, :number].contiguous().clone() for level, (axes, number) in found.items()}, share)


def directions(cells: torch.Tensor, share: float) -> tuple[torch.Tensor, int]:
    """All directions, (C, C) float32, orthonormal columns, those in which (C, N) cells of length 1 differ most first.

    And how many are their share, fewer where the cells do not differ in as many.
    """
    cells = F.normalize(cells.double(), dim=0)
    cells = cells - cells.mean(dim=1, keepdim=True)
    variances, axes = torch.linalg.eigh(cells @ cells.T / cells.shape[1])  # ascending
    most = min(round(share * len(cells)), int((variances > _LEAST**2).sum()))
    return axes.flip(1).float(), most
