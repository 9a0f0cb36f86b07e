"""What the published training-free anchors share: tokens without their position, and votes of nearest cells.

INSID3 (Cuttano et al., CVPR 2026) found that transformers with rotary embeddings leave a token's place in its features:
tokens at one place are alike whatever they show. The directions in which the tokens of an empty image differ hold that
place. They are projected out of tokens that are compared across images. What is left has as many coordinates as there
are other directions: cosines are those of the projected tokens, at half the work.

Letters: B episodes, K shots, C channels, D of them without position, N cells of the query, M of a support.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from fss.backbones import Features
from fss.backbones.debias import directions
from fss.heads.parts.head import Head
from fss.heads.parts.options import A_LEVEL, HeadOptions
from fss.heads.parts.tokens import members, unit, unit_grid
from fss.keys import SHARE_OR_NONE, key

#: So many directions are known of an image that was never seen.
_UNKNOWN = -1


@dataclass(frozen=True, kw_only=True)
class AnchorOptions(HeadOptions):
    """Of the anchors."""

    levels: tuple[str, ...] = key(("high",), A_LEVEL)
    """What the tokens are made of, side by side."""
    tau: float = key(0.6, SHARE_OR_NONE)
    """Segments are merged while their mean cosine is at least this."""
    position: float = key(0.49, SHARE_OR_NONE)
    """Share of the channels' dimensions that is projected out as position, the papers' 500 of 1,024; 0 leaves all."""
    scale: float = 20.0
    """A temperature: it does not move the border between the two sides."""


class Anchor(Head):
    """Base of the anchors: what they embed, and how they come to know what position looks like."""

    trained = False
    no_graph = "merges segments of each query one by one, with SciPy"

    def __init__(self, channels: Mapping[str, int], options: AnchorOptions):
        super().__init__()
        self.axes: torch.Tensor
        self.taken: torch.Tensor
        self.levels, self.tau, self.scale = options.levels, options.tau, options.scale
        self.share = options.position
        dims = sum(channels[level] for level in self.levels)
        self.register_buffer("axes", torch.eye(dims))  # the first `taken` columns are the directions of position
        self.register_buffer("taken", torch.tensor(_UNKNOWN if round(self.share * dims) else 0))

    def see_blank(self, features: Features) -> None:
        """Learn the directions of position from the features of one empty image; see `SeesBlank`."""
        axes, number = directions(unit_grid(features, self.levels)[0].flatten(1), self.share)
        self.axes.copy_(axes)
        self.taken.fill_(number)

    def embed(self, features: Features) -> Features:
        """`tokens`: (B, C, h, w) of length 1; `placeless`: (B, D, h, w), without position, where the head removes any.

        Raises:
            RuntimeError: before `see_blank`.
        """
        taken = int(self.taken)
        if taken == _UNKNOWN:
            raise RuntimeError("expected a head that knows what position is: call see_blank, or set position=0")
        tokens = unit_grid(features, self.levels)
        if not taken:
            return {"tokens": tokens}
        left = self.axes[:, taken:].to(tokens.dtype).T @ tokens.flatten(2)
        return {"tokens": tokens, "placeless": unit(left).unflatten(2, tokens.shape[-2:])}


def placeless(embedded: Features) -> torch.Tensor:
    """The tokens that images are compared by: those without position, where there are any."""
    return embedded.get("placeless", embedded["tokens"])


def shown_cells(masks: torch.Tensor) -> torch.Tensor:
    """(B, K, M) bool: the cells of each support that show the thing, see `members`; none in a support without it."""
    foreground = masks[:, :, 1].float().flatten(2)
    return members(foreground.flatten(0, 1)).view_as(foreground)


def speaking(support: torch.Tensor, shown: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The (C, M) tokens and the (M,) bool cells of the thing of those of (K, C, M), (K, M) supports that show it."""
    return [(tokens, cells) for tokens, cells in zip(support, shown, strict=True) if cells.any()]


def votes(query: torch.Tensor, supports: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """(N,) share in [0, 1] of the supports whose cell nearest to a cell of (C, N) `query` shows the thing.

    Those without the thing are not among the supports (`speaking`); where there are none at all, nobody votes.
    """
    total = torch.zeros(query.shape[1], device=query.device)
    for tokens, cells in supports:
        total += cells[(query.T @ tokens).argmax(dim=1)]
    return total / max(len(supports), 1)
