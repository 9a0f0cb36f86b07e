"""What the stages need to know of a source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fss.labelling import pseudo
from fss.labelling.sources import Labeller, SourceKeys

if TYPE_CHECKING:
    from cluster.engine.run import Run


def plain_recipe(source: SourceKeys) -> pseudo.Recipe:
    """The embeddings of every cell and no segments: what sources without clusters look at."""
    return pseudo.Recipe(segments="none", unit="pixels", granularities=(), levels=tuple(source.levels))


def no_facts(run: Run) -> dict[str, Any]:
    """Of a source that sees no labels."""
    return {}


@dataclass(frozen=True)
class Source:
    """How a source enters the stages."""

    labeller: Callable[[Run], Labeller]
    """What labels images; called once the stages that it reads are done."""
    settings: Callable[[Run], dict[str, Any]]
    """Plain JSON values of all that shapes its label maps, beside the backbone: of the user's files their hash."""
    clusters: bool = False
    """Whether labels are clusters of k-means: the stages sample and kmeans are run before, quality after."""
    inputs: tuple[str, ...] = ()
    """The stages that it reads beside shard, the backbone's and, with `clusters`, kmeans."""
    features: bool = False
    """Whether it looks at the backbone's levels beside the embeddings, `Block.features`."""
    recipe: Callable[[Any], pseudo.Recipe] = plain_recipe
    """Which embeddings it looks at, and what is cut in the picture."""
    facts: Callable[[Run], dict[str, Any]] = no_facts
    """What a model trained on its labels says of these classes, as `cluster.train.tasks.labelled.facts`."""
