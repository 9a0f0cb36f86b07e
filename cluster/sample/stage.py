"""sample: a few embeddings of every image of some corpus shards, for k-means. Dense features are never stored."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster.engine.run import Run
from cluster.engine.stage import File, Manifest, Output, Stage, Unit, map_units
from cluster.features import backbone
from cluster.features.feature_pass import FeaturePass
from cluster.label import sources
from fss import rng
from fss.labelling import pseudo
from fss.labelling.sources import Block


@dataclass(frozen=True)
class SampleShard:
    """Embeds one corpus shard and keeps the rows that k-means will see."""

    features: FeaturePass
    seed: int

    def __call__(self, unit: Unit) -> Output:
        """`unit.payload` is the corpus shard's `File`."""
        rows = [row for block in self.features.blocks(unit.payload) for row in self._rows(block)]
        buffer = io.BytesIO()
        np.save(buffer, np.concatenate(rows) if rows else np.zeros((0, 1), np.float32), allow_pickle=False)
        name = f"{unit.name}.npy"
        points = sum(len(r) for r in rows)
        return Output({name: buffer.getvalue()}, {name: points}, {"images": len(rows), "points": points})

    def _rows(self, block: Block) -> list[np.ndarray]:
        generators = [rng.numpy_rng(self.seed, "sample", photo.key) for photo in block.photos]
        return pseudo.embeddings(block.fields, block.cut, self.features.recipe, generators, block.corners)


def feature_pass(run: Run) -> FeaturePass:
    """The pass over the corpus that this run's settings ask for."""
    source, batch = sources.chosen(run.config), run.config.cluster.images_per_batch
    recipe = source.recipe(run.config.source)
    return FeaturePass(run.manifest("shard").folder, backbone.spec(run), recipe, batch, source.features)


def units(corpus: Manifest) -> list[Unit]:
    """One unit for every corpus shard."""
    return [Unit(Path(file.path).stem.replace("corpus", "part"), file) for file in corpus.named(".tar")]


def _settings(run: Run) -> dict[str, Any]:
    source = run.config.source
    settings = {"seed": run.config.seed, "shards": source.shards, "backbone": backbone.settings(run)}
    settings |= sources.chosen(run.config).settings(run)
    if source.unit == "pixels":
        return settings | {"points_per_image": source.points_per_image}
    return settings


def _work(run: Run, folder: Path) -> tuple[Sequence[File], Mapping[str, int]]:
    chosen = units(run.manifest("shard"))[: run.config.source.shards]
    function = SampleShard(feature_pass(run), run.config.seed)
    return map_units(run, folder, "sample", function, chosen, total=len(chosen))


def _inputs(run: Run) -> tuple[str, ...]:
    sources.with_clusters(run.config, "sample")
    return ("shard", *backbone.needed(run))


STAGE = Stage("sample", _inputs, _settings, _work, version=3)
