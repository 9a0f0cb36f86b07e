"""How source `clusters` is configured: segments, k-means, the nearest centroid (`fss.labelling.sources.clusters`)."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import safetensors.numpy

from cluster.config.data import SourceConfig
from cluster.engine.manifest import Manifest
from cluster.label.sources.source import Source
from fss.labelling import pseudo
from fss.labelling.segments import GRADED
from fss.labelling.sources.clusters import ClusterLabeller

if TYPE_CHECKING:
    from cluster.engine.run import Run


def read_clusters(manifest: Manifest) -> pseudo.Clusters:
    """What a finished kmeans stage found."""
    return pseudo.Clusters(**safetensors.numpy.load(manifest.path("clusters.safetensors").read_bytes()))


def recipe(source: SourceConfig) -> pseudo.Recipe:
    """How images are cut up, and what of them is clustered."""
    return pseudo.Recipe(
        segments=source.segments,
        unit=source.unit,
        granularities=tuple(source.granularities),
        levels=tuple(source.levels),
        points_per_image=source.points_per_image,
    )


def settings(run: Run) -> dict[str, Any]:
    """What of the source shapes embeddings and label maps."""
    source = run.config.source
    chosen: dict[str, Any] = {"segments": source.segments, "unit": source.unit, "levels": list(source.levels)}
    if source.segments in GRADED:
        chosen["granularities"] = list(source.granularities)
    return chosen


def _labeller(run: Run) -> ClusterLabeller:
    return ClusterLabeller(read_clusters(run.manifest("kmeans")), recipe(run.config.source))


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


SOURCE = Source(_labeller, settings, clusters=True, recipe=recipe, problems=_problems)
