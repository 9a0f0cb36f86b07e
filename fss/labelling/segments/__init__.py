"""Segments of an image by name: what is pooled and clustered as one thing, or votes for one cluster.

| name | segments | connected | granularities |
|---|---|---|---|
| `none` | every cell for itself | | one |
| `superpixel` | Felzenszwalb's on the picture, at pixel resolution (`fss.labelling.segments.superpixel`) | yes | one |
| `agglomerate` | neighbouring tokens merged by Ward's rule | yes | several, nested |
| `ncut` | a Ward tree in the embedding of the normalised cut (`fss.clustering.normalised_cut`) | no | several, nested |

Letters: B images, h x w feature grid, D dimensions, G granularities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from fss.clustering.normalised_cut import cut_embedding, ncut, normalised_cut, second_vector
from fss.labelling.segments.agglomerate import agglomerate
from fss.labelling.segments.superpixel import superpixels

__all__ = [
    "GRADED",
    "NAMES",
    "agglomerate",
    "cut_embedding",
    "ncut",
    "normalised_cut",
    "second_vector",
    "segment",
    "superpixels",
]

_STEPS: dict[str, Callable[[torch.Tensor, Sequence[int]], torch.Tensor]] = {"agglomerate": agglomerate, "ncut": ncut}

#: The steps that have granularities, and all of them.
GRADED = tuple(_STEPS)
NAMES = ("none", "superpixel", *GRADED)


def segment(fields: torch.Tensor, name: str, granularities: Sequence[int]) -> torch.Tensor:
    """Segments of the cells of a batch of images at each granularity.

    Args:
        fields: (B, h, w, D) float32 embeddings of length 1, on any device.
        name: one of `GRADED`.
        granularities: segments an image; one with fewer distinct parts gets fewer.

    Returns:
        (B, G, h, w) int64 on the device of `fields`: numbers 0..S-1 in each map. On a CPU an image's segments do not
        depend on the batch that it is in.

    Raises:
        ValueError: for another name, granularities below 1, or fields of another shape.
    """
    if name not in _STEPS:
        raise ValueError(f"expected one of {', '.join(GRADED)}, which cut a feature grid, got {name!r}")
    if fields.ndim != 4 or not all(fields.shape[1:]):
        raise ValueError(f"expected embeddings of shape (B, h, w, D), got {tuple(fields.shape)}")
    if not granularities or min(granularities) < 1:
        raise ValueError(f"expected granularities of at least 1, got {list(granularities)}; set source.granularities")
    if not len(fields):
        return torch.zeros(0, len(granularities), *fields.shape[1:3], dtype=torch.int64, device=fields.device)
    if fields.device.type == "cpu":  # matrix products of batches differ in their last bits
        return torch.cat([_STEPS[name](field, granularities) for field in fields.split(1)])
    return _STEPS[name](fields, granularities)
