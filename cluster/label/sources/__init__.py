"""Sources of pseudo-labels by name: how each enters the stages.

A source is a module of `fss.labelling.sources`. One that needs nothing but its keys has a function `labeller(keys)`
there and nothing here. One that reads other stages or the user's files has a module of that name here, with a `SOURCE`.
"""

from __future__ import annotations

import dataclasses
import importlib

from cluster.config import Config
from cluster.label.sources.source import Source
from fss import choices

PACKAGE = "fss.labelling.sources"


def by_name(name: str) -> Source:
    """The source of that name.

    Raises:
        ValueError: if there is none.
    """
    module = choices.load(PACKAGE, name)
    if name in choices.names(__name__):
        return importlib.import_module(f"{__name__}.{name}").SOURCE
    return Source(
        labeller=lambda run: module.labeller(run.config.source),
        settings=lambda run: {"source": name, **dataclasses.asdict(run.config.source)},
    )


def chosen(config: Config) -> Source:
    """The source that `source.name` names."""
    return by_name(config.source.name)


def with_clusters(config: Config, what: str) -> None:
    """Refuse `what`, a stage that is about clusters, where the source has none.

    Raises:
        ValueError: naming the sources that have some.
    """
    if not chosen(config).clusters:
        having = " or ".join(name for name in choices.names(PACKAGE) if by_name(name).clusters)
        raise ValueError(
            f"{what}: expected a source with clusters, source.name={having}, got {config.source.name}, "
            "which labels images without clustering; run jobs.label or jobs.pipeline"
        )
