"""Whether a thing is in an image at all: a chance, calibrated without labels.

A head draws something into nearly every image, so the area of its answer says little. What it marks tells more: how
like that is to what the supports show, a cosine here called the likeness. Pseudo-tasks that training never saw give
images of both kinds: a task's query holds the thing of its own supports, and hardly ever that of another task's. A
logistic regression on both turns a likeness into a chance.

Letters: B images, C channels of level high.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from fss.backbones import Features
from fss.heads.parts.head import Head
from fss.heads.parts.tokens import flat_masks, flat_tokens, prototypes, unit

#: Added to squares of weights, so that tasks that are told apart without a mistake give no infinite ones.
_RIDGE = 1e-3
#: Each query is asked for the things of so many other tasks.
_OTHERS = 3
#: Tasks that are needed to fit anything, and pairs that a head is given at once.
_LEAST, _BATCH = 4, 16


@dataclass(frozen=True)
class Presence:
    """The chance is 1 / (1 + exp(-slope * (likeness - middle)))."""

    middle: float
    slope: float

    @classmethod
    def read(cls, about: Mapping[str, Any] | None) -> Presence | None:
        """The one that `model.json` holds, None if it holds none."""
        return None if about is None else cls(**about)

    @classmethod
    def fit(cls, likeness: np.ndarray, there: np.ndarray) -> Presence | None:
        """By (N,) likenesses of images that hold the thing or do not, (N,) bool; both kinds weigh the same in all.

        None where larger ones do not speak for the thing.
        """
        centre, spread = likeness.mean(), likeness.std() + 1e-6
        rows = np.column_stack([(likeness - centre) / spread, np.ones(len(likeness))])
        share = np.where(there, 0.5 / there.sum(), 0.5 / (~there).sum())
        ridge, line = np.diag([_RIDGE, 0.0]), np.zeros(2)
        for _ in range(50):  # Newton's method; it stands still long before
            chance = 1 / (1 + np.exp(-rows @ line))
            slope = rows.T @ (share * (chance - there)) + ridge @ line
            line -= np.linalg.solve((rows * (share * chance * (1 - chance))[:, None]).T @ rows + ridge, slope)
        weight, bias = line
        return cls(_short(centre - spread * bias / weight), _short(weight / spread)) if weight > 0 else None

    def chance(self, likeness: np.ndarray) -> np.ndarray:
        """(B,) float64 in [0, 1] of (B,) likenesses: that the thing is there, where half of all images hold it."""
        return 1 / (1 + np.exp(-self.slope * (likeness - self.middle)))

    @property
    def about(self) -> dict[str, float]:
        """What `read` reads."""
        return dataclasses.asdict(self)


def foreground(support: Features, masks: torch.Tensor) -> torch.Tensor:
    """(B, C) means, of length 1, of what the supports show.

    Args:
        support: features of the backbone, levels (B, K, C, h, w).
        masks: (B, K, 2, h, w) shares of background and foreground.
    """
    return prototypes(unit(flat_tokens(support["high"])), flat_masks(masks))[:, 1]


def likeness(logits: torch.Tensor, query: Features, shown: torch.Tensor, corners: bool) -> np.ndarray:
    """(B,) float64 in [-1, 1]: cosines of what answers mark, each cell by its probability, to what the supports show.

    Args:
        logits: (B, 2, h, w) of a head, on any grid.
        query: features of the backbone, levels (B, C, h, w).
        shown: (B, C), see `foreground`.
        corners: the cells' geometry, see `fss.grid`.
    """
    tokens = unit(query["high"])
    margin = (logits[:, 1] - logits[:, 0])[:, None]
    margin = F.interpolate(margin, tokens.shape[-2:], mode="bilinear", align_corners=corners)
    marked = prototypes(tokens.flatten(2), margin.sigmoid().flatten(2))[:, 0]
    return (marked * shown).sum(dim=1).double().cpu().numpy()


@torch.no_grad()
def calibrated(
    head: Head, query: Features, support: Features, masks: torch.Tensor, names: list[set[str]]
) -> Presence | None:
    """What pseudo-tasks say, each asked for its own thing and for those of the next ones; None for too few of them.

    Args:
        head: in evaluation mode.
        query: features of N tasks, levels (N, C, h, w).
        support: levels (N, K, C, h, w).
        masks: (N, K, 2, h, w) shares of background and foreground.
        names: of the images of each task; tasks that share one are not asked for each other's thing.
    """
    number = len(masks)
    pairs = [(own, (own + step) % number) for step in range(_OTHERS + 1) for own in range(number)]
    pairs = [(own, other) for own, other in pairs if own == other or not names[own] & names[other]]
    there = np.array([own == other for own, other in pairs])
    if number < _LEAST or there.all():
        return None
    likenesses = []
    for start in range(0, len(pairs), _BATCH):
        owns, others = map(list, zip(*pairs[start : start + _BATCH], strict=True))
        asked = {level: values[owns] for level, values in query.items()}
        known = {level: values[others] for level, values in support.items()}
        logits = head(asked, known, masks[others])
        likenesses.append(likeness(logits, asked, foreground(known, masks[others]), head.corners))
    return Presence.fit(np.concatenate(likenesses), there)


def _short(value: float) -> float:
    """Six digits: what lies behind them differs between processors."""
    return float(f"{value:.6g}")
