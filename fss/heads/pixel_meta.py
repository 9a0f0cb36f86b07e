"""The pixel-level meta-learner: cells of features as samples, an encoder trained by prototypes, answers by neighbours.

Source: A Pixel-Level Meta-Learner for Weakly Supervised Few-Shot Semantic Segmentation (Lee et al., WACV 2022), section
3.3: frozen features, an encoder with two hidden layers applied to every pixel, prototypes of the drawn support pixels
(Eq. 4) and a prototypical loss on the query's (Eq. 5); the answer is a k-nearest-neighbours vote among support pixels.
Where this departs, or chooses what the paper leaves open:

* samples are the cells of the backbone's grid, not the pixels of features enlarged to the image;
* training draws `cells` of either side and support at random; the answer, which has to be a function of its inputs,
  asks all of them and divides each side's votes by its number of cells: the vote of equal numbers, without the draw's
  noise (`asked: drawn` takes one draw, the same for every image of a grid);
* Eq. 5 as printed is minus the mean of exp(-d), which does not see the other prototypes and is smallest where the
  encoder maps everything to one point; Snell et al. (2017), whom it cites, have the cross-entropy of a softmax over
  them. `loss_form` is either; the distance is squared;
* of K supports, the k K nearest cells vote, so that the same support twice changes nothing;
* votes have no gradient, so the encoder learns from the prototypes alone, as in the paper; the trainer's loss of the
  answer itself reaches one number, the gain of the votes, which makes them probabilities (and lets `residual` start
  silent). It moves no border: the gain of a vote that is heard alone changes no mask as long as it is positive;
* the width of the hidden layers, k and the number of cells are not given.

The search is exact, a distance matrix and topk: some thousand support cells of 64 numbers are below what an index
gains from, the project's library runs without FAISS, and exact neighbours make results equal on all machines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from fss.backbones import Features
from fss.heads.parts.gain import Gain
from fss.heads.parts.head import Auxiliary, Head
from fss.heads.parts.losses import nearness
from fss.heads.parts.options import A_LEVEL, LearnedOptions
from fss.heads.parts.tokens import members, unit_grid
from fss.keys import at_least, key, one_of

LOSS_FORMS = ("log_softmax", "paper")
ASKED = ("all", "drawn")
#: A vote's share of 1 is a logit of this many, before the gain is learned.
_SCALE = 10.0
#: What nearness adds to a vote, at most.
_NEARER = 0.01


class Cells(NamedTuple):
    """Support cells of B episodes with N sides (background first, then the ways)."""

    tokens: torch.Tensor
    """(B, S, d) encoded."""
    sides: torch.Tensor
    """(B, N, S) bool: which cells belong to which side; void ones to none, mixed ones to one or more."""
    shots: torch.Tensor
    """(B,) int64: supports that show anything."""
    supports: int
    """K, of all ways together: no more can show anything."""


@dataclass(frozen=True, kw_only=True)
class Options(LearnedOptions):
    """Of the head."""

    levels: tuple[str, ...] = key(("mid", "high"), A_LEVEL)
    """Of one grid, side by side, each scaled to length 1."""
    hidden: int = key(256, at_least(1))
    """Width of both hidden layers."""
    dim: int = key(64, at_least(1))
    """Of the encoded space."""
    cells: int = key(100, at_least(1))
    """Drawn of either side of a support, as many as there are at most."""
    k: int = key(20, at_least(1))
    """Neighbours that vote, for each support that shows anything."""
    asked: str = key("all", one_of(*ASKED))
    """At evaluation `all` cells or `drawn` ones."""
    loss_form: str = key("log_softmax", one_of(*LOSS_FORMS))
    """log_softmax or paper (Eq. 5 as printed)."""


class PixelMeta(Head):
    """See the module's docstring."""

    def __init__(self, channels: Mapping[str, int], options: Options):
        super().__init__()
        self.levels, self.number, self.k = options.levels, options.cells, options.k
        self.asked, self.loss_form = options.asked, options.loss_form
        width = sum(channels[level] for level in self.levels)
        self.scale = width**0.5  # of inputs with a mean square of 1
        self.encode = nn.Sequential(
            nn.Conv2d(width, options.hidden, 1),
            nn.ReLU(),
            nn.Conv2d(options.hidden, options.hidden, 1),
            nn.ReLU(),
            nn.Conv2d(options.hidden, options.dim, 1, bias=False),  # distances are blind to a shift of the space
        )
        self.gain = Gain()

    def embed(self, features: Features) -> Features:
        """`tokens`: (B, dim, h, w) encoded cells."""
        joint = self.scale * unit_grid(features, self.levels)
        return {"tokens": self.encode(joint.to(self.encode[0].weight.dtype))}

    def match(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """(B, 2, h, w) float32 logits in [0, 10 gain], the shares of the votes; see `Head.match`."""
        return self._vote(query["tokens"], self._cells(support["tokens"], masks))

    def margins(self, query: Features, support: Features, masks: torch.Tensor, ways: int) -> torch.Tensor:
        """(E, N, h, w) each way's share of the votes less the background's: one vote of N + 1 sides; see `Ways`."""
        cells = [self._cells(support["tokens"][way::ways], masks[way::ways]) for way in range(ways)]
        ground = torch.cat([c.sides[:, :1] for c in cells], dim=2)
        own = [torch.cat([c.sides[:, 1:] & (way == i) for i, c in enumerate(cells)], dim=2) for way in range(ways)]
        shots = torch.stack([c.shots for c in cells]).sum(dim=0)
        tokens, supports = torch.cat([c.tokens for c in cells], dim=1), ways * masks.shape[1]
        joint = Cells(tokens, torch.cat([ground, *own], dim=1), shots, supports)
        logits = self._vote(query["tokens"][::ways], joint)
        return logits[:, 1:] - logits[:, :1]

    def learn(
        self, query: Features, support: Features, masks: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[Auxiliary, ...]]:
        """The votes, which train their gain, and as `prototypes` what trains the encoder."""
        seen, shots = self.prepare(query, support, masks)
        cells = self._cells(shots["tokens"], masks)
        near = -distances(seen["tokens"].float(), prototypes(cells))
        loss = nearness if self.loss_form == "paper" else None
        return self._vote(seen["tokens"], cells), (Auxiliary("prototypes", near, loss=loss),)

    def silence(self) -> None:
        """Start with logits of zero: the gain learns to be heard, the prototypes train the encoder."""
        nn.init.zeros_(self.gain.share)

    def _cells(self, tokens: torch.Tensor, masks: torch.Tensor) -> Cells:
        """Those of (B, K, d, h, w) tokens that are asked, drawn or not; masks (B, K, 2, h, w)."""
        flat = tokens.float().flatten(3).transpose(2, 3)
        shares = masks.float().flatten(3)
        # the largest share of all shots always belongs, as `members` has it, so that small things have cells
        sides = torch.stack([members(side.flatten(1)) for side in shares.unbind(2)], dim=1)
        sides = sides.unflatten(2, (shares.shape[1], -1)).transpose(1, 2)
        shots = sides.flatten(2).any(dim=2).sum(dim=1)
        if self.training or self.asked == "drawn":
            flat, sides = drawn(flat, sides, self.number, self.training)
        return Cells(flat.flatten(1, 2), sides.transpose(1, 2).flatten(2), shots, masks.shape[1])

    def _vote(self, query: torch.Tensor, cells: Cells) -> torch.Tensor:
        """(B, N, h, w) logits: the sides' shares of the votes of the nearest cells to (B, d, h, w) query tokens."""
        tokens = query.detach().float().flatten(2).transpose(1, 2)
        shares = votes(tokens, cells._replace(tokens=cells.tokens.detach()), self.k)
        return self.gain(_SCALE * shares.unflatten(2, query.shape[-2:]))


def drawn(tokens: torch.Tensor, sides: torch.Tensor, number: int, random: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """`number` cells of each side of each support, or all that there are.

    Args:
        tokens: (B, K, M, d).
        sides: (B, K, 2, M) bool.
        number: of cells.
        random: draw from torch's generator; otherwise one fixed draw, the same in every support.

    Returns:
        (B, K, 2 n, d) tokens and (B, K, 2, 2 n) their sides, in which a cell stands for the side it was drawn for;
        where a side has less than n cells, the rest belongs to none.
    """
    if random:
        order = torch.rand(sides.shape, device=sides.device)
    else:
        order = torch.rand(sides.shape[3], generator=torch.Generator().manual_seed(0)).to(sides.device)
    first = (order + 1).masked_fill(~sides, 0).topk(min(number, sides.shape[3]), dim=3)  # (B, K, 2, n)
    index = first.indices.flatten(2)[..., None].expand(-1, -1, -1, tokens.shape[3])
    real = first.values > 0
    nothing = torch.zeros_like(real[:, :, 0])
    background = torch.cat([real[:, :, 0], nothing], dim=2)
    foreground = torch.cat([nothing, real[:, :, 1]], dim=2)
    return tokens.gather(2, index), torch.stack([background, foreground], dim=2)


def prototypes(cells: Cells) -> torch.Tensor:
    """Eq. 4: the mean of each side's cells, (B, N, d); zeros of a side without any."""
    weights = cells.sides.float()
    return weights @ cells.tokens / weights.sum(dim=2, keepdim=True).clamp_min(1)


def distances(query: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Squared Euclidean distances of (B, d, h, w) tokens to (B, N, d) prototypes: (B, N, h, w)."""
    flat = query.flatten(2)
    products = torch.baddbmm(flat.square().sum(dim=1, keepdim=True), centres, flat, alpha=-2.0)
    return (products + centres.square().sum(dim=2, keepdim=True)).clamp_min(0).unflatten(2, query.shape[-2:])


@torch.no_grad()
def votes(query: torch.Tensor, cells: Cells, k: int) -> torch.Tensor:
    """Share of each side in the votes of the `k` nearest cells (of K supports: `k` K): (B, N, Q) float32 in [0, 1].

    A side's votes are divided by its number of cells first, so that a large background does not win by its size. Ties
    go to the nearer: a vote is worth up to a hundredth more the nearer its cell is. Cells of no side are not asked;
    where none is, shares are 0.

    Args:
        query: (B, Q, d).
        cells: those that are asked.
        k: neighbours for each support.
    """
    known = cells.sides.any(dim=1)
    apart = torch.cdist(query, cells.tokens).masked_fill(~known[:, None], torch.inf)
    most = min(k * cells.supports, apart.shape[2])
    near = apart.topk(most, dim=2, largest=False)
    real = near.values.isfinite() & (torch.arange(most, device=query.device) < (k * cells.shots)[:, None, None])
    weights = cells.sides / cells.sides.sum(dim=2, keepdim=True).clamp_min(1)  # (B, N, S)
    index = near.indices[:, None].expand(-1, weights.shape[1], -1, -1)
    each = weights[:, :, None].expand(-1, -1, query.shape[1], -1).gather(3, index)
    farthest = near.values.masked_fill(~real, 0).amax(dim=2, keepdim=True).clamp_min(1e-12)
    worth = torch.where(real, 1 + _NEARER * (1 - near.values / farthest), 0.0)
    summed = (each * worth[:, None]).sum(dim=3)
    return summed / summed.sum(dim=1, keepdim=True).clamp_min(1e-12)


HEAD = PixelMeta
