"""The rules of pairing: which regions make tasks, and how many."""

from __future__ import annotations

import dataclasses

#: How tasks are shared out: every image the same number, or every cluster.
BALANCES = ("images", "clusters")
#: How the nearest share of a cluster is found, see `fss.tasks.pairing.partners`.
SIMILARITIES = ("exact", "sampled")
#: What tasks are made of: regions of several images, or the halves of one region.
PAIRINGS = ("cross_image", "mask_split")
#: How a region is split: by an upright line, a lying one, or either, as likely.
SPLITS = ("vertical", "horizontal", "mixed")


@dataclasses.dataclass
class Split:
    """How regions are split in two."""

    kind: str = "vertical"
    """`vertical` = by an upright line that halves the region (Vsplit), `horizontal` = a lying one, `mixed` = either."""
    slope: float = 0.1
    """Largest shift of the line's two ends in opposite directions, share of the side they lie on; 0 = no slope."""
    alternate: bool = True
    """Whether either half may be the support's; otherwise always the right or the lower one."""
    probability: float = 1.0
    """Share of the tasks that are split; the others see the whole region in both views."""
    min_area: float = 0.0032
    """Smallest share of the image that each half must cover (2 x 16 x 16 of 400 x 400 pixels)."""
    ignore_support: bool = True
    """Whether what is not the query's half of the region is void in the query's mask, not background."""
    ignore_query: bool = False
    """The same of the support's mask."""


@dataclasses.dataclass
class Rules:
    """Which regions make tasks, and how many."""

    pairing: str = "cross_image"
    """`cross_image` = regions of one cluster, `mask_split` = the two halves of a region, see `split`."""
    split: Split = dataclasses.field(default_factory=Split)
    """How regions are split (pairing=mask_split); what is about partners below then has no meaning."""
    tasks_per_image: int = 4
    shots: int = 1
    distractors: int = 0
    """Further supports of a task that do not show the thing: images without any region of its cluster."""
    nearest: float = 0.5
    """Share of a cluster's regions, the most similar ones, that may support a query (UMTFSS: top 50 %)."""
    similarity: str = "exact"
    """How that share is found: `exact`, or `sampled` = its limit is estimated, see `fss.tasks.pairing.partners`."""
    sample: int = 1000
    """Regions of a cluster from which the limit is estimated (similarity=sampled)."""
    same_image: float = 0.0
    """Probability that the support is the query's own region, to be seen in another view: a sure match."""
    balance: str = "images"
    """What gets equal shares of the tasks: `images`, each `tasks_per_image`, or `clusters`, of equally many in all."""
    repeats: int | None = None
    """How often the same two regions of different images may be query and support, in a group; none = any number."""
    min_area: float = 0.03
    max_area: float = 0.7
    """Allowed share of the image that a region covers."""
    max_border: float = 0.5
    """A region that holds more than this share of the image's border counts as background."""
    empty_lines: float = 0.01
    """A region that leaves fewer than this share of rows, or of columns, empty counts as background."""
    keep_clusters: float = 1.0
    """Share of a group's clusters that are kept: those whose regions hold least of the border on average."""
    layers: list[int] | None = None
    """Granularities whose regions are used, by their number; none = all."""
    same_layer: bool = False
    """Whether query and support must be of the same granularity."""
