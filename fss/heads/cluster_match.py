"""MaskContrast (Van Gansbeke et al. 2021) asked few-shot, as MaskSplit (Amac et al. 2022, section 4.2) does.

MaskContrast makes one descriptor of the salient object of each unlabelled image and clusters them; two images show the
same class if their objects fall into one cluster. Here the features are the frozen backbone's and the salient object
is that of `fss.heads.parts.salient`; nothing is trained, and no PCA is needed for so few clusters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from fss.backbones import Features
from fss.clustering import kmeans
from fss.heads.parts.head import Head
from fss.heads.parts.options import A_LEVEL, HeadOptions
from fss.heads.parts.salient import LEVELS, salient, two_sided
from fss.heads.parts.tokens import unit_grid
from fss.keys import at_least, key

#: The foreground's logit where the answer is nothing.
_NOTHING = -10.0


@dataclass(frozen=True, kw_only=True)
class Options(HeadOptions):
    """Of the baseline."""

    levels: tuple[str, ...] = key(LEVELS, A_LEVEL)
    """What the tokens are made of, side by side."""
    clusters: int = key(20, at_least(1), when={"match": (True,)})
    """Of the unlabelled images' objects; MaskContrast has one a class of PASCAL VOC."""
    match: bool = True
    """Whether clusters must match; without it is the baseline `saliency` again."""


class ClusterMatch(Head):
    """The query's salient object if its cluster is that of the supports' salient objects, else nothing.

    With K supports theirs is the most frequent cluster; of several that are equally frequent each counts. Of the masks
    only emptiness is looked at: a support that shows nothing has no vote, unless none shows anything. `match=False` is
    MaskSplit's second, more favourable variant: the salient object without requiring a match, which is the baseline
    `saliency` again.
    """

    title = "cluster match"
    trained = False
    no_graph = "cuts each image in two by an eigenvector, with NumPy"

    def __init__(self, channels: Mapping[str, int], options: Options):
        super().__init__()
        self.mean: torch.Tensor
        self.centroids: torch.Tensor
        self.fitted: torch.Tensor
        self.levels, self.must_match = options.levels, options.match
        dims = sum(channels[level] for level in self.levels)
        self.register_buffer("mean", torch.zeros(dims))
        self.register_buffer("centroids", torch.zeros(options.clusters, dims))
        self.register_buffer("fitted", torch.tensor(False))

    def embed(self, features: Features) -> Features:
        """`margin`: (B, 1, h, w) of `salient`; `object`: (B, D), the mean token weighted by the margin inside."""
        margin = salient(features, self.levels)
        weights = margin.clamp_min(0)
        weights = torch.where(weights.sum(dim=(2, 3), keepdim=True) > 0, weights, torch.ones_like(weights))
        total = (unit_grid(features, self.levels) * weights).sum(dim=(2, 3))
        return {"margin": margin, "object": total / weights.sum(dim=(2, 3))}

    def describe(self, embedded: Features) -> torch.Tensor:
        """(B, D) float32, the mean tokens of the salient objects."""
        return embedded["object"]

    def fit(self, rows: np.ndarray, seed: int) -> None:
        """Cluster (n, D) objects by spherical k-means around their mean.

        Raises:
            ValueError: for rows of another width, or fewer rows than clusters.
        """
        clusters, dims = self.centroids.shape
        if rows.ndim != 2 or rows.shape[1] != dims or len(rows) < clusters:
            raise ValueError(
                f"expected descriptions ({clusters} or more, {dims}) of unlabelled images, got {rows.shape}; "
                "give more images or lower model.options.clusters"
            )
        device = self.mean.device
        points = torch.from_numpy(rows).float()
        self.mean = points.mean(dim=0).to(device)
        around = F.normalize(points - self.mean.cpu(), dim=1).numpy()
        centroids, _ = kmeans.fit(around, clusters, seed=seed, spherical=True)
        self.centroids = torch.from_numpy(centroids).to(device)
        self.fitted = torch.tensor(True, device=device)

    def match(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """(B, 2, h, w) logits, the background's zero; see `Head.match`.

        Raises:
            RuntimeError: before `fit`.
        """
        if not self.fitted:
            raise RuntimeError("expected a fitted head: call fit with the descriptions of unlabelled images first")
        margin = query["margin"]
        if not self.must_match:
            return two_sided(margin)
        own, theirs = self.cluster_of(query["object"]), self.cluster_of(support["object"])
        shows = (masks[:, :, 1] > 0).flatten(2).any(dim=2)
        shows = shows | ~shows.any(dim=1, keepdim=True)
        votes = (F.one_hot(theirs, len(self.centroids)) * shows[..., None]).sum(dim=1)
        agrees = votes.gather(1, own[:, None])[:, 0] == votes.amax(dim=1)
        return two_sided(torch.where(agrees[:, None, None, None], margin, _NOTHING))

    def cluster_of(self, objects: torch.Tensor) -> torch.Tensor:
        """(...,) int64 clusters of (..., D) objects."""
        around = F.normalize(objects.float() - self.mean.float(), dim=-1)
        return (around @ self.centroids.float().T).argmax(dim=-1)


HEAD = ClusterMatch
