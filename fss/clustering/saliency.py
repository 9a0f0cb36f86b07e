"""The salient side of an image: which side of its normalised cut is the thing, and where it ends."""

from __future__ import annotations

import numpy as np
import torch

from fss.clustering.normalised_cut import normalised_cut
from fss.clustering.otsu import otsu


def cut(tokens: np.ndarray) -> np.ndarray:
    """Signed distance of each of (h, w, D) unit tokens from the border of the salient side: (h, w) float64, see `side`.

    The second eigenvector of the normalised cut, in standard deviations, as in TokenCut (Wang et al. 2022), but the
    affinity is max(cosine, 0), since cosines of convolutional features need no threshold.

    An image without structure is zero everywhere.
    """
    if not tokens.any():  # no cell is like any other: every cut is as good
        return np.zeros(tokens.shape[:2])
    vector = normalised_cut(tokens.reshape(-1, tokens.shape[-1]), 1, 1.0)[:, 0]
    return side(vector.reshape(tokens.shape[:2]))


def side(vector: np.ndarray) -> np.ndarray:
    """Signed distance of the (h, w) values of an eigenvector of the cut from the border of the salient side.

    Unlike in TokenCut

    * it is divided where the two sides differ most (Otsu 1979), which finds small things that the mean does not;
    * the salient side is the one with the smaller share of its cells on the border of the image. TokenCut's choice, the
      side of the eigenvector's largest entry, is often the background: on 120 photos of VOC 2012 train (MobileNetV2
      at 417 pixels) it reaches 25 % IoU with the union of all things, the border 44 %, a choice by the truth 48 %.
    """
    margin = vector - otsu(torch.from_numpy(vector.reshape(1, -1))).item()
    if margin[0, 0] > 0:  # the sign of an eigenvector is arbitrary: where the shares tie, the first cell is outside
        margin = -margin
    return -margin if _border_share(margin > 0) > _border_share(margin < 0) else margin


def _border_share(side: np.ndarray) -> float:
    """Share of the cells of an (h, w) bool side that lie on the border of the grid; 0 of an empty side."""
    return 1 - side[1:-1, 1:-1].sum() / side.sum() if side.any() else 0.0
