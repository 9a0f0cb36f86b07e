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

from fss.datasets.parts import files
from fss.imaging.images import VOID
from fss.keys import key, one_of
from fss.labelling.sources import Block, Maps, Photo, SourceKeys

if TYPE_CHECKING:
    import torch

#: What files of the user's hold: saliency from 0 to 255, salient from `SALIENT` on, or class indices.
KINDS = ("saliency", "classes")
SALIENT = 128


@dataclass
class MapKeys(SourceKeys):
    """Where salient pixels come from."""

    maps: str | None = key(None, path=True)
    """Folder of maps named as the images, PNG; none = the salient side of the backbone's own normalised cut."""
    maps_kind: str = key("saliency", one_of(*KINDS), when={"maps": True})
    """What `maps` hold: `saliency` from 0 to 255, salient from 128 on, or `classes`: all but 0 and void (255)."""


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
    """Maps from files PNG named as the images, below `folder`; an image without one has nothing salient."""

    folder: Path
    kind: str = "saliency"

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

        values = files.mask_named_as(self.folder, photo.path, photo.size, "source.maps")
        mask = np.zeros(photo.size, bool) if values is None else salient(values, self.kind)
        cells = grid.sample_labels(mask.astype(np.int64), (field.shape[0], field.shape[1]), corners)
        return mask[None].astype(np.uint16), pseudo.regions(cells[None], field, first=1)


def salient(values: np.ndarray, kind: str) -> np.ndarray:
    """(H, W) bool of the integers in a map: from `SALIENT` on (saliency), or every class, not 0 and not void (classes).

    Raises:
        ValueError: for another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"expected maps of a kind of {', '.join(KINDS)}, got {kind!r}; set source.maps_kind")
    return values >= SALIENT if kind == "saliency" else (values != 0) & (values != VOID)
