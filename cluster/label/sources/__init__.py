"""Sources of pseudo-labels by name: how each enters the stages. A new one is a module here, one in
`fss.labelling.sources` for what it computes, and a line in `SOURCES`.
"""

from __future__ import annotations

from cluster.config import Config
from cluster.label.sources import cam, clusters, mining, saliency
from cluster.label.sources.source import Source

SOURCES: dict[str, Source] = {
    "clusters": clusters.SOURCE,
    "saliency": saliency.SOURCE,
    "cam": cam.SOURCE,
    "mining": mining.SOURCE,
}


def chosen(config: Config) -> Source:
    """The source that `source.name` names."""
    return SOURCES[config.source.name]


def with_clusters(config: Config, what: str) -> None:
    """Refuse `what`, a stage that is about clusters, where the source has none.

    Raises:
        ValueError: naming the sources that have some.
    """
    if not chosen(config).clusters:
        having = " or ".join(name for name, one in SOURCES.items() if one.clusters)
        raise ValueError(
            f"{what}: expected a source with clusters, source.name={having}, got {config.source.name}, "
            "which labels images without clustering; run jobs.label or jobs.pipeline"
        )
