"""Source `cam`: where a classifier sees what an image-level name means (weak supervision: names, no masks).

Source: A Pixel-Level Meta-Learner for Weakly Supervised Few-Shot Semantic Segmentation (Lee et al., WACV 2022), section
3.2; `fss.labelling.heatmaps` has the heat maps of Eqs. 1 to 3. A name's pixels are those inside the saliency gate
whose heat reaches a share of the largest one there; where several names claim a pixel, the hottest has it. The paper
gates by DSS, trained with masks, and does not say how a heat map becomes a mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fss.keys import POSITIVE, SHARE, key, one_of
from fss.labelling.names import ImageNames
from fss.labelling.sources import Block, Labeller, Maps, Photo
from fss.labelling.sources.saliency import MapKeys

if TYPE_CHECKING:
    import torch

WEIGHTINGS = ("softmax", "inverse_distance", "paper")
SCALES = ("each", "image")
#: Classes of less weight than this are not looked at.
_NOTHING = 1e-4


@dataclass
class Keys(MapKeys):
    """Source `cam`: where a classifier sees what an image-level name means."""

    name: str = "cam"
    maps: str | None = key(None, when={"gate": True}, path=True)
    maps_kind: str = key("saliency", one_of("saliency", "classes"), when={"gate": True, "maps": True})
    names: str | None = key(None, path=True)
    """Table of image-level names, .csv or .tsv: image, names; none = the class masks of the data set's training images
    (train.images), reduced to the names of the classes that the fold does not test."""
    words: str | None = key(None, path=True)
    """Word vectors of names and of the classifier's classes: .vec, .txt, fastText's .bin, .npz, .safetensors."""
    classifier: str = "vgg16"
    """An image classifier of torchvision."""
    classifier_weights: str | None = key(None, path=("torchvision", "random"))
    """The file of its weights, all layers, or torchvision, or random."""
    classes: str | None = key(None, path=True)
    """Names of its classes in its order, one a line; none = those of torchvision's ImageNet weights."""
    exclude: list[str] = key([])
    """Its classes that are called like these are not asked for."""
    exclude_named: bool = True
    """Nor are those called like an image-level name, or like a class of the data set that names come from."""
    weighting: str = key("softmax", one_of(*WEIGHTINGS))
    """Of its classes by word similarity: `softmax`, `inverse_distance`, or `paper` (Eq. 2 as printed)."""
    temperature: float = key(0.1, POSITIVE, when={"weighting": ("softmax",)})
    """Of the softmax."""
    scale: str = key("image", one_of(*SCALES))
    """Largest value of a class's map: 1 of `each`, or 1 of all in the `image`."""
    threshold: float = key(0.15, SHARE)
    """Share of a name's largest heat from which on a pixel belongs to it."""
    gate: bool = True
    """Whether only salient pixels do: as source=saliency finds them, `maps` included."""


@dataclass(frozen=True)
class CamLabeller:
    """Labels the pixels of an image's names, label i being `names.names[i - 1]`; an image without names has none.

    The classifier sees the image at the backbone's size.
    """

    classifier: str
    weights: str
    """Of the classifier, see `fss.labelling.heatmaps.load`."""
    names: ImageNames
    shares: np.ndarray
    """(T, N) float32: weight of every class of the classifier for every name, see `fss.labelling.heatmaps.weigh`."""
    gate: Labeller | None
    """Saliency: what it labels may belong to a name; None: everything may."""
    scale: str = "image"
    threshold: float = 0.15
    """Share of the largest heat inside the gate."""

    def maps(self, block: Block) -> list[Maps]:
        """See `fss.labelling.sources.Labeller`."""
        gates = self.gate.maps(block) if self.gate else [None] * len(block.photos)
        return [
            self._maps(photo, field, None if gate is None else gate[0][0] > 0, block.corners)
            for photo, field, gate in zip(block.photos, block.fields, gates, strict=True)
        ]

    def mask(self, photo: Photo, field: torch.Tensor, corners: bool, label: int) -> np.ndarray:
        """(H, W) uint8: 1 where the image shows what name `label` means, known to be in it; 0 elsewhere.

        Never empty: where the gate leaves nothing it does not count, and without any evidence the whole image is it.

        Args:
            photo: the image.
            field: (h, w, D) its embeddings of length 1.
            corners: the geometry of their grid.
            label: a place in `names.names`, from 1.
        """
        heat = self._heat(photo, field.device, (label,))
        gate = self.gate.maps(Block([photo], field[None], corners))[0][0][0] > 0 if self.gate else None
        for each in (gate, None):
            mask = segmented(heat, each, self.threshold)
            if mask.any():
                return mask.astype(np.uint8)
        return np.ones(photo.size, np.uint8)

    def _maps(self, photo: Photo, field: torch.Tensor, gate: np.ndarray | None, corners: bool) -> Maps:
        from fss import grid
        from fss.labelling import pseudo

        labels = self.names.labels(photo.path)
        mask = np.zeros(photo.size, np.int64)
        if labels:
            hottest = segmented(self._heat(photo, field.device, labels), gate, self.threshold)
            mask = np.array([0, *labels])[hottest]
        cells = grid.sample_labels(mask, (field.shape[0], field.shape[1]), corners)
        return mask[None].astype(np.uint16), pseudo.regions(cells[None], field, first=1)

    def _heat(self, photo: Photo, device: torch.device, labels: tuple[int, ...]) -> np.ndarray:
        """(len(labels), H, W) float32 heat in [0, 1] of the image's names."""
        import torch

        from fss import grid
        from fss.labelling import heatmaps

        classifier = heatmaps.load(self.classifier, self.weights).to(device)
        shares = self.shares[[label - 1 for label in labels]]
        asked = np.flatnonzero((shares > _NOTHING).any(axis=0))
        maps = classifier.maps(photo.tensor[None].to(device), asked.tolist())
        heat = heatmaps.heat(maps, torch.from_numpy(shares[:, asked]).to(maps), self.scale)
        return grid.enlarge(heat, photo.size, classifier.corners)[0].cpu().numpy()


def segmented(heat: np.ndarray, gate: np.ndarray | None, threshold: float) -> np.ndarray:
    """Which name each pixel belongs to: (H, W) int64, 0 none, else 1 + its place.

    Args:
        heat: (T, H, W), no less than 0.
        gate: (H, W) bool, or None.
        threshold: share of a name's largest heat inside the gate that a pixel needs, in (0, 1].
    """
    inside = heat if gate is None else heat * gate
    needed = threshold * inside.max(axis=(1, 2), keepdims=True)
    claimed = np.where((inside >= needed) & (inside > 0), inside, 0)
    return np.where(claimed.max(axis=0) > 0, claimed.argmax(axis=0) + 1, 0)
