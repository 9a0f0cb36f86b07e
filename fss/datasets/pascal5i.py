"""PASCAL-5i (Shaban et al. 2017): PASCAL VOC 2012 with SBD, 20 classes in four folds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fss.datasets import Dataset, DatasetKeys
from fss.datasets.parts import voc
from fss.keys import key

PASCAL_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
TRAINING_LISTS = ("ImageSets/Segmentation/trainaug.txt", "ImageSets/Segmentation/train.txt")


@dataclass
class Keys(DatasetKeys):
    """PASCAL-5i: dataset.root=VOC2012."""

    name: str = "pascal5i"
    sbd: str | None = key(None, path=True)
    """Folder of SBD's cls/*.mat for jobs.prepare; none = looked for below and beside root."""

    def options(self) -> dict[str, Any]:
        """None: SBD's files are merged beforehand."""
        return {}


def dataset(root: str, list_file: str | None = None) -> Dataset:
    """Fold i tests on classes 5i+1..5i+5. `list_file` defaults to the val list."""
    return voc.dataset(root, list_file or "ImageSets/Segmentation/val.txt", PASCAL_CLASSES)
