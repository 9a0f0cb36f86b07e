"""Training-free selection of segments, in the spirit of INSID3 (2026, "training-free in-context segmentation").

Alike: the query's tokens are agglomerated to segments without looking at the support; the segments most like the
support's foreground are the seeds; other segments join by their likeness to the support and to the seeds.

Not alike: INSID3 removes a positional subspace of DINOv3's features first, takes the one seed segment among those whose
nearest support tokens lie in the mask, joins by the product of both likenesses over a fixed threshold, and refines the
mask by a CRF. Here seeds are soft, the background has a prototype on both sides so that no threshold is needed,
likenesses add, and scores of segments walk to cells that look alike, as in the smoothed read-out.

Measured on 400 one-shot episodes on 196 photos of VOC 2012 train (MobileNetV2 at 417 pixels, mIoU of cells in %):
prototype 33.3, mean over segments 34.2, times the likeness to one seed segment 25.4; smoothed 35.7, segments and walk
35.7, both with seeds 36.9, seeds and walk without segments 36.8. So beyond the walk the gain is the seeds', not the
segments', and tau from 0.4 to 0.6 makes no difference. On other photos it was not borne out: see benchmarks/RESULTS.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from fss.backbones import Features
from fss.heads.parts.agglomeration import segments
from fss.heads.parts.head import Head
from fss.heads.parts.options import A_LEVEL, HeadOptions
from fss.heads.parts.tokens import flat_masks, flat_tokens, prototype_cosines, unit_grid
from fss.heads.parts.walk import affinity_walk, walked
from fss.keys import FROM_ZERO, SHARE_OR_NONE, key

#: Temperature of the seeds: scores this far below the best one weigh 1/e.
_SHARPNESS = 0.02


@dataclass(frozen=True, kw_only=True)
class Options(HeadOptions):
    """Of the read-out."""

    levels: tuple[str, ...] = key(("mid", "high"), A_LEVEL)
    """What the tokens are made of, side by side."""
    tau: float = key(0.6, SHARE_OR_NONE)
    """Segments are merged while their mean cosine is at least this."""
    steps: int = key(3, FROM_ZERO)
    """Of the affinity walk after the mean over segments."""
    seeds: float = key(0.1, FROM_ZERO)
    """Weight of the likeness to the seeds; 0 leaves them out."""
    scale: float = 20.0
    """A temperature: it does not move the border between the two sides."""


class SegmentSelection(Head):
    """See the module's docstring."""

    title = "segment selection"
    trained = False
    no_graph = "merges segments of each query one by one, with SciPy"

    def __init__(self, channels: Mapping[str, int], options: Options):
        super().__init__()
        self.levels, self.tau, self.steps = options.levels, options.tau, options.steps
        self.seeds, self.scale = options.seeds, options.scale

    def embed(self, features: Features) -> Features:
        """`tokens`: (B, C, h, w) of length 1."""
        return {"tokens": unit_grid(features, self.levels)}

    def focus(self, query: Features) -> Features:
        """`spread`: (B, N, N), the mean over a cell's segment, then the walk, as one matrix; rows sum to 1."""
        tokens = query["tokens"].flatten(2)
        spread = averages(segments(tokens, self.tau))
        return query | {"spread": walked(affinity_walk(tokens), spread, self.steps)}

    def match(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """(B, 2, h, w) logits, the background's zero; see `Head.match`."""
        size, spread = query["tokens"].shape[-2:], query["spread"]
        tokens = query["tokens"].flatten(2)
        contrast = walked(spread, _contrast(tokens, flat_tokens(support["tokens"]), flat_masks(masks)))
        if self.seeds:
            best = torch.stack([-contrast, contrast], dim=1)[..., 0] / _SHARPNESS
            own = _contrast(tokens, tokens, best.softmax(dim=2))
            contrast = contrast + self.seeds * walked(spread, own - own.mean(dim=1, keepdim=True))
        logit = self.scale * contrast[..., 0].float().unflatten(1, size)
        return torch.stack([torch.zeros_like(logit), logit], dim=1)


def _contrast(query: torch.Tensor, support: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Foreground minus background cosine, (B, N, 1), see `prototype_cosines`."""
    cosines = prototype_cosines(query, support, weights)
    return (cosines[:, 1] - cosines[:, 0])[..., None]


def averages(labels: torch.Tensor) -> torch.Tensor:
    """The matrices that replace each value of (B, N) cells by the mean of its label: (B, N, N) float32."""
    same = (labels[:, :, None] == labels[:, None]).float()
    return same / same.sum(dim=2, keepdim=True)


HEAD = SegmentSelection
