"""Pseudo-labels by clustering: what is clustered of an image, and the label maps and regions that come of it.

The unit that is clustered is either the pixel embedding (UMTFSS, section "Unsupervised Pixel Clustering") or the pooled
embedding of a segment (segments first, then clusters: labels of whole things instead of parts of them).

Letters: D dimensions, h x w feature grid, G granularities, H x W image.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F

from fss import kmeans
from fss.backbones import Features
from fss.segments import agglomerate


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How an image is cut up: see `cluster.config.SourceConfig` for the fields."""

    segments: str = "agglomerate"
    granularities: tuple[int, ...] = (3, 5, 8)
    level: str = "high"
    points_per_image: int = 64


@dataclasses.dataclass(frozen=True)
class Region:
    """The pixels of one label in one layer of an image's label maps, and how they lie."""

    layer: int
    label: int
    area: float
    """Share of the image, in (0, 1]."""
    empty_rows: float
    """Share of the rows without any of its pixels."""
    empty_columns: float
    descriptor: np.ndarray
    """(D,) float32 mean embedding, of length 1."""


def tokens(features: Features, level: str) -> np.ndarray:
    """One image's level (D, h, w) as (h, w, D) float32 embeddings of length 1."""
    grid = F.normalize(features[level].float(), dim=0)
    return grid.permute(1, 2, 0).cpu().numpy()


def embeddings(grid: np.ndarray, recipe: Recipe, generator: np.random.Generator) -> np.ndarray:
    """(n, D) float32 rows for k-means from one image's (h, w, D) embeddings: its segments', or some of its pixels'."""
    if recipe.segments == "none":
        rows = grid.reshape(-1, grid.shape[-1])
        chosen = generator.choice(len(rows), size=min(recipe.points_per_image, len(rows)), replace=False)
        return rows[np.sort(chosen)]
    maps = agglomerate(grid, recipe.granularities)
    return np.concatenate([pool(grid, segment_map) for segment_map in maps])


def pool(grid: np.ndarray, segment_map: np.ndarray) -> np.ndarray:
    """Mean embedding, of length 1, of each segment 0..S-1 of an (h, w) map: (S, D) float32."""
    flat = segment_map.ravel()
    totals = np.zeros((int(flat.max()) + 1, grid.shape[-1]), dtype=np.float64)
    np.add.at(totals, flat, grid.reshape(-1, grid.shape[-1]))
    norms = np.linalg.norm(totals, axis=1, keepdims=True)
    return (totals / np.maximum(norms, 1e-12)).astype(np.float32)


def label_maps(grid: np.ndarray, centroids: np.ndarray, recipe: Recipe, size: tuple[int, int]) -> np.ndarray:
    """Cluster numbers of every pixel of an image of `size` (H, W): (G, H, W) uint16, one layer a granularity.

    Labels are decided on the feature grid and enlarged by bilinear votes, so that borders are smooth.
    """
    if recipe.segments == "none":
        labels, _ = kmeans.assign(grid.reshape(-1, grid.shape[-1]), centroids)
        coarse = [labels.reshape(grid.shape[:2])]
    else:
        coarse = []
        for segment_map in agglomerate(grid, recipe.granularities):
            labels, _ = kmeans.assign(pool(grid, segment_map), centroids)
            coarse.append(labels[segment_map])
    return np.stack([enlarge(layer, size) for layer in coarse])


def enlarge(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) labels to (*size) uint16: every label's indicator is enlarged bilinearly, the strongest wins."""
    present, inverse = np.unique(labels, return_inverse=True)
    one_hot = F.one_hot(torch.from_numpy(inverse.reshape(labels.shape)), len(present)).permute(2, 0, 1)[None].float()
    votes = F.interpolate(one_hot, size=size, mode="bilinear", align_corners=False)[0]
    return present[votes.argmax(0).numpy()].astype(np.uint16)


def regions(maps: np.ndarray, grid: np.ndarray) -> list[Region]:
    """Every label of every layer of (G, H, W) maps as a region, described by the (h, w, D) embeddings below it."""
    found = []
    for layer, labels in enumerate(maps):
        coarse = _shrink(labels, grid.shape[:2])
        for label in np.unique(labels):
            mask = labels == label
            inside = coarse == label
            rows = grid[inside] if inside.any() else grid[_nearest_cell(mask, grid.shape[:2])]
            total = rows.reshape(-1, grid.shape[-1]).sum(axis=0)
            found.append(
                Region(
                    layer=layer,
                    label=int(label),
                    area=float(mask.mean()),
                    empty_rows=float(1 - mask.any(axis=1).mean()),
                    empty_columns=float(1 - mask.any(axis=0).mean()),
                    descriptor=(total / max(float(np.linalg.norm(total)), 1e-12)).astype(np.float32),
                )
            )
    return found


def _shrink(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The labels at the centres of the cells of an (h, w) grid laid over the image."""
    rows = ((np.arange(size[0]) + 0.5) * labels.shape[0] / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * labels.shape[1] / size[1]).astype(int)
    return labels[np.ix_(rows, columns)]


def _nearest_cell(mask: np.ndarray, size: tuple[int, int]) -> tuple[int, int]:
    y, x = (values.mean() for values in np.nonzero(mask))
    return min(int(y * size[0] / mask.shape[0]), size[0] - 1), min(int(x * size[1] / mask.shape[1]), size[1] - 1)
