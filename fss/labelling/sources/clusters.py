"""Source `clusters`: every segment, or pixel, has the cluster that its embedding is nearest to."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fss.keys import at_least, key, one_of, ranged
from fss.labelling.sources import Block, Maps, SourceKeys

if TYPE_CHECKING:
    from fss.labelling import pseudo

#: How images are cut up, see `fss.labelling.segments`; the last ones have granularities.
SEGMENTS = ("none", "superpixel", "agglomerate", "ncut")
GRADED = ("agglomerate", "ncut")


@dataclass
class Keys(SourceKeys):
    """Source `clusters`: segments, k-means over them, the nearest centroid."""

    name: str = "clusters"
    clusters: int = key(40, at_least(1))
    """Classes that k-means finds."""
    segments: str = key("ncut", one_of(*SEGMENTS))
    """How images are cut up: `ncut` = normalised cut, `agglomerate` = neighbouring tokens merged, `superpixel` =
    Felzenszwalb's at pixel resolution, `none` = every pixel for itself."""
    unit: str = key("segments", one_of("segments", "pixels"))
    """What is clustered: mean embeddings of `segments`, or `pixels`, whose clusters then vote in each segment."""
    granularities: list[int] = key([3, 5, 8], at_least(1), when={"segments": GRADED})
    """Segments an image at each granularity."""
    points_per_image: int = key(64, at_least(1), when={"unit": ("pixels",)})
    """Pixel embeddings kept of each image for k-means."""
    shards: int | None = key(None, at_least(1))
    """Corpus shards that are sampled for k-means; none = all."""
    iterations: int = key(30, at_least(1))
    """Of k-means, at most."""
    init: str = key("k-means++", one_of("k-means++", "random"))
    """Where k-means starts."""
    spherical: bool = True
    """Whether centroids have length 1, so that embeddings are compared by cosine."""
    restarts: int = key(1, at_least(1))
    """k-means runs from as many starts; the one with the lowest inertia is kept."""
    tolerance: float = key(1e-5, ranged("a share in [0, 1)", lambda value: 0 <= value < 1))
    """A k-means run ends once an iteration lowers the inertia by no more than this share."""
    hierarchy: list[int] = key([])
    """Numbers of clusters of the levels below `clusters`, the finest first: [30000, 5000] with clusters=500."""

    def problems(self) -> list[str]:
        """What does not go together."""
        wrong = super().problems()
        if self.segments == "none" and self.unit != "pixels":
            wrong.append(
                f"unit: expected pixels with source.segments=none, which has nothing to pool, got {self.unit}; "
                "set source.unit=pixels, or source=pixels for both"
            )
        if not self.granularities or len(set(self.granularities)) != len(self.granularities):
            wrong.append(
                f"granularities: expected different numbers of segments, got {list(self.granularities)}; "
                "set for example source.granularities=[3,5,8]"
            )
        levels = [*self.hierarchy, self.clusters]
        if any(above >= below for below, above in itertools.pairwise(levels)):
            wrong.append(
                "hierarchy: expected falling numbers of clusters, all above "
                f"source.clusters={self.clusters}, got {list(self.hierarchy)}; set for example source.hierarchy=[]"
            )
        return wrong


@dataclass(frozen=True)
class ClusterLabeller:
    """Labels by the nearest of `clusters`, segments as the recipe cuts them."""

    clusters: pseudo.Clusters
    recipe: pseudo.EmbeddingOptions

    def maps(self, block: Block) -> list[Maps]:
        """See `fss.labelling.sources.Labeller`; labels are cluster numbers, from 0."""
        from fss.labelling import pseudo

        labelled = pseudo.label_maps(block.fields, block.cut, self.clusters, self.recipe, block.corners)
        return [
            (pseudo.enlarge(layers, photo.size, self.recipe, block.corners), pseudo.regions(cells, field))
            for photo, (layers, cells), field in zip(block.photos, labelled, block.fields, strict=True)
        ]
