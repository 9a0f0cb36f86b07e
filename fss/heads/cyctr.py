"""CyCTR: attention from the query to single support cells, of which those that mislead are shut out.

Source: CyCTR (Zhang et al., NeurIPS 2021): self-alignment and cross-alignment blocks with cycle-consistent
attention, around them PFENet's reduction, masked average pooling and prior mask. Departures:

* 300 cells of each side and shot are drawn at random as published; in training from torch's generator, like dropout.
  Outside of training the draw is a fixed one, by the cells' numbers, so that equal inputs give equal masks;
* the support of the auxiliary loss is segmented by prototypes of the query under its own prediction (PANet's
  alignment), for a head never sees the query's truth;
* one level, so no level embedding; dropout is of what an attention adds, not of its weights: kernels stay fused;
* of K shots, prototypes and priors are means over those that show the thing; cells of all of them are attended to
  together (as published).

Letters: B episodes, K shots, h x w grid, N = h w cells, S drawn support cells, H heads, d = dim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from fss.backbones import Features
from fss.heads.parts.attention import Attention, sine_places
from fss.heads.parts.convolutions import Join, classifier, kind, reduction, two_convolutions
from fss.heads.parts.deformable import DeformableAttention
from fss.heads.parts.head import Auxiliary, Head, zero
from fss.heads.parts.options import LearnedOptions, divided, multiple_of
from fss.heads.parts.shots import aligned, for_each_shot, shot_means, shot_priors
from fss.heads.parts.tokens import flat_masks, members, middle_features, to_tokens
from fss.keys import FROM_ZERO, SHARE_OR_NONE, at_least, key, one_of

#: Added to the affinity of a cell that is shut out.
_SHUT = -1e4
#: Odd, about the golden section of 2 ** 24: multiples of it, modulo 2 ** 24, are all different and evenly spread.
_STRIDE = 10368889


@dataclass(frozen=True, kw_only=True)
class Options(LearnedOptions):
    """Of the head."""

    dim: int = key(256, multiple_of(4))
    """Channels everywhere inside; a multiple of 4 and of `heads`."""
    heads: int = key(8, at_least(1))
    """Of every attention."""
    layers: int = key(2, at_least(1))
    """Each of self-alignment and cross-alignment."""
    self_attention: str = key("deformable", one_of("deformable", "dense"))
    """`deformable`, or `dense` for all cells to all cells."""
    points: int = key(9, at_least(1), when={"self_attention": ("deformable",)})
    """That each head of deformable attention looks at."""
    foreground_tokens: int = key(300, at_least(1))
    """Support cells drawn of each shot."""
    background_tokens: int = key(300, at_least(1))
    """The same of the background."""
    cycle: bool = True
    """Whether cells are shut out that are not cycle-consistent; without, attention is plain."""
    release: float = key(0.1, SHARE_OR_NONE, when={"cycle": (True,)})
    """Share of the shut-out cells that training lets in again, at random."""
    reduce_dropout: float = key(0.5, SHARE_OR_NONE)
    """Of whole channels of the reduced features."""
    dropout: float = key(0.1, SHARE_OR_NONE)
    """Of what attentions and networks add, and of cells in deformable attention."""
    align: float = key(1.0, FROM_ZERO)
    """Weight of the auxiliary loss; 0 does without."""

    def problems(self) -> list[str]:
        """What does not go together."""
        return divided(self.dim, self.heads)


class CyCTR(Head):
    """See the module's docstring."""

    transformers: ClassVar[tuple[str, ...]] = ("transformer",)

    def __init__(self, channels: Mapping[str, int], options: Options):
        super().__init__()
        dim = options.dim
        self.numbers = (options.background_tokens, options.foreground_tokens)
        self.align = options.align
        middle = channels["low"] + channels["mid"]
        self.reduce_query = reduction(middle, dim, options.reduce_dropout)
        self.reduce_support = reduction(middle, dim, options.reduce_dropout)
        self.merge_query = Join(dim, maps=1)
        self.merge_support = Join(dim)
        points = options.points if options.self_attention == "deformable" else 0
        release = options.release if options.cycle else None
        self.transformer = nn.ModuleList(
            Layer(dim, options.heads, points, options.dropout, release) for _ in range(options.layers)
        )
        self.concentrate = nn.Sequential(nn.Conv2d(dim, dim, 1), nn.ReLU())
        self.residual = two_convolutions(dim)
        self.classify = classifier(dim)

    def embed(self, features: Features) -> Features:
        """`query` and `support`: (B, dim, h, w), each role's part of what is merged; `high` for the prior."""
        middle = middle_features(features).to(kind(self.reduce_query))
        reduced = self.reduce_support(middle)
        return {
            "query": self.merge_query.own(self.reduce_query(middle)),
            "reduced": reduced,
            "support": self.merge_support.own(reduced),
            "high": features["high"],
        }

    def match(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """(B, 2, h, w) logits; see `Head.match`."""
        return self._answer(self._attend(query, support, masks)[0])

    def learn(
        self, query: Features, support: Features, masks: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[Auxiliary, ...]]:
        """The logits, and as `align` the supports segmented by the prototypes of the query as it is predicted."""
        x_query, x_support = self._attend(*self.prepare(query, support, masks), masks)
        logits = self._answer(x_query)
        if not self.align:
            return logits, ()
        back, target = aligned(x_query, x_support, logits.softmax(dim=1), masks)
        return logits, (Auxiliary("align", back, self.align, target),)

    def silence(self) -> None:
        """Start with logits of zero."""
        zero(self.classify[-1])

    def _attend(self, query: Features, support: Features, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The query after the transformer, (B, d, h, w), and the supports before it, (B, K, d, h, w)."""
        foreground = masks[:, :, 1]
        vector = shot_means(support["reduced"], foreground)
        prior = shot_priors(query["high"], support["high"], foreground).to(vector.dtype)
        x_query = F.relu(self.merge_query(query["query"], vector, prior))
        shots = masks.shape[1]
        x_support = F.relu(self.merge_support(support["support"].flatten(0, 1), for_each_shot(vector, shots)))
        x_support = x_support.unflatten(0, (-1, shots))
        tokens, labels, used = self._drawn(x_support, masks)
        size = (x_query.shape[2], x_query.shape[3])
        x, positions = to_tokens(x_query), sine_places(*size, x_query.shape[1], x_query.device).to(x_query.dtype)
        for layer in self.transformer:
            x = layer(x, positions, size, tokens, labels, used)
        return x.transpose(1, 2).unflatten(2, size), x_support

    def _drawn(self, support: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Support cells (B, S, d), their labels (S,), and which of them there are (B, S)."""
        shares = flat_masks(masks)
        number = shares.shape[2]
        if self.training:
            scores = torch.rand(len(masks), number, device=shares.device)
        else:
            scores = (torch.arange(number, device=shares.device) * _STRIDE % 2**24)[None] / 2**24
        index, labels, used = draw(shares, scores, tuple(n * masks.shape[1] for n in self.numbers))
        tokens = support.flatten(3).transpose(2, 3).flatten(1, 2)
        return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[2])), labels, used

    def _answer(self, x: torch.Tensor) -> torch.Tensor:
        x = self.concentrate(x)
        return self.classify(x + self.residual(x)).float()


