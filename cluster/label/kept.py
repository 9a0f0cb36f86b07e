"""Embeddings that label keeps for refine: one array a shard, `labels-SHARD.fields.npy`, in a few dimensions.

Which dimensions is found first, on some images of one shard, which is a uniform sample of the corpus: `directions.npy`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cluster.engine import publish
from cluster.engine.stage import File, Output, Unit, Work, read_array
from cluster.features.feature_pass import FeaturePass
from fss.labelling import fields

DIRECTIONS = "directions.npy"
FIELDS = ".fields.npy"
#: Images that directions are found on, and embeddings of each.
_IMAGES, _CELLS = 64, 64


@dataclass(frozen=True)
class SeekDirections:
    """The directions that hold most of the embeddings of the first images of a shard."""

    features: FeaturePass
    dims: int

    def __call__(self, unit: Unit) -> Output:
        """`unit.payload` is the corpus shard's `File`."""
        each = (field for block in self.features.blocks(unit.payload) for field in block.fields.flatten(1, 2).cpu())
        rows = [_some(field.numpy()) for field in itertools.islice(each, _IMAGES)]
        along = fields.directions(np.concatenate(rows), self.dims)
        return Output({DIRECTIONS: publish.npy(along)}, counts={"images": len(rows)})


def _some(rows: np.ndarray) -> np.ndarray:
    return rows[:: max(1, len(rows) // _CELLS)]


def directions(
    work: Work[Any, Any], features: FeaturePass, files: Sequence[Unit], dims: int
) -> tuple[list[File], np.ndarray]:
    """The file of the directions that embeddings of these shards are kept along, and what is in it."""
    first = next((unit.payload for unit in files if unit.payload.count), files[0].payload)
    made, _ = work.map("directions", SeekDirections(features, dims), [Unit("directions", first)], parts="samples")
    return made, read_array(work.folder, made[0])


def beside(made: Output, stem: str, kept: Sequence[np.ndarray]) -> Output:
    """What label made of a shard with the (h, w, k) int8 embeddings of its images, one array (N, h, w, k)."""
    name, values = f"{stem}{FIELDS}", np.stack(kept) if kept else np.zeros((0, 1, 1, 1), np.int8)
    return replace(made, files={**made.files, name: publish.npy(values)}, samples={**made.samples, name: len(values)})
