"""Source `saliency`: one layer, 1 where something is salient (MaskSplit, Amac et al. 2022, section 3.2).

The maps are the frozen backbone's own, which no training is needed for, or files of the user's (the paper takes those
of a network trained on the output of DeepUSPS). To pairing across images the label is a single cluster: everything
salient then counts as one class.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fss.datasets.parts.named import NamedMasks
from fss.imaging.images import VOID
from fss.keys import key, one_of
from fss.labelling.sources import Block, Maps, Photo, SourceKeys

if TYPE_CHECKING:
    import torch

#: What files of the user's hold: saliency from black to white, or class indices.
KINDS = ("saliency", "classes")


@dataclass
class MapKeys(SourceKeys):
    """Where salient pixels come from."""

    maps: str | None = key(None, path=True)
    """Folder of maps named as the images; none = the salient side of the backbone's own normalised cut."""
    maps_kind: str = key("saliency", one_of(*KINDS), when={"maps": True})
    """What `maps` hold: `saliency`, whose brighter half is salient, or `classes`: all but 0 and void (255)."""


@dataclass
class Keys(MapKeys):
    """Source `saliency`: the salient part of every image."""

    name: str = "saliency"


@dataclass(frozen=True)
class SaliencyLabeller:
    """Maps of the normalised cut of the embeddings, as `fss.clustering.saliency.cut` makes them."""

    def maps(self, block: Block) -> list[Maps]:
        """See `fss.labelling.sources.Labeller`."""
        return [_cut(photo, field, block.corners) for photo, field in zip(block.photos, block.fields, strict=True)]


def _cut(photo: Photo, field: torch.Tensor, corners: bool) -> Maps:
    import torch

    from fss import grid
    from fss.clustering.saliency import side
    from fss.labelling import pseudo, segments

    margin = side(segments.second_vector(field.flatten(0, 1).cpu().numpy()).reshape(field.shape[:2]))
    pixels = grid.enlarge(torch.from_numpy(margin)[None, None], photo.size, corners)[0].numpy() > 0
    return pixels.astype(np.uint16), pseudo.regions((margin > 0)[None].astype(np.int64), field, first=1)


@dataclass(frozen=True)
class MapReader:
    """Maps from files named as the images, below `folder`; an image without one has nothing salient.

    `version` stands for what is in the folder.
    """

    folder: Path
    version: str
    kind: str = "saliency"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"expected maps of a kind of {', '.join(KINDS)}, got {self.kind!r}; set source.maps_kind")

    def maps(self, block: Block) -> list[Maps]:
        """See `fss.labelling.sources.Labeller`.

        Raises:
            ValueError: for a damaged map, or one of another shape than its image.
        """
        return [
            self._maps(photo, field, block.corners) for photo, field in zip(block.photos, block.fields, strict=True)
        ]

    def _maps(self, photo: Photo, field: torch.Tensor, corners: bool) -> Maps:
        from fss import grid
        from fss.labelling import pseudo

        mask = self._salient(photo)
        cells = grid.sample_labels(mask.astype(np.int64), (field.shape[0], field.shape[1]), corners)
        return mask[None].astype(np.uint16), pseudo.regions(cells[None], field, first=1)

    def _salient(self, photo: Photo) -> np.ndarray:
        """(H, W) bool: the brighter half of a map (saliency), or every class, not 0 and not void (classes)."""
        named = NamedMasks(self.folder, self.version, "source.maps", None if self.kind == "saliency" else ())
        values = named.read(photo.path, photo.size)
        return np.zeros(photo.size, bool) if values is None else (values != 0) & (values != VOID)