class Layer(nn.Module):
    """Self-alignment of the query and cross-alignment to support cells, each followed by a network of two layers.

    Norms come after each addition. `points` of 0 is dense self-attention; `release` of none is without cycles.
    """

    def __init__(self, dim: int, heads: int, points: int, dropout: float, release: float | None):
        super().__init__()
        self.own = DeformableAttention(dim, heads, points, dropout) if points else Attention(dim, heads)
        self.cross = CycleAttention(dim, heads, release)
        self.networks = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, 3 * dim), nn.ReLU(), nn.Linear(3 * dim, dim)) for _ in range(2)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(4))
        self.drop = nn.Dropout(dropout)

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        size: tuple[int, int],
        tokens: torch.Tensor,
        labels: torch.Tensor,
        used: torch.Tensor,
    ) -> torch.Tensor:
        """(B, N, d) queries on a grid of `size` with (N, d) positions, attending to (B, S, d) tokens."""
        placed = x + positions
        own = self.own(x, placed, size) if isinstance(self.own, DeformableAttention) else self.own(placed, placed, x)
        x = self.norms[0](x + self.drop(own))
        x = self.norms[1](x + self.drop(self.networks[0](x)))
        x = self.norms[2](x + self.drop(self.cross(x, tokens, labels, used)))
        return self.norms[3](x + self.drop(self.networks[1](x)))


class CycleAttention(Attention):
    """Multi-head attention from query cells to support cells that lead back to their own side; see `consistent`.

    `release` of none opens all of them.
    """

    def __init__(self, dim: int, heads: int, release: float | None):
        super().__init__(dim, heads)
        self.release = release

    def forward(  # type: ignore[override]
        self, x: torch.Tensor, tokens: torch.Tensor, labels: torch.Tensor, used: torch.Tensor
    ) -> torch.Tensor:
        """(B, N, d) cells attend to (B, S, d) support cells, those `used` (B, S) bool, of the sides `labels` (S,)."""
        q, k, v = self.split(x, tokens, tokens)
        open_ = used[:, None].expand(-1, self.heads, -1)
        if self.release is not None:
            kept = consistent(q, k, labels, used)
            if self.training:
                kept = kept | (torch.rand(kept.shape, device=kept.device) < self.release)
            open_ = open_ & kept
        bias = torch.zeros_like(open_, dtype=q.dtype).masked_fill(~open_, _SHUT)[:, :, None]
        return self.joined(q, k, v, bias)


@torch.no_grad()
def consistent(q: torch.Tensor, k: torch.Tensor, labels: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
    """Which support cells are led back to their own side, (B, H, S) bool.

    From a support cell to the query cell of the largest affinity to it, and from there to the support cell of the
    largest affinity: the cell is consistent if both support cells have one label. There is always one that is.

    Args:
        q: (B, H, N, d) queries.
        k: (B, H, S, d) keys of support cells.
        labels: (S,) of the support cells.
        used: (B, S) bool, the cells that there are; of others the answer means nothing.
    """
    affinity = q.float() @ k.float().transpose(2, 3)
    there = affinity.max(dim=2).indices  # twice as fast as argmax
    back = affinity.masked_fill_(~used[:, None, None], -torch.inf).max(dim=3).indices
    return labels[back.gather(2, there)] == labels


def draw(
    shares: torch.Tensor, scores: torch.Tensor, numbers: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw support cells of both sides: numbers of cells (B, S), labels (S,), and which are really drawn (B, S).

    Which cells belong to a side says `members`.

    Args:
        shares: (B, 2, M) shares of background and foreground.
        scores: (1 or B, M) in [0, 1); cells with larger ones are drawn first.
        numbers: cells to draw of either side; a side that has fewer gives all of its own.
    """
    drawn, labels, used = [], [], []
    for side, number in enumerate(numbers):
        best = scores.masked_fill(~members(shares[:, side]), -1.0).topk(min(number, shares.shape[2]), dim=1)
        drawn.append(best.indices)
        used.append(best.values >= 0)
        labels.append(best.indices.new_full(best.indices.shape[1:], side))
    return torch.cat(drawn, dim=1), torch.cat(labels), torch.cat(used, dim=1)


HEAD = CyCTR
