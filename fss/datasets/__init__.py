"""Labelled image sets for evaluation, by name, each read from the layout that users have on disk."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable

import numpy as np
from PIL import Image

from fss import shards
from fss.images import VOID


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images and index masks by name: 0 is background, 1..C are `class_names` in order, 255 is void.

    `folds[i]` holds the class ids that fold i tests on.
    """

    names: tuple[str, ...]
    class_names: tuple[str, ...]
    folds: tuple[tuple[int, ...], ...]
    read_image: Callable[[str], Image.Image]
    read_mask: Callable[[str], np.ndarray]
    read_bytes: Callable[[str], bytes] | None = None
    """An image's file."""
    void: int = VOID
    """Index of void in the masks."""

    def image(self, name: str) -> Image.Image:
        """RGB image `name` at its own size."""
        return self.read_image(name)

    def key(self, name: str) -> str:
        """Hex sha256 of the image's bytes, of its pixels if there is no file: the same image under whatever name."""
        return shards.sha256(self.read_bytes(name) if self.read_bytes else self.read_image(name).tobytes())

    def mask(self, name: str) -> np.ndarray:
        """(H, W) int32 class indices of image `name`."""
        return self.read_mask(name)

    def binary_mask(self, name: str, class_id: int) -> np.ndarray:
        """(H, W) uint8: 1 where the image shows `class_id`, 255 where void, 0 elsewhere."""
        mask = self.mask(name)
        return np.where(mask == VOID, VOID, mask == class_id).astype(np.uint8)


def areas(dataset: Dataset, name: str) -> dict[int, int]:
    """Pixels of each class in image `name`, background and void left out.

    Raises:
        ValueError: if the mask holds an index that is no class, or does not fit its image.
    """
    mask = dataset.mask(name)
    size = dataset.image(name).size
    if mask.shape != (size[1], size[0]):
        raise ValueError(f"{name}: expected a mask of {size[0]}x{size[1]} like its image, got {mask.shape[::-1]}")
    values, counts = np.unique(mask, return_counts=True)
    unknown = [int(v) for v in values if v > len(dataset.class_names) and v != VOID]
    if unknown:
        raise ValueError(
            f"{name}: expected class indices 0..{len(dataset.class_names)} and {VOID}, got {unknown[:5]}; "
            "is it a mask of another data set, or a colour image?"
        )
    return {int(v): int(n) for v, n in zip(values, counts, strict=True) if v not in (0, VOID)}


def open_dataset(name: str, root: str, list_file: str | None = None) -> Dataset:
    """Open data set `name` (`pascal5i`, `scenes`) below `root`, its images named by `list_file`, one a line.

    Raises:
        ValueError: for an unknown name, a folder that is not there, or a list that is empty.
    """
    from fss.datasets import voc

    openers = {"pascal5i": voc.pascal5i, "scenes": voc.scenes}
    if name not in openers:
        near = difflib.get_close_matches(name, openers, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"expected a dataset of {', '.join(sorted(openers))}, got {name!r}{hint}")
    return openers[name](root, list_file)
