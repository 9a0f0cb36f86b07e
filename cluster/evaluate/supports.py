"""Supports that bring only the name of their class (protocol.supports=names): masks made of names, shown to the models.

The weak supervision of Lee et al. (WACV 2022, section 3.1 and Figure 4): at test time a support has an image-level name
and what source `cam` makes of it. The query keeps its true mask, which the answer is measured by.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from cluster.engine.stage import Output, Unit
from cluster.evaluate import measure
from cluster.features.backbone import BackboneSpec
from fss.datasets import Dataset
from fss.imaging import images
from fss.imaging.images import VOID
from fss.labelling import pseudo
from fss.labelling.sources import Photo
from fss.labelling.sources.cam import CamLabeller

#: Where a stage keeps the masks, below its folder.
FOLDER = "supports"


@dataclass(frozen=True)
class MaskSupports:
    """Makes masks of names, and counts how they overlap with the true ones, which shape nothing."""

    data: measure.DataSpec
    spec: BackboneSpec
    cache: measure.Cache
    labeller: CamLabeller
    levels: tuple[str, ...]
    """Of the backbone, see `fss.labelling.sources.SourceKeys`."""

    @torch.inference_mode()
    def __call__(self, unit: Unit) -> Output:
        """`unit.payload` is a tuple of (name, class id)."""
        dataset, written, overlap = self.data.open(), {}, np.zeros(2, np.int64)
        for name, class_id in unit.payload:
            mask = self._mask(dataset, name, class_id)
            overlap += _overlap(mask, dataset.binary_mask(name, class_id))
            written[f"{FOLDER}/{measure.support_path(name, class_id)}"] = images.encode_png(mask)
        intersection, union = map(int, overlap)
        counts = {"supports": len(written), "intersection": intersection, "union": union}
        return Output(written, dict.fromkeys(written, 1), counts)

    def _mask(self, dataset: Dataset, name: str, class_id: int) -> np.ndarray:
        source = measure.photos(self.data, self.spec, self.cache)
        features = {level: value[None].to(source.device).float() for level, value in source.features(name).items()}
        field = pseudo.tokens(features, self.levels)[0]
        picture = dataset.image(name)
        tensor = self.spec.load().input(picture)
        photo = Photo(name, tensor, picture.size[::-1], path=dataset.path(name).name)
        return self.labeller.mask(photo, field, source.corners, class_id)


def _overlap(mask: np.ndarray, truth: np.ndarray) -> tuple[int, int]:
    known, shown, true = truth != VOID, mask == 1, truth == 1
    return int((shown & true & known).sum()), int(((shown | true) & known).sum())
