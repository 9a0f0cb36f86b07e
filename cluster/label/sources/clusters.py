"""How source `clusters` is configured: segments, k-means, the nearest centroid (`fss.labelling.sources.clusters`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import safetensors.numpy

from cluster.engine.manifest import Manifest
from cluster.label.sources.source import Source
from fss.labelling import pseudo
from fss.labelling.segments import GRADED
from fss.labelling.sources.clusters import ClusterLabeller, Keys

if TYPE_CHECKING:
    from cluster.engine.run import Run


def read_clusters(manifest: Manifest) -> pseudo.Clusters:
    """What a finished kmeans stage found."""
    return pseudo.Clusters(**safetensors.numpy.load(manifest.path("clusters.safetensors").read_bytes()))


def recipe(source: Keys) -> pseudo.Recipe:
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


SOURCE = Source(_labeller, settings, clusters=True, recipe=recipe)
