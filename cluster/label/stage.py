"""label: decode, backbone and the source's labels in one pass over the corpus; label maps and region descriptors.

For each corpus shard a tar of label maps (`key.0.png`, `key.1.png`, ...: one layer each; what their values are is said
by the source, `fss.labelling.sources`) and a Parquet table of regions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from cluster.config import Config
from cluster.engine import publish
from cluster.engine.stage import File, Output, Stage, StageError, Unit, Work
from cluster.features import backbone
from cluster.features.backbone import BackboneSettings
from cluster.features.feature_pass import FeaturePass, units
from cluster.label import sources
from cluster.label.sources import LabellerInputs
from fss import shards
from fss.imaging import images
from fss.labelling import pseudo
from fss.labelling.sources import Block, Labeller, Photo
from fss.prefetch import ahead

Labelled = tuple[shards.Sample, Sequence[pseudo.Region]]


@dataclass(frozen=True)
class LabelShard:
    """Labels the images of one corpus shard."""

    features: FeaturePass
    labeller: Labeller

    def __call__(self, unit: Unit) -> Output:
        """`unit.payload` is the corpus shard's `File`."""
        with ThreadPoolExecutor(torch.get_num_threads(), "label") as threads:
            blocks = ahead(self.label, self.features.blocks(unit.payload), threads, most=torch.get_num_threads() + 1)
            found = [labelled for block in blocks for labelled in block]
        samples: list[shards.Sample] = [sample for sample, _ in found]
        rows = [(key, region) for (key, _), regions in found for region in regions]
        stem = unit.name.replace("part", "labels")
        files = {f"{stem}.tar": shards.pack(samples), f"{stem}.regions.parquet": _table(rows)}
        counts = {f"{stem}.tar": len(samples), f"{stem}.regions.parquet": len(rows)}
        return Output(files, counts, {"images": len(samples), "regions": len(rows)})

    @torch.inference_mode()
    def label(self, block: Block) -> list[Labelled]:
        """Everything after the network, image by image: work for a thread beside it."""
        found = self.labeller.maps(block)
        return [(encoded(photo, maps), regions) for photo, (maps, regions) in zip(block.photos, found, strict=True)]


def encoded(photo: Photo, maps: np.ndarray) -> shards.Sample:
    """An image's (G, H, W) label maps as files, one a layer."""
    return photo.key, {f"{number}.png": images.encode_png(_narrow(each)) for number, each in enumerate(maps)}


def _narrow(labels: np.ndarray) -> np.ndarray:
    return labels.astype(np.uint8 if labels.max(initial=0) < 256 else np.uint16)


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


@dataclass(frozen=True)
class LabelSettings:
    """What shapes label maps and regions."""

    name: str
    source: Any
    """Of the source `name`."""
    backbone: BackboneSettings


@dataclass(frozen=True)
class LabelMeans:
    """Where the source's files and the backbone's weights are, and how many images a GPU takes at a time."""

    source: Any
    weights: str | None
    batch: int


def _settings(config: Config) -> LabelSettings:
    return LabelSettings(config.source.name, sources.chosen(config).settings(config), backbone.settings(config))


def _means(config: Config) -> LabelMeans:
    means = sources.chosen(config).means(config)
    return LabelMeans(means, backbone.place(config), config.cluster.images_per_batch)


def _work(work: Work[LabelSettings, LabelMeans]) -> tuple[Sequence[File], Mapping[str, int]]:
    chosen, means, corpus = work.settings, work.means, work.inputs["shard"]
    source = sources.by_name(chosen.name)
    network = backbone.spec(chosen.backbone, means.weights, work.inputs)
    features = FeaturePass(corpus.folder, network, source.recipe(chosen.source), means.batch, source.features)
    labeller = source.labeller(LabellerInputs(chosen.source, means.source, work.inputs, network))
    files, counts = work.map("label", LabelShard(features, labeller), units(corpus))
    if not counts["regions"]:
        raise StageError(
            f"label: source.name={chosen.name} found nothing in any of {counts['images']} images; "
            "check source.maps and source.maps_kind, or choose another source"
        )
    return files, counts


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
    version=4,
)
