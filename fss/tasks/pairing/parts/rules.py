"""The rules that all pairings share: which regions make tasks, and how many."""

from __future__ import annotations

import dataclasses

from fss.keys import FROM_ZERO, SHARE, SHARE_OR_NONE, at_least, key, one_of, ranged

#: How tasks are shared out: every image the same number, or every cluster.
BALANCES = ("images", "clusters")
#: How the nearest share of a cluster is found, see `fss.tasks.pairing.parts.partners`.
SIMILARITIES = ("exact", "sampled")
#: The rules that say which regions may be used at all.
USABLE = ("min_area", "max_area", "max_border", "empty_lines")


@dataclasses.dataclass
class Rules:
    """How regions become few-shot tasks. Each pairing adds keys of its own."""

    pairing: str = "cross_image"
    """`cross_image` = regions of one cluster, `mask_split` = the two halves of a region."""
    tasks_per_image: int = key(4, at_least(1))
    """Tasks that each image is the query of, on average where clusters are balanced."""
    shots: int = key(1, at_least(1))
    """Supports of a task."""
    balance: str = key("images", one_of(*BALANCES))
    """What gets equal shares of the tasks: `images`, each `tasks_per_image`, or `clusters`, of equally many in all."""
    inside: float | None = key(None, SHARE_OR_NONE, when={"balance": ("images",)})
    """Share of an image's tasks whose query is a region of a layer above the first: of refined masks those that lie
    inside of them; none = all its regions alike."""
    min_area: float = 0.03
    """Least share of the image that a region covers."""
    max_area: float = 0.7
    """Largest share of the image that a region covers."""
    max_border: float = 0.5
    """A region that holds more than this share of the image's border counts as background."""
    empty_lines: float = 0.01
    """A region that leaves fewer than this share of rows, or of columns, empty counts as background."""
    keep_clusters: float = key(1.0, SHARE)
    """Share of a group's clusters that are kept: those whose regions hold least of the border on average."""
    layers: list[int] | None = None
    """Granularities whose regions are used, by their number; none = all."""
    group_shards: int = key(8, at_least(1))
    """Corpus shards that are paired together; a group is held in memory by one worker."""
    tasks_per_shard: int = key(256, at_least(1))
    """Tasks of a shard that is written."""

    def problems(self) -> list[str]:
        """What does not go together."""
        wrong = []
        if self.layers is not None and not (self.layers and min(self.layers) >= 0):
            wrong.append(f"layers: expected numbers from 0, or null for all layers, got {self.layers}")
        if not 0 <= self.min_area < self.max_area <= 1:
            wrong.append(f"min_area: expected 0 <= min_area < max_area <= 1, got {self.min_area}, {self.max_area}")
        return wrong


@dataclasses.dataclass
class AcrossImages(Rules):
    """Which regions of a cluster may support a query."""

    distractors: int = key(0, FROM_ZERO)
    """Further supports of a task that do not show the thing: images without any region of its cluster."""
    nearest: float = key(0.5, SHARE)
    """Share of a cluster's regions, the most similar ones, that may support a query (UMTFSS: top 50 %)."""
    similarity: str = key("exact", one_of(*SIMILARITIES))
    """How that share is found: `exact`, or `sampled` = its limit is estimated."""
    sample: int = key(1000, at_least(1), when={"similarity": ("sampled",)})
    """Regions of a cluster from which the limit is estimated."""
    same_image: float = key(0.0, ranged("a probability in [0, 1]", lambda value: 0 <= value <= 1))
    """Probability that the support is the query's own region, to be seen in another view: a sure match."""
    repeats: int | None = key(None, at_least(1))
    """How often the same two regions of different images may be query and support, in a group; none = any number."""
    same_layer: bool = False
    """Whether query and support must be of the same granularity."""
