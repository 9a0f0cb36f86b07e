"""The training-free floor of a backbone: cosine to the supports' mean foreground and background."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from fss.backbones import Features
from fss.heads.parts.head import Head
from fss.heads.parts.options import A_LEVEL, HeadOptions
from fss.heads.parts.tokens import flat_masks, flat_tokens, prototypes, unit_grid
from fss.keys import key


@dataclass(frozen=True, kw_only=True)
class Options(HeadOptions):
    """Of the read-out."""

    levels: tuple[str, ...] = key(("high",), A_LEVEL)
    """What the tokens are made of, side by side."""
    scale: float = 20.0
    """A temperature: it does not move the border between the two sides."""


class PrototypeReadout(Head):
    """Masked average pooling and cosine similarity (PANet, Wang et al. 2019), nothing learned.

    Logits are the cosines to background and foreground prototype, times `scale`.
    """

    title = "prototype read-out"
    trained = False
    is_readout = True

    def __init__(self, channels: Mapping[str, int], options: Options):
        super().__init__()
        self.levels, self.scale = options.levels, options.scale

    def embed(self, features: Features) -> Features:
        """`tokens`: (B, C, h, w) of length 1."""
        return {"tokens": unit_grid(features, self.levels)}

    def show(self, support: Features, masks: torch.Tensor) -> Features:
        """`prototypes`: (B, 2, C) of length 1, the background's first."""
        return {"prototypes": prototypes(flat_tokens(support["tokens"]), flat_masks(masks))}

    def match(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """(B, 2, h, w) logits in [-scale, scale]; see `Head.match`."""
        tokens = query["tokens"]
        cosines = support["prototypes"] @ tokens.flatten(2)
        return self.scale * cosines.unflatten(2, tokens.shape[-2:])


HEAD = PrototypeReadout
