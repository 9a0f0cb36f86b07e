"""COCO-20i: COCO's 80 classes in four folds, by either convention of the field."""

from __future__ import annotations

from dataclasses import dataclass

from fss.datasets import Dataset, DatasetKeys
from fss.datasets.parts import coco
from fss.keys import key, one_of


@dataclass
class Keys(DatasetKeys):
    """COCO-20i: dataset.root=FOLDER with val2014 (or val2017) and annotations."""

    name: str = "coco20i"
    folds: str = key("interleaved", one_of(*coco.FOLDS))
    """Classes of each fold: interleaved (FWB, HSNet, PFENet) or consecutive (PANet)."""
    year: int | None = key(None, one_of(*coco.YEARS))
    """2014 or 2017; none = whichever is there."""


def dataset(root: str, list_file: str | None = None, folds: str = "interleaved", year: int | None = None) -> Dataset:
    """80 classes in id order, in four folds of `coco.fold_classes(folds)`. Names are val2014/STEM and the like.

    `list_file` defaults to the val images of `year` that have a mask. Masks are the PNGs of `coco.mask_folder`; where a
    part has none, they are drawn from its instances JSON, see `instances.paint`.

    Raises:
        ValueError: if images or masks are not there, both years are and none is chosen, or a choice is unknown.
    """
    return coco.dataset(root, "val", list_file, folds, year)


def training(root: str, images: str | None, folds: str = "interleaved", year: int | None = None) -> Dataset:
    """As `dataset`; without a list all train images of `year` that have a mask."""
    return coco.dataset(root, "train", images, folds, year)
