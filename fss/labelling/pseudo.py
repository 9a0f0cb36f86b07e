"""Pseudo-labels by clustering: what is clustered of an image, and the label maps and regions that come of it.

The unit that is clustered is either the pixel embedding (UMTFSS, section "Unsupervised Pixel Clustering"), and segments
vote for one cluster, or the pooled embedding of a segment (segments first, then clusters, as in DIP: labels of whole
things instead of parts of them).

Letters: B images, D dimensions, h x w feature grid, G layers (granularities), H x W image, S segments, K clusters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from fss import grid
from fss.backbones import Features
from fss.clustering import kmeans
from fss.labelling.segments import GRADED, segment, superpixels
from fss.labelling.segments.superpixel import vote

#: Clusters whose scores are enlarged at a time.
_SCORES = 64


@dataclasses.dataclass(frozen=True)
class EmbeddingOptions:
    """How an image is cut up: see `fss.labelling.sources.clusters.Keys` for the fields."""

    segments: str = "ncut"
    unit: str = "segments"
    granularities: tuple[int, ...] = (3, 5, 8)
    levels: tuple[str, ...] = ("mid", "high")
    points_per_image: int = 64

    @property
    def layers(self) -> int:
        """Label maps of an image."""
        return len(self.granularities) if self.segments in GRADED else 1

    @property
    def by_pixel(self) -> bool:
        """Whether k-means sees embeddings of pixels, not of segments."""
        return self.unit == "pixels" or self.segments == "none"


@dataclasses.dataclass(frozen=True)
class Region:
    """The pixels of one label in one layer of an image's label maps, and how they lie."""

    layer: int
    label: int
    area: float
    """Share of the image, in (0, 1]."""
    border: float
    """Share of the image's outermost cells that it holds."""
    empty_rows: float
    """Share of the rows without any of its cells."""
    empty_columns: float
    descriptor: np.ndarray
    """(D,) float32 mean embedding, of length 1."""


