"""Label maps and regions of refined masks: the masks by their clusters, and the segments inside of them by theirs.

Labels count from 1, and 0 is nothing: 1..K are clusters of masks, K + 1..2 K of segments inside of masks.

Letters: G images, L granularities, h x w grid, D dimensions, K clusters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fss import rng
from fss.clustering import kmeans
from fss.labelling.pseudo import Region, centred, pool, regions
from fss.labelling.refine import Keys
from fss.labelling.segments import agglomerate

Maps = tuple[np.ndarray, list[Region]]

#: Of k-means, at most.
_ITERATIONS = 30
#: Members that a cluster has on average, at least: one alone makes no task.
_MEMBERS = 4


def layers(masks: Sequence[np.ndarray | None], fields: Sequence[torch.Tensor], keys: Keys, *, seed: int) -> list[Maps]:
    """Label maps of each image of a group, (1 + L, h, w) int64, and their regions.

    Layer 0 is the mask, each further one the segments of a granularity of which enough lies inside. The clusters depend
    on the order of the images; `seed` is of their starts.

    Args:
        masks: (h, w) bool at the cells of each image; None where there is none.
        fields: (h, w, D) embeddings of length 1.
        keys: clusters and granularities.
    """
    whole = [_numbered_mask(mask, field) for mask, field in zip(masks, fields, strict=True)]
    parts = [_segments(mask, field, keys) for mask, field in zip(masks, fields, strict=True)]
    whole = _named(whole, fields, keys.clusters, rng.mix(seed, "masks"))
    parts = _named(parts, fields, keys.clusters, rng.mix(seed, "segments"))
    cells = [
        np.concatenate([mask, np.where(part > 0, part + keys.clusters, 0)])
        for mask, part in zip(whole, parts, strict=True)
    ]
    return [(maps, regions(maps, field, first=1)) for maps, field in zip(cells, fields, strict=True)]


def _numbered_mask(mask: np.ndarray | None, field: torch.Tensor) -> np.ndarray:
    """(1, h, w) int64: 1 in the mask, if there is one."""
    return np.zeros((1, *field.shape[:2]), np.int64) if mask is None else mask[None].astype(np.int64)


def _segments(mask: np.ndarray | None, field: torch.Tensor, keys: Keys) -> np.ndarray:
    """(L, h, w) int64: numbers from 1 of the segments of which `keys.inside` lies in the mask, 0 elsewhere."""
    if mask is None or not keys.granularities:
        return np.zeros((len(keys.granularities), *field.shape[:2]), np.int64)
    maps = agglomerate(field[None].float(), keys.granularities)[0].numpy()
    kept = []
    for labels in maps:
        inside = np.bincount(labels.ravel(), mask.ravel()) / np.bincount(labels.ravel())
        good = inside >= keys.inside
        kept.append(np.where(good, good.cumsum(), 0)[labels])
    return np.stack(kept)


def _named(maps: Sequence[np.ndarray], fields: Sequence[torch.Tensor], clusters: int, seed: int) -> list[np.ndarray]:
    """The maps with the cluster, from 1, of each number's mean embedding in its place; 0 stays."""
    if not any(each.any() for each in maps):
        return list(maps)
    rows = [pool(field.float(), torch.from_numpy(each)).cpu().numpy() for each, field in zip(maps, fields, strict=True)]
    numbers = [[np.arange(layer.max() + 1) for layer in each] for each in maps]
    thing = np.concatenate([layer > 0 for each in numbers for layer in each])
    names = np.zeros(len(thing), np.int64)
    names[thing] = 1 + _clusters(np.concatenate(rows)[thing], clusters, seed)
    ends = iter(np.split(names, np.cumsum([len(layer) for each in numbers for layer in each])[:-1]))
    return [np.stack([next(ends)[layer] for layer in each]) for each in maps]


def _clusters(rows: np.ndarray, number: int, seed: int) -> np.ndarray:
    """Clusters 0..number-1, or fewer where there are few different rows, of (R, D) embeddings: (R,) int64."""
    if not len(rows):
        return np.zeros(0, np.int64)
    points = centred(rows, rows.mean(axis=0, dtype=np.float64).astype(np.float32))
    number = min(number, max(len(np.unique(points, axis=0)) // _MEMBERS, 1))
    centroids, _ = kmeans.fit(points, number, seed=seed, iterations=_ITERATIONS, spherical=True)
    return kmeans.assign(points, centroids)[0]
