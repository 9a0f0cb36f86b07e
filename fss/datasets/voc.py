"""PASCAL VOC's layout: JPEGImages/NAME.jpg, SegmentationClassAug/NAME.png, ImageSets/Segmentation/*.txt."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
from PIL import Image

from fss import images
from fss.datasets import Dataset

PASCAL_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_MASK_FOLDERS = ("SegmentationClassAug", "SegmentationClass")


def pascal5i(root: str, list_file: str | None = None) -> Dataset:
    """PASCAL-5i (Shaban et al. 2017): fold i tests on classes 5i+1..5i+5. `list_file` defaults to the val list."""
    return _open(root, list_file or "ImageSets/Segmentation/val.txt", PASCAL_CLASSES, num_folds=4)


def scenes(root: str, list_file: str | None = None) -> Dataset:
    """The embedded corpus (`fss.scenes`) in the same layout; its classes stand in classes.json, in four equal folds."""
    names = Path(root) / "classes.json"
    if not names.is_file():
        raise ValueError(f"expected {names}, written by the render stage; check dataset.root={root}")
    return _open(root, list_file or "ImageSets/val.txt", tuple(json.loads(names.read_text())), num_folds=4)


def _open(root: str, list_file: str, class_names: tuple[str, ...], num_folds: int) -> Dataset:
    base = Path(root)
    masks = next((base / folder for folder in _MASK_FOLDERS if (base / folder).is_dir()), None)
    if masks is None or not (base / "JPEGImages").is_dir():
        raise ValueError(f"expected JPEGImages and {' or '.join(_MASK_FOLDERS)} in {root}; check dataset.root")
    names = _read_list(base, list_file)
    size = len(class_names) // num_folds
    folds = tuple(tuple(range(size * i + 1, size * (i + 1) + 1)) for i in range(num_folds))
    return Dataset(
        names=names,
        class_names=class_names,
        folds=folds,
        read_image=functools.partial(_read_image, base / "JPEGImages"),
        read_bytes=lambda name: (base / "JPEGImages" / f"{name}.jpg").read_bytes(),
        read_mask=functools.partial(_read_mask, masks),
    )


def _read_list(base: Path, list_file: str) -> tuple[str, ...]:
    path = next((p for p in (Path(list_file), base / list_file) if p.is_file()), None)
    if path is None:
        raise ValueError(
            f"expected a list file of image names at {list_file} or {base / list_file}; check dataset.list"
        )
    names = tuple(Path(line.split()[0]).stem for line in path.read_text().splitlines() if line.strip())
    if not names:
        raise ValueError(f"expected image names in {path}, one a line, got an empty file")
    return names


def _read_image(folder: Path, name: str) -> Image.Image:
    return images.decode((folder / f"{name}.jpg").read_bytes())


def _read_mask(folder: Path, name: str) -> np.ndarray:
    return images.decode_labels((folder / f"{name}.png").read_bytes())
