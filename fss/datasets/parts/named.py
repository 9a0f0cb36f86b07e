"""Masks of a corpus: files that are called like its images, in a folder of the user's."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from fss.datasets.parts import files, numbering
from fss.imaging import masks


@dataclass(frozen=True)
class NamedMasks:
    """Masks below `folder`, called like their images, as a labelled folder's (`files.photo_names`).

    A process lists the folder once for each `version`, which stands for what is in it. Errors name the setting `key`.
    """

    folder: Path
    version: str
    key: str
    names: tuple[str, ...] | None
    """Of classes 1, 2, ..., or () if nobody knows; None: masks from black to white, whose brighter half is 1."""

    def read(self, image: str, size: tuple[int, int]) -> np.ndarray | None:
        """The (H, W) mask of the image that came from the path `image`, shrunk to `size` as that was; None without one.

        It lies where the image lies below the corpus, or directly in the folder.

        Raises:
            ValueError: for two masks of it, a damaged mask, or one of another shape than the image.
        """
        by_name, read = _listed(self)
        path = _only(by_name, PurePosixPath(image))
        if path is None:
            return None
        mask = read(path)
        (height, width), (rows, columns) = size, mask.shape
        if abs(rows * width - columns * height) > max(rows, columns, height, width):
            raise ValueError(
                f"{path}: expected a mask of the shape of its image, {width}x{height} or larger, "
                f"got {columns}x{rows}; check {self.key}"
            )
        return mask if mask.shape == size else _resized(mask, size)


@functools.lru_cache(maxsize=2)
def _listed(named: NamedMasks) -> tuple[Mapping[str, Sequence[Path]], numbering.Read]:
    """Files by the names that their images may have, and what reads them."""
    by_name: dict[str, list[Path]] = {}
    below = files.images_below(named.folder)
    for name, paths in below.items():
        for photo in dict.fromkeys(files.photo_names(name)):
            by_name.setdefault(photo, []).extend(paths)
    if named.names is None:
        return by_name, lambda path: files.by_name(path, masks.bright)
    return by_name, numbering.reader([path for paths in below.values() for path in paths], named.names)


def _only(by_name: Mapping[str, Sequence[Path]], image: PurePosixPath) -> Path | None:
    """The mask of an image; a file of all its name is the image itself where there is another."""
    for name in dict.fromkeys((str(image), image.name)):
        paths = by_name.get(files.name_of(name), ())
        others = [path for path in paths if path.name != image.name] or paths
        if len(others) > 1:
            raise ValueError(f"expected one mask of {image}, got {others[0]} and {others[1]}; take one away")
        if others:
            return others[0]
    return None


def _resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(mask.astype(np.int32)).resize(size[::-1], Image.Resampling.NEAREST))
