"""FoRIS: a response of the foreground, mended by votes of nearest cells and by two ways of cutting up the query.

Source: Hu et al., "FoRIS: Progressive Foreground Refinement for Training-Free In-Context Segmentation" (arXiv
2609.03384), and its code, whose weights the paper's equations leave out. Nothing is trained. Three stages:

1. Position goes, unless the thing looks like the query's mean token. The response is the likeness to the looks of the
   foreground, less that to the background most like it (Eqs. 2 to 7).
2. It rises where nearest cells vote for the thing, and in segments that are like the best of them. These are cut by
   tokens, colours and places together (Eqs. 8 to 13).
3. It falls where these cues disagree, and follows the side that segments by tokens alone are on (Eqs. 14 to 17).

The gate of Eq. 5 is not here, for it has no effect: it scales each token by a positive number, and what takes the
scaled tokens looks at their cosines. What departs is told in `docs/methods/foris.md`.

Letters: B episodes, K shots, V kinds of tokens, C channels, N cells of the query, M of a support, S segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from fss.backbones import Features
from fss.heads.parts.agglomeration import averaging, segments
from fss.heads.parts.anchor import Anchor, AnchorOptions, shown_cells, speaking, votes
from fss.heads.parts.salient import two_sided
from fss.heads.parts.shots import shot_means
from fss.heads.parts.tokens import unit

#: What tokens may be compared: as they are, and without position.
_KINDS = ("tokens", "placeless")
#: Position stays where the cosine of the foreground to the query's mean token is at least this.
_ALIGNED = 0.8
#: Temperature of the largest likeness to several looks.
_BETA = 0.07
#: Share of the background's cells that are its prototype: those most like the foreground.
_HARD = 0.2
#: Weights in the response of the background, of the votes and of the segments.
_BACKGROUND, _VOTES, _SEGMENTS = 0.55, 0.2, 0.25
#: Weights of colours and places beside tokens, which have 1.
_COLOUR, _PLACE = 0.35, 0.2
#: Of the penalty: weights of disagreement and of being on both sides, the power of uncertainty, and its limit.
_DISAGREEMENT, _BOTH, _POWER, _MOST = 0.08, 0.05, 1.5, 0.22
#: Of the segments by tokens alone: weights of being foreground and of being on both sides, and how far they may fall.
_PURE, _MIXED, _LEAST = 0.2, 0.18, -0.12


@dataclass(frozen=True, kw_only=True)
class Options(AnchorOptions):
    """Of the anchor."""


class Foris(Anchor):
    """See the module's docstring."""

    title = "FoRIS"
    sees_colour = True

    def embed(self, features: Features) -> Features:
        """As of `Anchor`, and `colour`, (B, 3, h, w) in [0, 1], where the features bring it."""
        return super().embed(features) | {name: features[name] for name in features if name == "colour"}

    def focus(self, query: Features) -> Features:
        """`tokens` and `placeless` of `embed`, each a kind of tokens.

        Of each kind (B, V, N) segments: `labels` by tokens alone, `cued` by tokens, colours and places.
        """
        kinds, cues = _kinds(query), _cues(query)
        beside = [unit(torch.cat([tokens.flatten(2), cues], dim=1)) for tokens in kinds]
        return {
            **{name: query[name] for name in _KINDS if name in query},
            "labels": torch.stack([segments(tokens.flatten(2), self.tau) for tokens in kinds], dim=1),
            "cued": torch.stack([segments(tokens, self.tau) for tokens in beside], dim=1),
        }

    def match(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """(B, 2, h, w) logits, the background's zero; see `Head.match`."""
        shown, known = shown_cells(masks), masks.sum(dim=2).flatten(2) > 0
        each = [{name: values[b] for name, values in query.items()} for b in range(len(masks))]
        kinds = [[tokens[b].flatten(2) for tokens in _kinds(support)] for b in range(len(masks))]
        margins = [self._margin(*one) for one in zip(each, kinds, shown, known, strict=True)]
        return two_sided(self.scale * torch.stack(margins)[:, None])

    def _margin(
        self, query: Features, kinds: Sequence[torch.Tensor], shown: torch.Tensor, known: torch.Tensor
    ) -> torch.Tensor:
        """(h, w) float32 in [-0.5, 0.5], positive inside, of one episode: V of (K, C, M) tokens, (K, M) bool cells."""
        own, grid = _kinds(query), query["tokens"].shape[-2:]
        if not shown.any():
            return torch.full(grid, -0.5, device=shown.device)
        kind = _kind(own[0].flatten(1), _foreground(kinds[0], shown), len(kinds))
        tokens, support = own[kind].flatten(1), kinds[kind]
        foreground = _foreground(support, shown)
        cells = support.transpose(1, 2)
        likeness = self._likeness(tokens, cells[shown])
        other = _background(cells[known & ~shown], foreground) @ tokens
        vote = votes(tokens, speaking(support, shown))
        prior = _prior(tokens, query["cued"][kind], foreground, (vote >= 0.5) | _every_second(grid, vote.device))
        response = likeness - _BACKGROUND * other + _VOTES * (vote - 0.5) + _SEGMENTS * (prior - 0.5)
        ours, theirs = _stretched(likeness), _stretched(other)
        response = response - _penalty(ours, theirs, vote, prior) + _purity(query["labels"][kind], ours, theirs)
        return _stretched(response.float()).unflatten(0, grid) - 0.5

    def _likeness(self, tokens: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
        """(N,) soft maximum of the cosines to the mean tokens of the segments of (n, C) cells of the foreground."""
        labels = segments(foreground.T[None], self.tau)
        looks = F.normalize(averaging(labels)[0] @ foreground, dim=1)
        return _BETA * torch.logsumexp(looks @ tokens / _BETA, dim=0)


def _kinds(embedded: Features) -> list[torch.Tensor]:
    """Tokens as they are and, where any goes, without position."""
    return [embedded[name] for name in _KINDS if name in embedded]


def _kind(tokens: torch.Tensor, foreground: torch.Tensor, kinds: int) -> int:
    """Which kind of tokens is compared: those as they are where the foreground is like the mean of (C, N) tokens."""
    aligned = foreground @ F.normalize(tokens.mean(dim=1), dim=0) >= _ALIGNED
    return 0 if aligned else kinds - 1


def _cues(query: Features) -> torch.Tensor:
    """(B, 5 or 2, N) float32: colours, where they are there, and places, each of length 1 times its weight."""
    batch, _, h, w = query["tokens"].shape
    axes = [torch.linspace(-1, 1, side, device=query["tokens"].device) for side in (h, w)]
    place = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1).expand(batch, -1, -1)
    colour = [_COLOUR * unit(query["colour"].flatten(2))] if "colour" in query else []
    return torch.cat([*colour, _PLACE * unit(place)], dim=1)


def _foreground(support: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    """(C,) unit mean over supports of the mean of the cells shown, of (K, C, M) tokens."""
    return F.normalize(shot_means(support[None, ..., None], shown[None, ..., None].float())[0], dim=0)


def _background(cells: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
    """(C,) unit mean of those of (n, C) cells that are most like the foreground, across it; zero without cells."""
    if not len(cells):
        return torch.zeros_like(foreground)
    hardest = (cells @ foreground).topk(max(1, int(_HARD * len(cells)))).indices
    mean = F.normalize(cells[hardest].mean(dim=0), dim=0)
    return F.normalize(mean - (mean @ foreground) * foreground, dim=0, eps=1e-8)


def _every_second(grid: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """(N,) bool: the cells of even rows and columns, so that no segment but the smallest is without candidates."""
    cells = torch.zeros(grid, dtype=torch.bool, device=device)
    cells[::2, ::2] = True
    return cells.flatten()


def _prior(
    tokens: torch.Tensor, labels: torch.Tensor, foreground: torch.Tensor, candidates: torch.Tensor
) -> torch.Tensor:
    """(N,) in [0, 1]: how far the cell's segment is like the foreground, like the best segment, and of candidates."""
    mean = averaging(labels[None])[0]
    if len(mean) == 1:
        return candidates.float()
    cross, share = (mean @ torch.stack([foreground @ tokens, candidates.float()], dim=1)).unbind(1)
    affinity = cross * share
    seed = affinity.masked_fill(share == 0, -2.0).argmax()
    looks = F.normalize(mean @ tokens.T, dim=1)
    score = affinity * (looks @ looks[seed]).clamp_min(0)
    score[seed] = score.max().clamp_min(1e-6)
    return _stretched(score)[labels]


def _penalty(ours: torch.Tensor, theirs: torch.Tensor, vote: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
    """(N,) from 0: how far the cues disagree or a cell is on both sides, most where the foreground is unsure."""
    disagreement = (ours - vote).abs() + (ours - prior).abs()
    uncertain = (1 - 2 * (ours - 0.5).abs()).clamp(0, 1) ** _POWER
    return (uncertain * (_DISAGREEMENT * disagreement + _BOTH * torch.minimum(ours, theirs))).clamp_max(_MOST)


def _purity(labels: torch.Tensor, ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """(N,): how far the cell's segment is foreground alone, less how far it is on both sides."""
    mine, other = (averaging(labels[None])[0] @ torch.stack([ours, theirs], dim=1)).unbind(1)
    change = _PURE * (mine - other).clamp_min(0) - _MIXED * torch.minimum(mine, other)
    return change.clamp_min(_LEAST)[labels]


def _stretched(values: torch.Tensor) -> torch.Tensor:
    """Values from 0 to 1; zeros where they are all the same."""
    above = values - values.min()
    return above / above.max().clamp_min(1e-6)


HEAD = Foris
