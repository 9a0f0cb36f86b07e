"""INSID3: the query's segments that are most like the support's foreground, and like the best of themselves.

Source: Cuttano et al., "INSID3: Training-Free In-Context Segmentation with DINOv3" (CVPR 2026), and its released code.
Nothing is trained. The query is cut into segments by its own tokens. Candidates are the cells that are like the mean
foreground and whose nearest cell in the support lies in the mask. The seed is the candidates' segment most like the
foreground. A segment belongs to the answer if its likeness to the foreground, times that to the seed, times the share
of its cells that are candidates, is large enough. Segments and their likeness to the seed are those of tokens as they
are, all that looks across images is free of position (`fss.heads.parts.anchor`).

What departs is told in `docs/methods/insid3.md`: cells have shares of a mask, and there is no CRF.

Letters: B episodes, C channels, N cells, S segments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from fss.backbones import Features
from fss.heads.parts.agglomeration import averaging, segments
from fss.heads.parts.anchor import Anchor, AnchorOptions, placeless, shown_cells, speaking, votes
from fss.heads.parts.salient import two_sided
from fss.heads.parts.shots import shot_means
from fss.keys import SHARE_OR_NONE, key

#: Where nothing is like the foreground at all, cells above this quantile of the likeness count as if they were.
_HIGHEST = 0.9


@dataclass(frozen=True, kw_only=True)
class Options(AnchorOptions):
    """Of the anchor."""

    merge: float = key(0.2, SHARE_OR_NONE)
    """Segments join above this score; at most 1."""


class Insid3(Anchor):
    """See the module's docstring."""

    title = "INSID3"

    def __init__(self, channels: Mapping[str, int], options: Options):
        super().__init__(channels, options)
        self.merge = options.merge

    def focus(self, query: Features) -> Features:
        """Of the tokens without position and of the segments what `match` takes.

        `labels`: (B, N) segments; `mean`: (B, S, N), what averages over them; `likeness`: (B, S, S) cosines of their
        mean tokens as they are; `length`: (B, S) of their mean tokens without position.
        """
        tokens, compared = query["tokens"].flatten(2), placeless(query)
        labels = segments(tokens, self.tau)
        mean = averaging(labels)
        looks = F.normalize(mean @ tokens.transpose(1, 2), dim=2)
        return {
            "tokens": compared,
            "labels": labels,
            "mean": mean,
            "likeness": looks @ looks.transpose(1, 2),
            "length": (mean @ compared.flatten(2).transpose(1, 2)).norm(dim=2),
        }

    def match(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """(B, 2, h, w) logits, the background's zero; see `Head.match`."""
        shown, compared, tokens = shown_cells(masks), placeless(support), query["tokens"].flatten(2)
        foreground = F.normalize(shot_means(compared, shown.view_as(masks[:, :, 1])), dim=1)
        alike = (foreground[:, None] @ tokens)[:, 0].float()
        inside = torch.zeros_like(alike)
        for b, supports in enumerate(compared.flatten(3)):
            candidates = _Candidates(tokens[b], speaking(supports, shown[b]), _hopeful(alike[b]))
            own = {name: query[name][b] for name in ("labels", "mean", "likeness", "length")}
            inside[b] = self._chosen(own, alike[b], candidates)[own["labels"]]
        margin = self.scale * (inside - 0.5)
        return two_sided(margin.unflatten(1, (1, *query["tokens"].shape[-2:])))

    def _chosen(self, own: Features, alike: torch.Tensor, candidates: _Candidates) -> torch.Tensor:
        """(S,) bool: the segments of the answer, from the (N,) likeness to the foreground.

        Which cells are candidates costs most, so it is asked only where it can change the answer.
        """
        labels, cross = own["labels"], (own["mean"] @ alike).float()
        seed = _first(candidates, labels, (cross / own["length"].clamp_min(1e-12)).argsort(descending=True))
        if seed is None:
            return torch.zeros_like(cross, dtype=torch.bool)
        score = cross * own["likeness"][seed].float()
        open_ = (score > self.merge)[labels]
        share = own["mean"] @ candidates.among(open_).float()
        share[seed] = 1.0
        return score * share > self.merge


@dataclass(frozen=True)
class _Candidates:
    """Which cells of the (C, N) tokens of a query are like the thing, and nearest to one of a support that shows it."""

    query: torch.Tensor
    supports: list[tuple[torch.Tensor, torch.Tensor]]
    hopeful: torch.Tensor

    def among(self, cells: torch.Tensor) -> torch.Tensor:
        """(N,) bool: those of `cells` (N,) that are candidates."""
        asked = (cells & self.hopeful).nonzero()[:, 0]
        chosen = torch.zeros_like(cells)
        chosen[asked] = votes(self.query[:, asked], self.supports) >= 0.5
        return chosen


def _first(candidates: _Candidates, labels: torch.Tensor, order: torch.Tensor) -> int | None:
    """The first of the segments in `order` that has a candidate; None if there is none."""
    return next((segment for segment in order.tolist() if candidates.among(labels == segment).any()), None)


def _hopeful(alike: torch.Tensor) -> torch.Tensor:
    """(N,) bool: the cells that are like the foreground at all; where none is, the most alike."""
    positive = alike > 0
    return positive if positive.any() else alike > alike.quantile(_HIGHEST)


HEAD = Insid3
