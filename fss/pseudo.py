"""Pseudo-labels by clustering: what is clustered of an image, and the label maps and regions that come of it.

The unit that is clustered is either the pixel embedding (UMTFSS, section "Unsupervised Pixel Clustering") or the pooled
embedding of a segment (segments first, then clusters: labels of whole things instead of parts of them).

Letters: D dimensions, h x w feature grid, G granularities, H x W image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from fss import grid, kmeans
from fss.backbones import Features
from fss.segments import spectral


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How an image is cut up: see `cluster.config_data.SourceConfig` for the fields."""

    segments: str = "spectral"
    granularities: tuple[int, ...] = (3, 5, 8)
    levels: tuple[str, ...] = ("mid", "high")
    points_per_image: int = 64


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

    def assign(self, rows: np.ndarray) -> np.ndarray:
        """Cluster of each of (n, D) embeddings: (n,) int64."""
        return self.nearest(rows)[0]

    def nearest(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cluster of each of (n, D) embeddings, (n,) int64, and the squared distance to its centroid, (n,) float32.

        In a hierarchy that is the cluster which the nearest of the finest centroids belongs to.
        """
        labels, distances = kmeans.assign(centred(rows, self.centre), self.centroids)
        return (labels if self.parents is None else self.parents[labels]), distances


def tokens(features: Features, levels: Sequence[str]) -> np.ndarray:
    """One image's levels (C, h, w), each of length 1, side by side: (h, w, D) float32 embeddings of length 1."""
    parts = [F.normalize(features[level].float(), dim=0) for level in levels]
    joint = F.normalize(torch.cat(parts), dim=0)
    return np.ascontiguousarray(joint.permute(1, 2, 0).cpu().numpy())


def centred(rows: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """(n, D) rows less the centre, of length 1 again: what all images have in common says nothing about their parts."""
    moved = rows - centre
    return (moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def embeddings(field: np.ndarray, recipe: Recipe, generator: np.random.Generator) -> np.ndarray:
    """(n, D) float32 rows for k-means from one image's (h, w, D) embeddings: its segments', or some of its pixels'."""
    if recipe.segments == "none":
        rows = field.reshape(-1, field.shape[-1])
        chosen = generator.choice(len(rows), size=min(recipe.points_per_image, len(rows)), replace=False)
        return rows[np.sort(chosen)]
    maps = spectral(field, recipe.granularities)
    return np.concatenate([pool(field, segment_map) for segment_map in maps])


def pool(field: np.ndarray, segment_map: np.ndarray) -> np.ndarray:
    """Mean embedding, of length 1, of each segment 0..S-1 of an (h, w) map: (S, D) float32."""
    flat = segment_map.ravel()
    member = np.zeros((int(flat.max()) + 1, len(flat)), dtype=np.float32)
    member[flat, np.arange(len(flat))] = 1
    totals = member @ field.reshape(len(flat), -1)
    return (totals / np.maximum(np.linalg.norm(totals, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def label_grid(field: np.ndarray, clusters: Clusters, recipe: Recipe) -> np.ndarray:
    """Cluster numbers of the cells of one image's (h, w, D) embeddings: (G, h, w) int64, one layer a granularity."""
    if recipe.segments == "none":
        return clusters.assign(field.reshape(-1, field.shape[-1])).reshape(1, *field.shape[:2])
    maps = spectral(field, recipe.granularities)
    return np.stack([clusters.assign(pool(field, segment_map))[segment_map] for segment_map in maps])


def enlarge(layers: np.ndarray, size: tuple[int, int], corners: bool) -> np.ndarray:
    """(G, h, w) labels of cells to (G, *size) uint16 labels of pixels."""
    return np.stack([grid.enlarge_labels(layer, size, corners) for layer in layers])


def regions(layers: np.ndarray, field: np.ndarray) -> list[Region]:
    """Every label of every layer of (G, h, w) maps as a region, described by the (h, w, D) embeddings in it.

    A region that came out the same at an earlier granularity is left out.
    """
    found, seen = [], set()
    for layer, labels in enumerate(layers):
        for label in np.unique(labels):
            mask = labels == label
            name = (int(label), mask.tobytes())
            if name not in seen:
                seen.add(name)
                found.append(_region(layer, int(label), mask, field))
    return found


def _region(layer: int, label: int, mask: np.ndarray, field: np.ndarray) -> Region:
    total = field[mask].sum(axis=0)
    edge = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])
    return Region(
        layer=layer,
        label=label,
        area=float(mask.mean()),
        border=float(edge.mean()),
        empty_rows=float(1 - mask.any(axis=1).mean()),
        empty_columns=float(1 - mask.any(axis=0).mean()),
        descriptor=(total / max(float(np.linalg.norm(total)), 1e-12)).astype(np.float32),
    )
