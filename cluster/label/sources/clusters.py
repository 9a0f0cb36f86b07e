"""How source `clusters` is configured: segments, k-means, the nearest centroid (`fss.labelling.sources.clusters`)."""

from __future__ import annotations

from dataclasses import dataclass

import safetensors.numpy

from cluster.config import Config
from cluster.engine.manifest import Manifest
from cluster.engine.settings import picked
from cluster.label.sources.source import LabellerInputs, SourceStage
from fss.labelling import pseudo
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


def settings(config: Config) -> ClustersSettings:
    """What of the keys shapes embeddings and label maps."""
    return picked(ClustersSettings, config.source)


def recipe(chosen: ClustersSettings) -> pseudo.EmbeddingOptions:
    """How images are cut up, and what of them is clustered."""
    return picked(pseudo.EmbeddingOptions, chosen)


def _labeller(given: LabellerInputs) -> ClusterLabeller:
    return ClusterLabeller(read_clusters(given.inputs["kmeans"]), recipe(given.settings))


SOURCE = SourceStage(settings, _labeller, clusters=True, recipe=recipe)
