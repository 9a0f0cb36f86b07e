"""Keys of refined masks."""

from __future__ import annotations

from dataclasses import dataclass

from fss.keys import at_least, key, one_of
from fss.labelling.refine import Keys

METHODS = ("none", "consensus")


@dataclass
class RefineConfig(Keys):
    """Masks of whole things, found anew after label from the embeddings of each group of shards (pair.group_shards)."""

    name: str = key("none", one_of(*METHODS))
    """`none` = tasks are paired from label's regions, `consensus` = from refined ones, see fss.labelling.refine."""
    dims: int = key(256, at_least(1))
    """Dimensions of the embeddings that label keeps for it, a byte each for every cell of every image."""

    @property
    def on(self) -> bool:
        """Whether masks are refined."""
        return self.name != "none"

    @property
    def labels(self) -> str:
        """The stage whose label maps are paired."""
        return "refine" if self.on else "label"
