"""Sources of pseudo-labels by name: how each enters the stages.

A source is a module of `fss.labelling.sources`. One that needs nothing but its keys has a function `labeller(keys)`
there and nothing here. One that reads other stages or the user's files has a module of that name here, with a `SOURCE`.
"""

from __future__ import annotations

import copy
import importlib

from cluster.config import Config
from cluster.label.sources.source import LabellerInputs, SourceStage
from fss import choices

__all__ = ["LabellerInputs", "SourceStage", "by_name", "chosen", "without_clusters"]

PACKAGE = "fss.labelling.sources"


def by_name(name: str) -> SourceStage:
    """The source of that name.

    Raises:
        ValueError: if there is none.
    """
    module = choices.load(PACKAGE, name)
    if name in choices.names(__name__):
        source: SourceStage = importlib.import_module(f"{__name__}.{name}").SOURCE
        return source
    return SourceStage(lambda config: copy.deepcopy(config.source), lambda given: module.labeller(given.settings))


def chosen(config: Config) -> SourceStage:
    """The source that `source.name` names."""
    return by_name(config.source.name)


def without_clusters(config: Config, stage: str) -> list[str]:
    """Why `stage`, which is about clusters, cannot be run where the source has none; nothing where it has some."""
    if chosen(config).clusters:
        return []
    having = " or ".join(name for name in choices.names(PACKAGE) if by_name(name).clusters)
    return [
        f"{stage}: expected a source with clusters, source.name={having}, got {config.source.name}, "
        "which labels images without clustering; run jobs.label or jobs.pipeline"
    ]
