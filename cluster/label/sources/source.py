"""What the stages need to know of a source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.config import Config
from cluster.engine.manifest import Manifest
from cluster.features.backbone import BackboneSpec
from fss.labelling import pseudo
from fss.labelling.sources import Labeller


@dataclass(frozen=True)
class LabellerInputs:
    """What a labeller is made of: the source's settings and means, the stages that it reads, the backbone."""

    settings: Any
    means: Any
    inputs: Mapping[str, Manifest]
    backbone: BackboneSpec


def plain_recipe(settings: Any) -> pseudo.EmbeddingOptions:
    """The embeddings of every cell and no segments: what sources without clusters look at."""
    return pseudo.EmbeddingOptions(segments="none", unit="pixels", granularities=(), levels=tuple(settings.levels))


def nothing(config: Config) -> tuple[()]:
    """Of a source that needs no other stage, or with which nothing can be wrong."""
    return ()


def no_means(config: Config) -> None:
    """Of a source that reads no files of the user's."""


@dataclass(frozen=True)
class SourceStage:
    """How a source enters the stages."""

    settings: Callable[[Config], Any]
    """A dataclass of plain JSON values: all that shapes its label maps, beside the backbone, of the user's files their
    hash. It has `levels`, and `names` if the source sees image-level names."""
    labeller: Callable[[LabellerInputs], Labeller]
    """What labels images."""
    means: Callable[[Config], Any] = no_means
    """Where the user's files are."""
    check: Callable[[Config], Sequence[str]] = nothing
    """What is wrong with the user's files, a sentence each."""
    clusters: bool = False
    """Whether labels are clusters of k-means: the stages sample and kmeans are run before, quality after."""
    inputs: Callable[[Config], tuple[str, ...]] = nothing
    """The stages that it reads beside shard, the backbone's and, with `clusters`, kmeans."""
    features: bool = False
    """Whether it looks at the backbone's levels beside the embeddings, `Block.features`."""
    named: bool = False
    """Whether it sees image-level names, of which a model that is trained on its labels must tell."""
    recipe: Callable[[Any], pseudo.EmbeddingOptions] = plain_recipe
    """Which embeddings it looks at, and what is cut in the picture."""
