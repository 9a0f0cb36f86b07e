"""FSS-1000's layout: CLASS/1.jpg .. CLASS/10.jpg, each with its mask CLASS/1.png .. CLASS/10.png."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fss.datasets import Dataset, DatasetKeys, void_of
from fss.datasets.parts import files
from fss.imaging import masks
from fss.keys import key, one_of

#: Classes of each split.
SPLITS = {"train": 520, "val": 240, "test": 240}
IMAGES_PER_CLASS = 10
CLASSES_OF_LIST = True
_PHOTOS = frozenset({".jpg", ".jpeg"})


@dataclass
class Keys(DatasetKeys):
    """FSS-1000: dataset.root=FOLDER of class folders."""

    name: str = "fss1000"
    split: str | None = key(None, one_of(*SPLITS), when={"list": False})
    """train, val or test, cut from the classes in alphabetical order; none = test."""


def dataset(root: str, list_file: str | None = None, split: str | None = None) -> Dataset:
    """FSS-1000, one fold of all classes of `list_file` (one a line; HSNet ships trn.txt, val.txt, test.txt), in order.

    Without a list, `split` (default test) is cut from the 1000 classes in alphabetical order. That is not the split
    of the paper, which has no rule: figures on it do not compare with published ones.

    Raises:
        ValueError: for an unknown split, a list and a split, a class without images, or not 1000 classes to split.
    """
    base = Path(root)
    if list_file and split:
        raise ValueError(
            f"expected dataset.list or dataset.split, got both; the list {list_file} already says which classes"
        )
    classes = files.distinct(files.read_list(base, list_file)) if list_file else _alphabetical(base, split or "test")
    number = {name: i for i, name in enumerate(classes, 1)}
    void = void_of(classes)

    def photo(name: str) -> Path:
        return base / f"{name}{suffixes[name]}"

    def mask(name: str) -> np.ndarray:
        path = base / f"{name}.png"
        shown = files.upright_mask(files.by_name(path, masks.bright), photo(name), path)
        return files.narrow(shown * np.int32(number[name.rpartition("/")[0]]))

    suffixes = {f"{folder}/{stem}": suffix for folder in classes for stem, suffix in _photos(base / folder)}

    return Dataset(
        names=tuple(suffixes),
        class_names=classes,
        folds=(tuple(number.values()),),
        path=photo,
        read_mask=mask,
        void=void,
        mask_path=lambda name: base / f"{name}.png",
    )


def training(root: str, images: str | None, split: str | None = None) -> Dataset:
    """The classes of a list, or else of the split train."""
    return dataset(root, images, None if images else "train")


def _alphabetical(base: Path, split: str) -> tuple[str, ...]:
    if split not in SPLITS:
        raise ValueError(f"dataset.split: expected {', '.join(SPLITS)}, got {split!r}")
    folders = sorted(p.name for p in base.iterdir() if (p / "1.jpg").is_file()) if base.is_dir() else []
    if len(folders) != sum(SPLITS.values()):
        raise ValueError(
            f"expected {sum(SPLITS.values())} class folders with 1.jpg to 10.jpg in {base}, got {len(folders)}; check "
            "dataset.root, or name the classes to take in dataset.list=FILE, one a line"
        )
    start = {"train": 0, "val": SPLITS["train"], "test": SPLITS["train"] + SPLITS["val"]}[split]
    return tuple(folders[start : start + SPLITS[split]])


def _photos(folder: Path) -> list[tuple[str, str]]:
    """(stem, extension) of the photos with a mask, in the order of their numbers."""
    photos = (path for path in sorted(folder.glob("[!.]*")) if path.suffix.lower() in _PHOTOS)
    suffixes = {path.stem: path.suffix for path in photos if _mask_of(path).is_file()}
    if not suffixes:
        raise ValueError(f"expected images 1.jpg and masks 1.png in {folder}; check dataset.root and dataset.list")
    return sorted(suffixes.items(), key=lambda item: (int(item[0]) if item[0].isdecimal() else 10**9, item[0]))


def _mask_of(photo: Path) -> Path:
    return photo.with_suffix(".png")
