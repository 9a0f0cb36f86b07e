"""Source `clusters`: every segment, or pixel, has the cluster that its embedding is nearest to."""

from __future__ import annotations

from dataclasses import dataclass

from fss.labelling import pseudo
from fss.labelling.sources import Block, Maps


@dataclass(frozen=True)
class ClusterLabeller:
    """Labels by the nearest of `clusters`, segments as the recipe cuts them."""

    clusters: pseudo.Clusters
    recipe: pseudo.Recipe

    def maps(self, block: Block) -> list[Maps]:
        """See `fss.labelling.sources.Labeller`; labels are cluster numbers, from 0."""
        found = pseudo.label_maps(block.fields, block.cut, self.clusters, self.recipe, block.corners)
        return [
            (pseudo.enlarge(layers, photo.size, self.recipe, block.corners), pseudo.regions(cells, field))
            for photo, (layers, cells), field in zip(block.photos, found, block.fields, strict=True)
        ]
