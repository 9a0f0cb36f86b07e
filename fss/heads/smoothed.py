"""The prototype read-out of two levels together, smoothed by a walk over the query's own affinities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from fss.backbones import Features
from fss.heads.parts.head import Head
from fss.heads.parts.options import A_LEVEL, HeadOptions
from fss.heads.parts.threshold import moved
from fss.heads.parts.tokens import flat_masks, flat_tokens, prototypes, unit_grid
from fss.heads.parts.walk import affinity_walk, walked
from fss.keys import FROM_ZERO, SHARE_OR_NONE, key


@dataclass(frozen=True, kw_only=True)
class Options(HeadOptions):
    """Of the read-out."""

    levels: tuple[str, ...] = key(("mid", "high"), A_LEVEL)
    """What the tokens are made of, side by side."""
    steps: int = key(3, FROM_ZERO)
    """Of the walk."""
    scale: float = 20.0
    """A temperature: it does not move the border between the two sides."""
    otsu: float = key(0.0, SHARE_OR_NONE)
    """Share of the way from zero to where the query's own logits part (`fss.heads.parts.threshold`), over the number of
    supports."""


class SmoothedReadout(Head):
    """Cosines to both prototypes, smoothed by `steps` of the walk, times `scale`.

    Nothing learned: residual heads start here, so what training adds is the difference to this.
    """

    title = "smoothed read-out"
    trained = False
    is_readout = True

    def __init__(self, channels: Mapping[str, int], options: Options):
        super().__init__()
        self.levels, self.steps = options.levels, options.steps
        self.scale, self.otsu = options.scale, options.otsu

    def embed(self, features: Features) -> Features:
        """`tokens`: (B, C, h, w) of length 1."""
        return {"tokens": unit_grid(features, self.levels)}

    def focus(self, query: Features) -> Features:
        """`walk`: (B, N, N), one step of the walk."""
        return query | {"walk": affinity_walk(query["tokens"].flatten(2))}

    def show(self, support: Features, masks: torch.Tensor) -> Features:
        """`prototypes`: (B, 2, C) of length 1, the background's first."""
        return {"prototypes": prototypes(flat_tokens(support["tokens"]), flat_masks(masks))}

    def match(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """(B, 2, h, w) logits; see `Head.match`."""
        tokens = query["tokens"]
        cosines = support["prototypes"] @ tokens.flatten(2)
        maps = (self.scale * cosines).transpose(1, 2)
        logits = walked(query["walk"], maps, self.steps).transpose(1, 2).unflatten(2, tokens.shape[-2:])
        return moved(logits, self.otsu, masks.shape[1])


HEAD = SmoothedReadout
