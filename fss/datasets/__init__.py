"""Labelled image sets, by name, each read from the layout that users have on disk.

A set is found by the name of its module here, which has

* `Keys`, its settings with their checks, a `DatasetKeys`;
* `dataset(root, list_file=None, **own) -> Dataset`, the images that are measured on; `own` are its settings;
* where it brings training images, `TRAINING_LISTS`, names of lists of which the first that is there is taken, or
  `training(root, images, **own) -> Dataset`, those of the list `images`, or its own;
* `CLASSES_OF_LIST = True` where another list means other classes.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from fss import choices, shards
from fss.datasets.parts import files
from fss.imaging.images import VOID
from fss.keys import at_least, key

#: Index that means void where 255 is a class.
WIDE_VOID = 65535


@dataclasses.dataclass
class DatasetKeys:
    """The labelled images that models are measured on. Each data set adds keys of its own."""

    name: str = "pascal5i"
    """A data set, by the name of its module here."""
    root: str | None = key(None, path=True)
    """Folder of the data set."""
    list: str | None = None
    """Text file below root, or any path: an image a line (fss1000: a class); none = the set's own."""
    min_area: int = key(2048, at_least(0))
    """Pixels that a class must cover in an image, at the mask's own resolution, to make an episode (2 x 32 x 32)."""

    @property
    def rendered(self) -> bool:
        """Whether this run renders the images, before it measures on them."""
        return False

    def options(self) -> dict[str, Any]:
        """The set's own settings, as `open_dataset` takes them beside name, root and list."""
        shared = {field.name for field in dataclasses.fields(DatasetKeys)}
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in shared}


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images and index masks by name: 0 is background, 1..C are `class_names` in order, `void` belongs to nothing.

    `folds[i]` holds the class ids that fold i tests on.
    """

    names: tuple[str, ...]
    class_names: tuple[str, ...]
    folds: tuple[tuple[int, ...], ...]
    path: Callable[[str], Path]
    """Where an image lies."""
    read_mask: Callable[[str], np.ndarray]
    void: int = VOID
    mask_path: Callable[[str], Path] | None = None
    """The file that a mask is read from, perhaps with others."""
    read_support: Callable[[str, int], np.ndarray] | None = None
    """What an episode shows of a class in a support image, as `binary_mask`; None: the mask itself."""

    def image(self, name: str) -> Image.Image:
        """RGB image `name` at its own size."""
        return files.read_image(self.path(name))

    def image_size(self, name: str) -> tuple[int, int]:
        """(width, height) of image `name`, from its header."""
        return files.read_size(self.path(name))

    def key(self, name: str) -> str:
        """Hex sha256 of the image's file: the same image under whatever name."""
        return shards.sha256(files.read_bytes(self.path(name), "an image"))

    def mask(self, name: str) -> np.ndarray:
        """(H, W) uint8 or uint16 class indices of image `name`, on its upright picture."""
        return self.read_mask(name)

    def binary_mask(self, name: str, class_id: int) -> np.ndarray:
        """(H, W) uint8: 1 where the image shows `class_id`, 255 where void, 0 elsewhere."""
        mask = self.mask(name)
        return np.where(mask == self.void, VOID, mask == class_id).astype(np.uint8)

    def support_mask(self, name: str, class_id: int) -> np.ndarray:
        """(H, W) uint8 as `binary_mask`: what models are shown of `class_id` where the image is a support."""
        return (self.read_support or self.binary_mask)(name, class_id)


def void_of(class_names: tuple[str, ...]) -> int:
    """The index that means void beside these classes: 255, or 65535 where 255 is one of them."""
    return VOID if len(class_names) < VOID else WIDE_VOID


