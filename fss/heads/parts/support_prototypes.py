"""What of the supports a query attends to: prototypes of both sides, or every support token.

Source: UMTFSS (AAAI 2024), "Prototype-Aware Cross-Attention", Eq. 5, and "Feature-to-Prototype Assignment". A prototype
is the mean of its tokens (Eq. 5 as printed is their sum). Hash planes and first centroids are fixed by the head's seed,
so that equal inputs give equal masks; the released code draws them anew in every forward pass, also in evaluation.

Letters: B episodes, M = K h w support tokens of K shots, P prototypes, d = dim.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from fss.heads.parts import hamming
from fss.heads.parts.tokens import members

_BITS = 32
_ROUNDS = 10


class SupportPrototypes(nn.Module):
    """Background and foreground, each clustered in Hamming space; means of the clusters, over all shots together.

    Args:
        dim: of the tokens.
        numbers: the most prototypes of background and of foreground.
        marked: add a learned vector for each side.
        unit: scale prototypes to length 1 (before the marker).
        raw: tokens of a side that has no more of them than prototypes are prototypes themselves.
    """

    def __init__(self, dim: int, numbers: tuple[int, int], marked: bool = True, unit: bool = False, raw: bool = False):
        super().__init__()
        self.planes: torch.Tensor
        self.numbers, self.unit, self.raw = numbers, unit, raw
        self.marker = nn.Parameter(torch.zeros(2, dim)) if marked else None
        self.register_buffer("planes", torch.randn(_BITS, dim))

    def forward(self, points: torch.Tensor, shares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, P, d) prototypes, background first, and (B, P) bool, which of them exist.

        Which tokens belong to a side says `members`.

        Args:
            points: (B, M, d) support tokens.
            shares: (B, M, 2) shares of background and foreground in [0, 1].
        """
        bits = hamming.codes(points.detach(), self.planes)
        order = torch.sin(torch.arange(points.shape[1], device=points.device) * 12.9898) * 43758.5453
        start = order - order.floor()
        means_of_sides, used = [], []
        for side, number in enumerate(self.numbers):
            own = members(shares[..., side])
            labels, exists = self._labels(bits, own, start, number)
            sums, counts = hamming.totals(points, labels, own, exists.shape[1])
            means = sums / counts.clamp_min(1)[..., None]
            means = F.normalize(means, dim=2) if self.unit else means
            means_of_sides.append(means if self.marker is None else means + self.marker[side])
            used.append(exists & (counts > 0))  # clusters may lose all their tokens
        return torch.cat(means_of_sides, dim=1), torch.cat(used, dim=1)

    def dead_share(self, shares: torch.Tensor, used: torch.Tensor) -> float:
        """Share in [0, 1] of the prototypes that there could be (no more than tokens) and that no token chose.

        `shares` as of `forward`, `used` as it returned.
        """
        possible = sum(members(shares[..., side]).sum(dim=1).clamp_max(n) for side, n in enumerate(self.numbers))
        assert isinstance(possible, torch.Tensor)
        return float((1 - used.sum(dim=1) / possible.clamp_min(1)).clamp_min(0).mean())

    def _labels(
        self, bits: torch.Tensor, own: torch.Tensor, start: torch.Tensor, number: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        labels, exists = hamming.cluster(bits, own, start, number, _ROUNDS)
        if not self.raw:
            return labels, exists
        counts, slots = own.sum(dim=1, keepdim=True), exists.shape[1]
        rank = (own.cumsum(dim=1) - 1).clamp(0, max(slots - 1, 0))
        alone = torch.arange(slots, device=own.device) < counts
        return torch.where(counts <= slots, rank, labels), torch.where(counts <= slots, alone, exists)


class SupportTokens(nn.Module):
    """Every support token that is not void: the vanilla cross-attention of UMTFSS's Table 3, in our reading.

    Without a marker (`marked`) a query token cannot tell foreground from background tokens but by their features.
    """

    def __init__(self, dim: int, marked: bool = True):
        super().__init__()
        self.marker = nn.Parameter(torch.zeros(2, dim)) if marked else None

    def forward(self, points: torch.Tensor, shares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, M, d) tokens and (B, M) bool, which of them show anything; arguments as of `SupportPrototypes`."""
        used = (shares > 0).any(dim=2)
        return points if self.marker is None else points + shares.to(points.dtype) @ self.marker, used
