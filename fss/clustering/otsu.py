"""Where values divide in two: Otsu's threshold."""

from __future__ import annotations

import torch


def otsu(values: torch.Tensor) -> torch.Tensor:
    """The threshold of each row of (B, N) values with the largest variance between the two classes, midway: (B,).

    (Otsu 1979.) The values above it are the upper class. Rows whose values are all the same have that value.
    """
    ordered = values.sort(dim=1).values
    below = torch.arange(1, values.shape[1], device=values.device)
    above = values.shape[1] - below
    sums = ordered.cumsum(dim=1)
    difference = (sums[:, -1:] - sums[:, :-1]) / above - sums[:, :-1] / below
    best = (below * above * difference**2).argmax(dim=1, keepdim=True)
    return (ordered.gather(1, best) + ordered.gather(1, best + 1))[:, 0] / 2