def areas(dataset: Dataset, name: str) -> dict[int, int]:
    """Pixels of each class in image `name`, background and void left out.

    Raises:
        ValueError: if the mask holds an index that is no class, or does not fit its image.
    """
    mask = dataset.mask(name)
    size = dataset.image_size(name)
    if mask.shape != (size[1], size[0]):
        raise ValueError(f"{name}: expected a mask of {size[0]}x{size[1]} like its image, got {mask.shape[::-1]}")
    values, counts = np.unique(mask, return_counts=True)
    unknown = [int(v) for v in values if v > len(dataset.class_names) and v != dataset.void]
    if unknown:
        raise ValueError(
            f"{name}: expected class indices 0..{len(dataset.class_names)} and {dataset.void}, got {unknown[:5]}; "
            "write void as 255 (65535 with more than 254 classes); numbers of objects, colours and other data sets"
            " are no classes"
        )
    return {int(v): int(n) for v, n in zip(values, counts, strict=True) if v not in (0, dataset.void)}


def open_dataset(name: str, root: str, list_file: str | None = None, **options: Any) -> Dataset:
    """Open data set `name` below `root`, its images named by `list_file`, one a line, or by what the set itself says.

    `options` are the set's own, see `DatasetKeys.options`; None means its default.

    Raises:
        ValueError: for an unknown name or option, a folder that is not there, or a list that is empty.
    """
    module = _module(name)
    return module.dataset(root, list_file, **_given(module, name, options))


def open_training(
    name: str, root: str, images: str | None, fold: int, tested: str | None = None, **options: Any
) -> tuple[Dataset, tuple[int, ...]]:
    """Labelled images of data set `name` that a model may be trained on, and the classes that `fold` does not test.

    `images` is their list; None is the set's own. `tested` is the list that is measured on, where other classes would
    follow from another one; `options` as `open_dataset` takes them.

    Raises:
        ValueError: if there is no list, no such fold, or no class is left.
    """
    module = _module(name)
    own = _given(module, name, options)
    dataset = _training(module, name, root, images, own)
    measured = module.dataset(root, tested, **own) if getattr(module, "CLASSES_OF_LIST", False) else dataset
    names = {measured.class_names[c - 1] for c in _fold(measured, name, fold)}
    left = tuple(c for c, called in enumerate(dataset.class_names, 1) if called not in names)
    if not left:
        remedy = "set dataset.num_folds" if "num_folds" in _options(module) else "give other images as train.images"
        raise ValueError(
            f"expected classes that fold {fold} of {name} does not test, it tests all {len(dataset.class_names)}; "
            f"{remedy}"
        )
    return dataset, left


def _module(name: str) -> ModuleType:
    try:
        return choices.load("fss.datasets", name)
    except ValueError as error:
        raise ValueError(f"dataset.name: {error}") from error


def _given(module: ModuleType, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options that are set."""
    given = {key: value for key, value in options.items() if value is not None}
    taken = _options(module)
    wrong = sorted(set(given) - set(taken))
    if wrong:
        named = ", ".join(f"dataset.{key}" for key in taken) or "no setting of its own"
        raise ValueError(f"dataset.{wrong[0]}: expected it unset, {name} takes {named}; got {given[wrong[0]]!r}")
    return given


def _options(module: ModuleType) -> list[str]:
    """The settings of its own that a data set takes."""
    return list(inspect.signature(module.dataset).parameters)[2:]


def _training(module: ModuleType, name: str, root: str, images: str | None, own: dict[str, Any]) -> Dataset:
    if hasattr(module, "training"):
        return module.training(root, images, **own)
    lists = getattr(module, "TRAINING_LISTS", ())
    chosen = images or next((one for one in lists if (Path(root) / one).is_file()), None)
    if chosen is None:
        known = f" at {' or '.join(str(Path(root) / one) for one in lists)}" if lists else ""
        raise ValueError(f"expected a list of {name}'s training images{known}; set train.images=FILE")
    return module.dataset(root, chosen, **own)


def _fold(dataset: Dataset, name: str, fold: int) -> tuple[int, ...]:
    if not 0 <= fold < len(dataset.folds):
        raise ValueError(f"fold: {name} has the folds 0..{len(dataset.folds) - 1}, got {fold}")
    return dataset.folds[fold]
