"""The smoothed read-out with prototypes of two further kinds: of alike regions of the corpus, and of the query itself.

This is ours, of no paper, and nothing is trained. One support shows one look of a thing. An index of regions of the
unlabelled corpus knows others: those most like the support's foreground bring what they and their surroundings look
like; without their surroundings they do harm. Then the query's own cells may join, weighted by how surely they are on
either side, as in the self-support matching of Fan et al. (ECCV 2022), which learns it.

A learned head can be added to it (`fss.heads.parts.residual`). Its index is of training images then, and while the head
learns nothing is looked up: the index holds the very tasks.

Letters: B episodes, C channels of the tokens, N cells, R regions of the index.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from fss.backbones import Features
from fss.heads import smoothed
from fss.heads.parts import tokens
from fss.heads.parts.threshold import moved
from fss.heads.parts.walk import walked
from fss.keys import FROM_ZERO, POSITIVE, at_least, key


@dataclass(frozen=True, kw_only=True)
class Options(smoothed.Options):
    """Those of the smoothed read-out, and of what joins its prototypes."""

    index_size: int = key(4096, FROM_ZERO)
    """Regions of the corpus that are kept at most, a uniform sample; 0 does without any."""
    neighbours: int = key(16, at_least(1), when={"index_size": True})
    """Regions of the index that join the prototypes: those most like the foreground."""
    corpus: float = key(2.0, POSITIVE, when={"index_size": True})
    """Weight of their mean, where each support has 1."""
    own: float = key(0.0, FROM_ZERO)
    """Weight of the prototypes of the query's own cells, likewise; 0 leaves them out."""

    @property
    def looks_up_regions(self) -> bool:
        """See `HeadOptions`."""
        return self.index_size > 0


class CorpusReadout(smoothed.SmoothedReadout):
    """See the module's docstring."""

    title = "corpus read-out"
    beside_learned: ClassVar[Mapping[str, float]] = {"scale": 1.0, "index_size": 1024, "corpus": 1.0}

    def __init__(self, channels: Mapping[str, int], options: Options):
        super().__init__(channels, options)
        self.index: torch.Tensor
        self.filled: torch.Tensor
        self.neighbours, self.corpus, self.own = options.neighbours, options.corpus, options.own
        dims = sum(channels[level] for level in self.levels)
        self.studies = options.index_size
        self.register_buffer("index", torch.zeros(2, options.index_size, dims, dtype=torch.float16))
        self.register_buffer("filled", torch.tensor(options.index_size == 0))

    def prototypes(self, embedded: Features, masks: torch.Tensor) -> torch.Tensor:
        """Rows of the index: (B, 2, C) means of background and foreground, of length 1; see `Recalls`."""
        return tokens.prototypes(embedded["tokens"].flatten(2), masks.flatten(2)).float()

    def fill(self, rows: np.ndarray) -> None:
        """Set the index to (R, 2, C) rows of `prototypes`, at most `index_size`; see `Recalls`."""
        _, size, dims = self.index.shape
        if len(rows) > size or rows.shape[1:] != (2, dims):
            raise ValueError(
                f"expected the prototypes of at most {size} regions, (R, 2, {dims}), got {rows.shape}; set "
                f"model.options.index_size={len(rows)}, or make the rows of the levels {', '.join(self.levels)}"
            )
        self.index.zero_()
        self.index[:, : len(rows)] = torch.from_numpy(rows).swapaxes(0, 1)
        self.filled.fill_(True)

    def study(self, images: Iterable[tuple[Features, torch.Tensor]], seed: int) -> None:
        """Fill the index with what the training images' masks show; see `Studies`."""
        rows = [self.prototypes(self.embed(features), shares).cpu() for features, shares in images]
        self.fill(torch.cat(rows)[: self.studies].numpy())

    def match(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """(B, 2, h, w) logits; see `Head.match`.

        Raises:
            RuntimeError: before `fill`, except in training, which looks nothing up.
        """
        looks_up = bool(self.index.numel()) and not self.training
        if looks_up and not torch.compiler.is_exporting() and not self.filled:
            raise RuntimeError(
                "expected a head whose index is filled: load the one that jobs.index or jobs.train exports"
            )
        sides = support["prototypes"]
        shots = (masks[:, :, 1] > 0).flatten(2).any(dim=2).sum(dim=1).clamp_min(1)[:, None, None]
        if looks_up:
            sides = F.normalize(sides + self.corpus / shots * self._alike(sides[:, 1]), dim=2)
        maps = self._read(query, sides)
        if self.own:
            sides = F.normalize(sides + self.own / shots * self._sure(query, maps), dim=2)
            maps = self._read(query, sides)
        logits = (self.scale * maps).unflatten(2, query["tokens"].shape[-2:])
        return moved(logits, self.otsu, masks.shape[1])

    def _alike(self, foreground: torch.Tensor) -> torch.Tensor:
        """(B, 2, C) means of both prototypes of the regions whose foregrounds are most like (B, C).

        Rows of zeros are none: an index may be larger than what there was to fill it.
        """
        cosines = torch.where(self.index[1].any(dim=1), foreground @ self.index[1].float().T, -torch.inf)
        likeness, nearest = cosines.topk(min(self.neighbours, cosines.shape[1]), dim=1)
        there = (likeness > -torch.inf).float()
        weights = there / there.sum(dim=1, keepdim=True).clamp_min(1)
        return (self.index[:, nearest].float() * weights[..., None]).sum(dim=2).swapaxes(0, 1)

    def _read(self, query: Features, sides: torch.Tensor) -> torch.Tensor:
        """(B, 2, N) cosines to (B, 2, C) prototypes, smoothed."""
        maps = (sides @ query["tokens"].flatten(2)).transpose(1, 2)
        return walked(query["walk"], maps, self.steps).transpose(1, 2)

    def _sure(self, query: Features, maps: torch.Tensor) -> torch.Tensor:
        """(B, 2, C) means of the query's cells, weighted by how far (B, 2, N) maps are on either side."""
        margin = maps[:, 1] - maps[:, 0]
        return tokens.prototypes(query["tokens"].flatten(2), torch.stack([-margin, margin], dim=1).clamp_min(0))


HEAD = CorpusReadout
