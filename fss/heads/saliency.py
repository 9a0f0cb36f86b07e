"""The baseline that ignores its supports: the salient object of the query is the answer, whatever was asked for.

(MaskSplit, Amac et al. 2022, tables 3 and 4.) It shows how much of a score is foreground against background, and how
much is left for knowing which thing is meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from fss.backbones import Features
from fss.heads.parts.head import Head
from fss.heads.parts.options import A_LEVEL, HeadOptions
from fss.heads.parts.salient import LEVELS, salient, two_sided
from fss.keys import key


@dataclass(frozen=True, kw_only=True)
class Options(HeadOptions):
    """Of the baseline."""

    levels: tuple[str, ...] = key(LEVELS, A_LEVEL)
    """What is cut in two, side by side."""


class Saliency(Head):
    """See the module's docstring and `salient`; the difference of the two logits is the margin."""

    title = "saliency mask"
    trained = False
    no_graph = "cuts each query in two by an eigenvector, with NumPy"

    def __init__(self, channels: Mapping[str, int], options: Options):
        super().__init__()
        self.levels = options.levels

    def embed(self, features: Features) -> Features:
        """`margin`: (B, 1, h, w), see `salient`; nothing else of the image is needed."""
        return {"margin": salient(features, self.levels)}

    def match(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """(B, 2, h, w) logits, the background's zero; see `Head.match`."""
        return two_sided(query["margin"])


HEAD = Saliency
