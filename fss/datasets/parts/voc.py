"""PASCAL VOC's layout: JPEGImages/NAME.jpg, SegmentationClassAug/NAME.png, ImageSets/Segmentation/*.txt."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from fss.datasets import Dataset
from fss.datasets.parts import files

#: VOC's masks merged with those of SBD, which are preferred, and VOC's own.
MASK_FOLDERS = ("SegmentationClassAug", "SegmentationClass")
IMAGES = "JPEGImages"


def dataset(root: str, list_file: str, class_names: tuple[str, ...]) -> Dataset:
    """The images of a list, in four equal folds of the classes.

    Raises:
        ValueError: if the folders or the list are not there.
    """
    base = Path(root)
    photos = base / IMAGES
    masks = next((base / folder for folder in MASK_FOLDERS if (base / folder).is_dir()), None)
    if masks is None or not photos.is_dir():
        raise ValueError(f"expected {IMAGES} and {' or '.join(MASK_FOLDERS)} in {root}; check dataset.root")
    return Dataset(
        names=files.distinct(_name(photos, line) for line in files.read_list(base, list_file)),
        class_names=class_names,
        folds=files.equal_folds(len(class_names), 4),
        path=lambda name: files.image_file(photos, name),
        read_mask=lambda name: _mask(files.image_file(photos, name), masks / f"{name}.png"),
        mask_path=lambda name: masks / f"{name}.png",
    )


def _mask(photo: Path, mask: Path) -> np.ndarray:
    return files.upright_mask(files.read_mask(mask), photo, mask)


def _name(photos: Path, line: str) -> str:
    """The image that a line names in its first column: as VOC does (NAME), PFENet (JPEGImages/NAME.jpg), or HSNet
    (NAME__CLASS). Folders below JPEGImages belong to the name.
    """
    parts = line.split(maxsplit=1)[0].replace("\\", "/").split("/")
    for folder in (IMAGES, *MASK_FOLDERS):
        if folder in parts:
            parts = parts[len(parts) - parts[::-1].index(folder) :]
    name = files.without_suffix("/".join(parts))
    with_class = re.fullmatch(r"(.+)__\d+", name)
    return with_class[1] if with_class and not files.image_file(photos, name).is_file() else name
