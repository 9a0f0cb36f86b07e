"""Images, masks and lists from disk, with errors that name the file and the setting."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from fss.imaging import images


def read_image(path: Path) -> Image.Image:
    """Upright RGB image of `path`.

    Raises:
        ValueError: if it is missing or damaged.
    """
    try:
        return images.decode(read_bytes(path, "an image"))
    except images.BadImageError as error:
        raise ValueError(f"{path}: {error}") from error


def read_size(path: Path) -> tuple[int, int]:
    """(width, height) of `read_image(path)`, from the header.

    Raises:
        ValueError: if it is missing or no image.
    """
    try:
        return images.upright_size(read_bytes(path, "an image"))
    except images.BadImageError as error:
        raise ValueError(f"{path}: {error}") from error


def read_mask(path: Path) -> np.ndarray:
    """(H, W) uint8 or, where it holds more than 255, uint16 indices of the index, palette or 16-bit image `path`.

    Raises:
        ValueError: if it is missing, damaged, or holds colours or other numbers instead of indices.
    """
    data = read_bytes(path, "a mask")
    try:
        return narrow(images.decode_labels(data))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def mask_named_as(folder: Path, path: str, size: tuple[int, int], key: str) -> np.ndarray | None:
    """The (H, W) mask of the image that came from `path`, shrunk to `size` as the image was; None if there is none.

    It lies where the image lies below the corpus, or directly in `folder`, as NAME.png.

    Raises:
        ValueError: for a damaged mask, or one of another shape than its image, naming the setting `key`.
    """
    name = PurePosixPath(path)
    places = [folder / f"{stem}.png" for stem in dict.fromkeys((name.with_suffix(""), name.stem))]
    place = next((one for one in places if one.is_file()), None)
    if place is None:
        return None
    mask = read_mask(place)
    (height, width), (rows, columns) = size, mask.shape
    if abs(rows * width - columns * height) > max(rows, columns, height, width):
        raise ValueError(
            f"{place}: expected a mask of the shape of its image, {width}x{height} or larger, "
            f"got {columns}x{rows}; check {key}"
        )
    return mask if mask.shape == size else _resized(mask, size)


def _resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(mask.astype(np.int32)).resize(size[::-1], Image.Resampling.NEAREST))


def narrow(labels: np.ndarray) -> np.ndarray:
    """Integer labels as uint8 where they fit, as uint16 otherwise.

    Raises:
        ValueError: for labels outside of 0..65535.
    """
    low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
    if low < 0 or high > np.iinfo(np.uint16).max:
        raise ValueError(f"expected class indices of 0..65535, got {low}..{high}; is it a mask?")
    return labels.astype(np.uint8 if high <= np.iinfo(np.uint8).max else np.uint16)


def read_bytes(path: Path, what: str) -> bytes:
    """Bytes of `path`.

    Raises:
        ValueError: if it cannot be read, saying that `what` was expected.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"expected {what} at {path}: {error.strerror}; check dataset.root and dataset.list") from error


def read_list(base: Path, list_file: str) -> list[str]:
    """Lines of `list_file`, which is looked for below `base` first, without blank ones.

    Raises:
        ValueError: if there is no such file, or nothing in it.
    """
    path = next((p for p in (base / list_file, Path(list_file)) if p.is_file()), None)
    if path is None:
        raise ValueError(
            f"expected a list file of image names at {base / list_file} or {list_file}; check dataset.list"
        )
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"expected image names in {path}, one a line, got an empty file")
    return lines


def without_suffix(name: str) -> str:
    """`name` without the extension of an image; dots that belong to the name stay."""
    stem, dot, suffix = name.rpartition(".")
    return stem if f"{dot}{suffix}".lower() in images.EXTENSIONS else name


def distinct(names: Iterable[str]) -> tuple[str, ...]:
    """`names` in order, each once."""
    return tuple(dict.fromkeys(names))


def equal_folds(num_classes: int, num_folds: int) -> tuple[tuple[int, ...], ...]:
    """Classes 1..C cut into consecutive parts of one size.

    Raises:
        ValueError: if the parts cannot be of one size.
    """
    if num_folds < 1 or num_classes % num_folds:
        raise ValueError(
            f"expected a number of folds that divides the {num_classes} classes, got {num_folds}; "
            "check dataset.num_folds"
        )
    size = num_classes // num_folds
    return tuple(tuple(range(size * i + 1, size * (i + 1) + 1)) for i in range(num_folds))
