"""sample: a few embeddings of every image of some corpus shards, for k-means. Dense features are never stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cluster.config import Config
from cluster.engine import publish
from cluster.engine.stage import File, Output, Stage, Unit, Work
from cluster.features import backbone
from cluster.features.backbone import BackboneSettings
from cluster.features.feature_pass import FeaturePass, units
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
        embeddings = np.concatenate(rows) if rows else np.zeros((0, 1), np.float32)
        name = f"{unit.name}.npy"
        points = sum(len(r) for r in rows)
        return Output({name: publish.npy(embeddings)}, {name: points}, {"images": len(rows), "points": points})

    def _rows(self, block: Block) -> list[np.ndarray]:
        generators = [rng.numpy_rng(self.seed, "sample", photo.key) for photo in block.photos]
        return pseudo.embeddings(block.fields, block.cut, self.features.recipe, generators, block.corners)


@dataclass(frozen=True)
class SampleSettings:
    """What shapes the embeddings that are kept."""

    seed: int
    shards: int | None
    """Corpus shards that are looked at, None: all."""
    points_per_image: int
    backbone: BackboneSettings
    name: str
    source: Any
    """Of the source `name`."""


@dataclass(frozen=True)
class SampleMeans:
    """Where the backbone's weights are, and how many images are looked at at a time."""

    weights: str | None
    threads: int


def _settings(config: Config) -> SampleSettings:
    source = config.source
    return SampleSettings(
        seed=config.seed,
        shards=source.shards,
        points_per_image=source.points_per_image,
        backbone=backbone.settings(config),
        name=source.name,
        source=sources.chosen(config).settings(config),
    )


def _work(work: Work[SampleSettings, SampleMeans]) -> tuple[Sequence[File], Mapping[str, int]]:
    chosen, corpus = work.settings, work.inputs["shard"]
    recipe = sources.by_name(chosen.name).recipe(chosen.source)
    recipe = replace(recipe, points_per_image=chosen.points_per_image)
    network = backbone.spec(chosen.backbone, work.means.weights, work.inputs)
    function = SampleShard(FeaturePass(corpus.folder, network, recipe, work.means.threads), chosen.seed)
    return work.map("sample", function, units(corpus)[: chosen.shards])


def _check(config: Config) -> list[str]:
    return sources.without_clusters(config, "sample") or backbone.problems(config)


STAGE = Stage(
    "sample",
    lambda config: ("shard", *backbone.needed(config)),
    _settings,
    _work,
    means=lambda config: SampleMeans(backbone.place(config), config.cluster.cpus_per_worker),
    check=_check,
    size=lambda settings: {"shards": len(range(settings("shard").shards)[: settings("sample").shards])},
    version=4,
)
