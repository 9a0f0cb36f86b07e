"""Sources of pseudo-labels by name: how each enters the stages. A new one is a module here, one in
`fss.labelling.sources` for what it computes, and a line in `SOURCES`.
"""

from __future__ import annotations

from cluster.config import Config
from cluster.label.sources import cam, clusters, mining, saliency
from cluster.label.sources.source import Given, Source

__all__ = ["SOURCES", "Given", "Source", "chosen", "without_clusters"]

SOURCES: dict[str, Source] = {
    "clusters": clusters.SOURCE,
    "saliency": saliency.SOURCE,
    "cam": cam.SOURCE,
    "mining": mining.SOURCE,
}


def chosen(config: Config) -> Source:
    """The source that `source.name` names."""
    return SOURCES[config.source.name]


def without_clusters(config: Config, stage: str) -> list[str]:
    """Why `stage`, which is about clusters, cannot be run where the source has none; nothing where it has some."""
    if chosen(config).clusters:
        return []
    having = " or ".join(name for name, one in SOURCES.items() if one.clusters)
    return [
        f"{stage}: expected a source with clusters, source.name={having}, got {config.source.name}, "
        "which labels images without clustering; run jobs.label or jobs.pipeline"
    ]
