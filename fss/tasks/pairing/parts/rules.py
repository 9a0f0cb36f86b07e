"""The rules that all pairings share: which regions make tasks, and how many."""

from __future__ import annotations

import dataclasses

from fss.keys import SHARE, SHARE_OR_NONE, at_least, key, one_of

#: How tasks are shared out: every image the same number, or every cluster.
BALANCES = ("images", "clusters")
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
