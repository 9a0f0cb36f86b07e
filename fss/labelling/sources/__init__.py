"""Sources of pseudo-labels: what is made of images and their embeddings, a block at a time; one module a source.

| source | label maps | reads |
|---|---|---|
| `clusters` | the cluster of every segment, one layer a granularity | centroids |
| `saliency` | 1 = salient, one layer | nothing, or maps of the user's own |
| `cam` | the image-level name that a classifier sees there, one layer | names, a classifier, word vectors |
| `mining` | the latent class of every cell, one layer | a trained `mining` model |

A source is found by the name of its module here. The module has `Keys`, its settings with their checks, and a labeller:
a frozen dataclass that can be pickled, small enough to be sent to every worker. A source that needs nothing but its
keys has a function `labeller(keys) -> Labeller`; for the others `cluster.label.sources` makes it. Where a source has
clusters every label names one, 0 too. Everywhere else 0 is nothing, labels count from 1, and only they are regions.

These modules import torch inside of their functions: the command line reads their keys, and torch takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

from fss.keys import key, one_of

if TYPE_CHECKING:
    import torch

    from fss.backbones import Features
    from fss.labelling.pseudo import Region

Maps: TypeAlias = "tuple[np.ndarray, Sequence[Region]]"
"""Label maps of an image, (G, H, W) uint16 in the image's size, and their regions."""

LEVELS = ("low", "mid", "high")


@dataclass
class SourceKeys:
    """What makes pseudo-labels of images. Each source adds keys of its own."""

    name: str = "clusters"
    """`clusters`, or one that labels without clustering, so that jobs.sample and jobs.kmeans are not run: `saliency`,
    `cam`, `mining`."""
    levels: list[str] = key(["mid", "high"], one_of(*LEVELS))
    """Backbone levels whose embeddings, side by side, are looked at and describe regions."""

    def problems(self) -> list[str]:
        """What is wrong with the levels."""
        return [] if self.levels else ["levels: expected at least one of low, mid, high, got none; set levels=[high]"]


@dataclass(frozen=True)
class Photo:
    """An image as the network takes it; its size (H, W), its superpixels, if a recipe has any, and where it was."""

    key: str
    tensor: torch.Tensor
    size: tuple[int, int]
    cut: np.ndarray | None = None
    path: str = ""
    """Path of the user's file below corpus.root."""


@dataclass(frozen=True)
class Block:
    """Some images in their order and what the backbone made of them, on its device."""

    photos: Sequence[Photo]
    fields: torch.Tensor
    """(B, h, w, D) float32 embeddings of length 1, see `fss.labelling.pseudo.tokens`."""
    corners: bool
    """The geometry of their grid, see `fss.grid`."""
    features: Features | None = None
    """The backbone's levels, (B, C, h, w) float32; only for sources that ask for them."""

    @property
    def cut(self) -> list[np.ndarray] | None:
        """The superpixels of every image, if the recipe has any."""
        cuts = [photo.cut for photo in self.photos if photo.cut is not None]
        return cuts or None


class Labeller(Protocol):
    """What a source is to the label stage."""

    def maps(self, block: Block) -> list[Maps]:
        """Label maps and regions of each image of a block; of one image the same whatever else is in the block."""
        ...
