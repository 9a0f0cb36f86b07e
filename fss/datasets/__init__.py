"""Labelled image sets for evaluation, by name, each read from the layout that users have on disk."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from fss import shards
from fss.datasets import files
from fss.imaging.images import VOID

#: Index that means void where 255 is a class.
WIDE_VOID = 65535


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
            "is it a mask of another data set, or a colour image?"
        )
    return {int(v): int(n) for v, n in zip(values, counts, strict=True) if v not in (0, dataset.void)}


def open_dataset(name: str, root: str, list_file: str | None = None, **options: str | int | None) -> Dataset:
    """Open data set `name` below `root`, its images named by `list_file`, one a line, or by what the set itself says.

    `options` are those of the opener: `folds` and `year` (coco20i), `split` (fss1000), `num_folds` (folder). None
    means the opener's default.

    Raises:
        ValueError: for an unknown name or option, a folder that is not there, or a list that is empty.
    """
    from fss.datasets import coco, folder, fss1000, voc

    openers: dict[str, Callable[..., Dataset]] = {
        "coco20i": coco.coco20i,
        "folder": folder.folder,
        "fss1000": fss1000.fss1000,
        "pascal5i": voc.pascal5i,
        "scenes": voc.scenes,
    }
    if name not in openers:
        near = difflib.get_close_matches(name, openers, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"expected a dataset of {', '.join(sorted(openers))}, got {name!r}{hint}")
    given = {key: value for key, value in options.items() if value is not None}
    taken = list(inspect.signature(openers[name]).parameters)[2:]
    wrong = sorted(set(given) - set(taken))
    if wrong:
        named = ", ".join(f"dataset.{key}" for key in taken) or "no setting of its own"
        raise ValueError(f"dataset.{wrong[0]}: expected it unset, {name} takes {named}; got {given[wrong[0]]!r}")
    return openers[name](root, list_file, **given)
