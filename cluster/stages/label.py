"""label: decode, backbone, segments, nearest centroid in one pass over the corpus; label maps and region descriptors.

For each corpus shard a tar of label maps (`key.0.png`, `key.1.png`, ...: one layer a granularity, values are cluster
numbers) and a Parquet table of regions.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from cluster import backbone, publish
from cluster.backbone import BackboneSpec
from cluster.run import Run
from cluster.stage import File, Output, Stage, Unit, map_units
from cluster.stages.kmeans import read_clusters
from cluster.stages.sample import embedded, recipe, recipe_settings, units
from fss import images, pseudo, shards


@dataclass(frozen=True)
class LabelShard:
    """Labels the images of one corpus shard."""

    corpus: Path
    spec: BackboneSpec
    recipe: pseudo.Recipe
    clusters: pseudo.Clusters

    def __call__(self, unit: Unit) -> Output:
        """`unit.payload` is the corpus shard's `File`."""
        samples: list[shards.Sample] = []
        rows: list[tuple[str, pseudo.Region]] = []
        for key, members, features in embedded(self.corpus, unit.payload, self.spec):
            field = pseudo.tokens(features, self.recipe.levels)
            layers = pseudo.label_grid(field, self.clusters, self.recipe)
            maps = pseudo.enlarge(layers, _size(members["jpg"]), self.spec.load().backbone.corners)
            samples.append((key, {f"{layer}.png": images.encode_png(_narrow(m)) for layer, m in enumerate(maps)}))
            rows += [(key, region) for region in pseudo.regions(layers, field)]
        stem = unit.name.replace("part", "labels")
        files = {f"{stem}.tar": shards.pack(samples), f"{stem}.regions.parquet": _table(rows)}
        counts = {f"{stem}.tar": len(samples), f"{stem}.regions.parquet": len(rows)}
        return Output(files, counts, {"images": len(samples), "regions": len(rows)})


def _size(jpeg: bytes) -> tuple[int, int]:
    width, height = Image.open(io.BytesIO(jpeg), formats=("JPEG",)).size
    return height, width


def _narrow(labels: np.ndarray) -> np.ndarray:
    return labels.astype(np.uint8) if labels.max(initial=0) < 256 else labels


def _table(rows: Sequence[tuple[str, pseudo.Region]]) -> bytes:
    dimensions = len(rows[0][1].descriptor) if rows else 1
    descriptors = np.stack([r.descriptor for _, r in rows]) if rows else np.zeros((0, 1), np.float32)
    flat = pa.array(descriptors.astype(np.float16).ravel(), pa.float16())
    columns = {
        "key": pa.array([key for key, _ in rows], pa.string()),
        "layer": pa.array([r.layer for _, r in rows], pa.int16()),
        "label": pa.array([r.label for _, r in rows], pa.int32()),
        "area": pa.array([r.area for _, r in rows], pa.float32()),
        "border": pa.array([r.border for _, r in rows], pa.float32()),
        "empty_rows": pa.array([r.empty_rows for _, r in rows], pa.float32()),
        "empty_columns": pa.array([r.empty_columns for _, r in rows], pa.float32()),
        "descriptor": pa.FixedSizeListArray.from_arrays(flat, dimensions),
    }
    return publish.parquet(pa.table(columns))


def _work(run: Run, folder: Path) -> tuple[Sequence[File], Mapping[str, int]]:
    corpus = run.manifest("shard")
    function = LabelShard(corpus.folder, backbone.spec(run), recipe(run), read_clusters(run.manifest("kmeans")))
    every = units(corpus)
    return map_units(run, folder, "label", function, every, total=len(every))


def _settings(run: Run) -> dict[str, Any]:
    return {"backbone": backbone.settings(run), **recipe_settings(run)}


STAGE = Stage("label", lambda run: ("shard", "kmeans", *backbone.needed(run)), _settings, _work)