@dataclasses.dataclass(frozen=True)
class Clusters:
    """What k-means found of rows that had the (D,) `centre` taken off."""

    centroids: np.ndarray
    """(F, D) float32; of a hierarchy the finest level's."""
    centre: np.ndarray
    parents: np.ndarray | None = None
    """(F,) int64 cluster that each centroid stands for, where they were clustered again; None: each for itself."""

    @property
    def count(self) -> int:
        """Number of clusters."""
        return len(self.centroids) if self.parents is None else int(self.parents.max()) + 1

    @property
    def lengths(self) -> np.ndarray:
        """(K,) float64 length of each cluster's centroid; in a hierarchy the mean over the finest below it."""
        fine = np.linalg.norm(self.centroids.astype(np.float64), axis=1)
        if self.parents is None:
            return fine
        return np.bincount(self.parents, fine, self.count) / np.maximum(np.bincount(self.parents), 1)

    def assign(self, rows: np.ndarray) -> np.ndarray:
        """Cluster of each of (n, D) embeddings: (n,) int64."""
        return self.nearest(rows)[0]

    def nearest(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cluster of each of (n, D) embeddings, (n,) int64, and the squared distance to its centroid, (n,) float32.

        In a hierarchy that is the cluster which the nearest of the finest centroids belongs to.
        """
        labels, distances = kmeans.assign(centred(rows, self.centre), self.centroids)
        return (labels if self.parents is None else self.parents[labels]), distances


def tokens(features: Features, levels: Sequence[str]) -> torch.Tensor:
    """Levels (..., C, h, w), each of length 1, side by side: (..., h, w, D) float32 embeddings of length 1."""
    parts = [F.normalize(features[level].float(), dim=-3) for level in levels]
    joint = F.normalize(torch.cat(parts, dim=-3), dim=-3)
    return joint.movedim(-3, -1).contiguous()


def centred(rows: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """(n, D) rows less the centre, of length 1 again: what all images have in common says nothing about their parts."""
    moved = rows - centre
    return (moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def embeddings(
    fields: torch.Tensor,
    cut: Sequence[np.ndarray] | None,
    recipe: EmbeddingOptions,
    generators: Sequence[np.random.Generator],
    corners: bool = True,
) -> list[np.ndarray]:
    """(n, D) float32 rows for k-means of each image of a batch: its segments', or some of its pixels'.

    Args:
        fields: (B, h, w, D) embeddings of length 1.
        cut: the (H, W) superpixels of each image (segments=superpixel).
        recipe: what to take.
        generators: one for each image, for the choice of pixels.
        corners: the geometry of the grid, see `fss.grid`.
    """
    if recipe.by_pixel:
        return [_some(field, recipe.points_per_image, each) for field, each in zip(fields, generators, strict=True)]
    if recipe.segments == "superpixel":
        return [_pool_superpixels(field, each, corners) for field, each in zip(fields, _given(cut), strict=True)]
    maps = segment(fields, recipe.segments, recipe.granularities)
    return [pool(field, each).cpu().numpy() for field, each in zip(fields, maps, strict=True)]


def _some(field: torch.Tensor, number: int, generator: np.random.Generator) -> np.ndarray:
    rows = field.flatten(0, 1)
    chosen = generator.choice(len(rows), size=min(number, len(rows)), replace=False)
    return rows[torch.from_numpy(np.sort(chosen)).to(rows.device)].cpu().numpy()


def _given(cut: Sequence[np.ndarray] | None) -> Sequence[np.ndarray]:
    if cut is None:
        raise ValueError("expected the superpixels of every image with segments=superpixel, got none: see `cut_up`")
    return cut


def cut_up(picture: Image.Image, recipe: EmbeddingOptions) -> np.ndarray | None:
    """What the recipe cuts in the picture itself: superpixels of its own or a smaller size, or nothing."""
    return superpixels(picture) if recipe.segments == "superpixel" else None


def pool(field: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Mean embedding, of length 1, of each segment of (G, h, w) maps of 0..S-1, map by map: (S_1 + ... + S_G, D)."""
    return F.normalize(_members(_numbered(maps)) @ field.flatten(0, 1), dim=1)


def _numbered(maps: torch.Tensor) -> torch.Tensor:
    """(G, h, w) maps, each 0..S-1, to (G, h * w) numbers of which no two maps share one."""
    flat = maps.flatten(1)
    sizes = flat.amax(dim=1) + 1
    return flat + (sizes.cumsum(0) - sizes)[:, None]


def _members(numbers: torch.Tensor) -> torch.Tensor:
    """(G, N) numbers to the (S, N) float32 matrix of who is in which segment."""
    member = torch.zeros(int(numbers.max()) + 1, numbers.shape[1], device=numbers.device)
    return member.scatter_(0, numbers, 1.0)


def _pool_superpixels(field: torch.Tensor, cut: np.ndarray, corners: bool) -> np.ndarray:
    """Mean embedding, of length 1, of each of (H, W) superpixels 0..S-1, each pixel having its cell's: (S, D)."""
    height, width = field.shape[:2]
    cells = grid.nearest_cells(cut.shape, (height, width), corners)
    number = int(cut.max()) + 1
    counts = np.bincount((cut * (height * width) + cells).ravel(), minlength=number * height * width)
    shares = torch.from_numpy(counts.reshape(number, -1)).to(field)
    return F.normalize(shares @ field.flatten(0, 1), dim=1).cpu().numpy()


def label_grids(fields: torch.Tensor, clusters: Clusters, recipe: EmbeddingOptions) -> np.ndarray:
    """Cluster numbers of the cells of (B, h, w, D) embeddings: (B, G, h, w) int64, one layer a granularity."""
    shape = fields.shape[1:3]
    cells = assign(fields.flatten(0, 2), clusters).view(-1, 1, *shape) if recipe.by_pixel else None
    if recipe.segments not in GRADED:
        assert cells is not None, recipe
        return cells.cpu().numpy()
    maps = segment(fields, recipe.segments, recipe.granularities)
    grids = torch.empty_like(maps)
    for index, (field, layers) in enumerate(zip(fields, maps, strict=True)):
        numbers = _numbered(layers)
        if cells is None:
            names = assign(F.normalize(_members(numbers) @ field.flatten(0, 1), dim=1), clusters)
        else:
            names = _majority(_members(numbers), cells[index].flatten())
        grids[index] = names[numbers].view_as(layers)
    return grids.cpu().numpy()


def _majority(member: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The most frequent of N `labels` in each row of an (S, N) matrix of members: (S,), ties to the lower."""
    present, numbers = labels.unique(return_inverse=True)
    return present[(member @ F.one_hot(numbers, len(present)).to(member)).argmax(dim=1)]


def assign(rows: torch.Tensor, clusters: Clusters) -> torch.Tensor:
    """Cluster of each of (n, D) embeddings, computed where they are: (n,) int64."""
    if rows.device.type == "cpu":
        return torch.from_numpy(clusters.assign(rows.numpy()))
    centre, centroids = (torch.from_numpy(each).to(rows) for each in (clusters.centre, clusters.centroids))
    labels = kmeans.nearest(F.normalize(rows - centre, dim=1), centroids)[0]
    return labels if clusters.parents is None else torch.from_numpy(clusters.parents).to(labels)[labels]


def label_maps(
    fields: torch.Tensor, cut: Sequence[np.ndarray] | None, clusters: Clusters, recipe: EmbeddingOptions, corners: bool
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Label maps of each image of a batch, and the same at its cells, both of G layers of int64 cluster numbers.

    The maps are (G, h, w), or with superpixels (1, *their size); `enlarge` brings both to the image's size.
    """
    if recipe.segments != "superpixel":
        return [(layers, layers) for layers in label_grids(fields, clusters, recipe)]
    both = []
    for field, each in zip(fields, _given(cut), strict=True):
        pixels = label_superpixels(field, each, clusters, recipe, corners)
        both.append((pixels, grid.sample_labels(pixels[0], (field.shape[0], field.shape[1]), corners)[None]))
    return both


def label_superpixels(
    field: torch.Tensor, cut: np.ndarray, clusters: Clusters, recipe: EmbeddingOptions, corners: bool
) -> np.ndarray:
    """Cluster numbers of the pixels of one image by its (H, W) superpixels: (1, H, W) int64.

    By pixel: the scores of an image's (h, w, D) embeddings are enlarged, every pixel has its best cluster, and each
    superpixel that of most of its pixels. By segment: the cluster nearest to a superpixel's mean embedding.
    """
    if recipe.by_pixel:
        names = vote(_best_clusters(field, cut.shape, clusters, corners), cut)
    else:
        names = clusters.assign(_pool_superpixels(field, cut, corners))
    return names[cut][None]


def _best_clusters(field: torch.Tensor, size: Sequence[int], clusters: Clusters, corners: bool) -> np.ndarray:
    """The cluster of the best score at every pixel, (H, W) int64: scores are enlarged a block of clusters at a time."""
    rows = F.normalize(field - torch.from_numpy(clusters.centre).to(field), dim=-1)
    centroids = torch.from_numpy(clusters.centroids).to(field)
    scores = (2 * rows @ centroids.T - centroids.square().sum(dim=1)).permute(2, 0, 1).contiguous()
    best, winners = torch.full(tuple(size), -torch.inf), torch.zeros(tuple(size), dtype=torch.int64)
    best, winners = best.to(field.device), winners.to(field.device)
    for start in range(0, len(scores), _SCORES):
        top, index = grid.enlarge(scores[None, start : start + _SCORES], (size[0], size[1]), corners)[0].max(dim=0)
        better = top > best
        best, winners = torch.where(better, top, best), torch.where(better, index + start, winners)
    labels = winners.cpu().numpy()
    return labels if clusters.parents is None else clusters.parents[labels]


def enlarge(layers: np.ndarray, size: tuple[int, int], recipe: EmbeddingOptions, corners: bool) -> np.ndarray:
    """Label maps as `label_maps` gives them to (G, *size) uint16 labels of pixels."""
    if recipe.segments == "superpixel":
        return np.stack([grid.sample_labels(layer, size, corners=False) for layer in layers]).astype(np.uint16)
    return np.stack([grid.enlarge_labels(layer, size, corners) for layer in layers])


def regions(layers: np.ndarray, field: torch.Tensor, first: int = 0) -> list[Region]:
    """Every label of every layer of (G, h, w) maps as a region, described by the (h, w, D) embeddings in it.

    A region that came out the same at an earlier granularity is left out, and so are labels below `first`.
    """
    names, masks, seen = [], [], set()
    for layer, labels in enumerate(layers):
        for label in np.unique(labels):
            mask = labels == label
            name = (int(label), mask.tobytes())
            if label >= first and name not in seen:
                seen.add(name)
                names.append((layer, int(label)))
                masks.append(mask)
    if not masks:
        return []
    every = np.stack(masks)
    members = torch.from_numpy(every).flatten(1).to(field)
    descriptors = F.normalize(members @ field.flatten(0, 1), dim=1).cpu().numpy()
    edges = np.concatenate([every[:, 0], every[:, -1], every[:, 1:-1, 0], every[:, 1:-1, -1]], axis=1)
    figures = zip(
        every.mean(axis=(1, 2)).tolist(),
        edges.mean(axis=1).tolist(),
        (1 - every.any(axis=2).mean(axis=1)).tolist(),
        (1 - every.any(axis=1).mean(axis=1)).tolist(),
        descriptors,
        strict=True,
    )
    return [Region(*name, *each) for name, each in zip(names, figures, strict=True)]
