"""How source `clusters` is configured: segments, k-means, the nearest centroid (`fss.labelling.sources.clusters`)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import safetensors.numpy

from cluster.config import Config
from cluster.config.data import SourceConfig
from cluster.engine.manifest import Manifest
from cluster.engine.settings import picked
from cluster.label.sources.source import Given, Source
from fss.labelling import pseudo
from fss.labelling.segments import GRADED
from fss.labelling.sources.clusters import ClusterLabeller


def read_clusters(manifest: Manifest) -> pseudo.Clusters:
    """What a finished kmeans stage found."""
    return pseudo.Clusters(**safetensors.numpy.load(manifest.path("clusters.safetensors").read_bytes()))


@dataclass(frozen=True)
class ClustersSettings:
    """What of the source shapes embeddings and label maps, beside the centroids."""

    segments: str
    unit: str
    levels: tuple[str, ...]
    granularities: tuple[int, ...]
    """Of segments that have some."""


def settings(config: Config) -> ClustersSettings:
    """What of the keys shapes embeddings and label maps."""
    graded = config.source.segments in GRADED
    return picked(ClustersSettings, config.source, **({} if graded else {"granularities": ()}))


def recipe(chosen: ClustersSettings) -> pseudo.Recipe:
    """How images are cut up, and what of them is clustered."""
    return picked(pseudo.Recipe, chosen)


def _labeller(given: Given) -> ClusterLabeller:
    return ClusterLabeller(read_clusters(given.inputs["kmeans"]), recipe(given.settings))


def _problems(source: SourceConfig) -> list[str]:
    found = []
    if source.segments == "spectral":
        found.append("source.segments=spectral is called ncut now: set source.segments=ncut")
    if source.segments == "none" and source.unit != "pixels":
        found.append(
            f"source.unit: expected pixels with source.segments=none, which has nothing to pool, got {source.unit}; "
            "set source.unit=pixels, or source=pixels for both"
        )
    if not source.granularities or len(set(source.granularities)) != len(source.granularities):
        found.append(
            f"source.granularities: expected different numbers of segments, got {list(source.granularities)}; "
            "set for example source.granularities=[3,5,8]"
        )
    levels = [*source.hierarchy, source.clusters]
    if any(above >= below for below, above in itertools.pairwise(levels)):
        found.append(
            "source.hierarchy: expected falling numbers of clusters, all above "
            f"source.clusters={source.clusters}, got {list(source.hierarchy)}"
        )
    if not 0 <= source.tolerance < 1:
        found.append(f"source.tolerance: expected a share in [0, 1), got {source.tolerance}")
    return found


SOURCE = Source(settings, _labeller, clusters=True, recipe=recipe, problems=_problems)
