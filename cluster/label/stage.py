"""label: decode, backbone and the source's labels in one pass over the corpus; label maps and region descriptors.

For each corpus shard a tar of label maps (`key.0.png`, `key.1.png`, ...: one layer each; what their values are is said
by the source, `fss.labelling.sources`) and a Parquet table of regions; where masks are refined after it also the
embeddings, see `cluster.label.kept`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cluster.config import Config
from cluster.engine.stage import File, Output, Stage, StageError, Unit, Work
from cluster.features import backbone
from cluster.features.backbone import BackboneSettings
from cluster.features.feature_pass import FeaturePass, units
from cluster.label import kept, sources
from cluster.label.files import Labelled, encoded, output
from cluster.label.sources import LabellerInputs
from fss import threads
from fss.labelling import fields
from fss.labelling.sources import Block, Labeller
from fss.prefetch import ahead


@dataclass(frozen=True)
class LabelShard:
    """Labels the images of one corpus shard."""

    features: FeaturePass
    labeller: Labeller
    along: np.ndarray | None = None
    """The directions along which embeddings are kept, if they are."""

    def __call__(self, unit: Unit) -> Output:
        """`unit.payload` is the corpus shard's `File`."""
        number = self.features.threads
        with threads.pool(number, "label") as pool:
            blocks = ahead(self.label, self.features.blocks(unit.payload), pool, most=number + 1)
            every = [one for block in blocks for one in block]
        stem = unit.name.replace("part", "labels")
        made = output(stem, [labelled for labelled, _ in every])
        return made if self.along is None else kept.beside(made, stem, [one for _, one in every if one is not None])

    @torch.inference_mode()
    def label(self, block: Block) -> list[tuple[Labelled, np.ndarray | None]]:
        """Everything after the network, image by image: work for a thread beside it."""
        return [
            ((encoded(photo.key, maps), regions), None if self.along is None else fields.rounded(field, self.along))
            for photo, field, (maps, regions) in zip(block.photos, block.fields, self.labeller.maps(block), strict=True)
        ]


@dataclass(frozen=True)
class LabelSettings:
    """What shapes label maps and regions."""

    name: str
    source: Any
    """Of the source `name`."""
    backbone: BackboneSettings
    dims: int | None
    """Of the embeddings that are kept, None: none are."""


@dataclass(frozen=True)
class LabelMeans:
    """Where the source's files and the backbone's weights are, and how many images are looked at at a time."""

    source: Any
    weights: str | None
    threads: int


def _settings(config: Config) -> LabelSettings:
    source, dims = sources.chosen(config).settings(config), config.refine.dims if config.refine.on else None
    return LabelSettings(config.source.name, source, backbone.settings(config), dims)


def _means(config: Config) -> LabelMeans:
    means = sources.chosen(config).means(config)
    return LabelMeans(means, backbone.place(config), config.cluster.cpus_per_worker)


def _work(work: Work[LabelSettings, LabelMeans]) -> tuple[Sequence[File], Mapping[str, int]]:
    chosen, means, corpus = work.settings, work.means, work.inputs["shard"]
    source = sources.by_name(chosen.name)
    network = backbone.spec(chosen.backbone, means.weights, work.inputs)
    features = FeaturePass(corpus.folder, network, source.recipe(chosen.source), means.threads, source.features)
    labeller = source.labeller(LabellerInputs(chosen.source, means.source, work.inputs, network))
    parts, along, more = units(corpus), None, list[File]()
    if chosen.dims is not None:
        more, along = kept.directions(work, features, parts, chosen.dims)
    files, counts = work.map("label", LabelShard(features, labeller, along), parts)
    if not counts["regions"]:
        raise StageError(
            f"label: source.name={chosen.name} found nothing in any of {counts['images']} images; "
            "check source.maps and source.maps_kind, or choose another source"
        )
    return [*more, *files], counts


def _inputs(config: Config) -> tuple[str, ...]:
    source = sources.chosen(config)
    clusters = ("kmeans",) if source.clusters else ()
    return tuple(dict.fromkeys(("shard", *clusters, *source.inputs(config), *backbone.needed(config))))


def _check(config: Config) -> list[str]:
    return [*backbone.problems(config), *sources.chosen(config).check(config)]


STAGE = Stage(
    "label",
    _inputs,
    _settings,
    _work,
    means=_means,
    check=_check,
    size=lambda settings: {"shards": settings("shard").shards},
    version=5,
)
