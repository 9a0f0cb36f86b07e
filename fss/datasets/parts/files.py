"""Images, masks and lists from disk, with errors that name the file and the setting."""

from __future__ import annotations

import glob
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from fss.imaging import images, masks
from fss.texts import read_text

#: Enough of a photo's file for its header, as a rule, bytes.
_HEAD = 1 << 18
#: What tools append to a photo's name for its mask.
_MASK = re.compile(r"[-_. ](masks?|labels?|seg|segmentation|gt|groundtruth|matte|annotation)$", re.IGNORECASE)


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
    width, height, orientation = read_stored_size(path)
    return (height, width) if orientation >= 5 else (width, height)


def read_mask(path: Path) -> np.ndarray:
    """(H, W) uint8 or, where it holds more than 255, uint16 indices of the index, palette or 16-bit image `path`.

    Raises:
        ValueError: if it is missing, damaged, or holds colours or other numbers instead of indices.
    """
    return by_name(path, lambda drawn: narrow(masks.indices(drawn)))


def by_name(path: Path, read: Callable[[masks.Drawn], np.ndarray]) -> np.ndarray:
    """What `read` makes of the mask at `path`.

    Raises:
        ValueError: if it is missing or damaged, or as `read`, naming it.
    """
    data = read_bytes(path, "a mask")
    try:
        return read(masks.decode(data, str(path)))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def upright_mask(mask: np.ndarray, photo: Path, name: str | Path) -> np.ndarray:
    """`mask` on the upright picture of the file `photo`, whose stored pixels it may have been drawn on.

    Raises:
        ValueError: if there is no such photo, or it is damaged.
    """
    try:
        with photo.open("rb") as file:
            head = file.read(_HEAD)
        stored = images.stored_size(head)
    except (OSError, images.BadImageError):
        stored = read_stored_size(photo)
    return masks.upright(mask, stored, str(name))


def read_stored_size(path: Path) -> tuple[int, int, int]:
    """(width, height, EXIF orientation) of an image file before it is turned.

    Raises:
        ValueError: if it is missing or no image.
    """
    try:
        return images.stored_size(read_bytes(path, "an image"))
    except images.BadImageError as error:
        raise ValueError(f"{path}: {error}") from error


def images_below(folder: Path) -> dict[str, list[Path]]:
    """The visible image files below `folder`, of any extension in any case, by `name_of` their paths, sorted."""
    by_stem: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if images.is_image_name(name) and path.is_file():
            by_stem.setdefault(name_of(name), []).append(path)
    return by_stem


def image_file(folder: Path, name: str) -> Path:
    """The image called `name` in `folder`: NAME.jpg, or with another extension of images, in any case."""
    usual = folder / f"{name}.jpg"
    if usual.is_file():
        return usual
    there = (p for p in usual.parent.glob(f"{glob.escape(usual.stem)}.*") if images.is_image_name(p.name))
    return min((p for p in there if p.stem == usual.stem), default=usual)


def masks_of(photos: Iterable[str], folder: Path) -> tuple[dict[str, Path], list[Path]]:
    """The masks below `folder` by the names of their photos, and those of no photo.

    A mask is called like its photo, with or without the photo's extension, or that and `_mask` or the like.

    Raises:
        ValueError: for two masks of a photo.
    """
    known, by_photo, lost = set(photos), dict[str, Path](), list[Path]()
    for name, paths in images_below(folder).items():
        photo = next((one for one in photo_names(name) if one in known), None)
        for path in paths:
            if photo is None:
                lost.append(path)
            elif photo in by_photo:
                raise ValueError(f"expected one mask of {photo}, got {by_photo[photo]} and {path}; take one away")
            else:
                by_photo[photo] = path
    return by_photo, lost


def photo_names(mask: str) -> Iterator[str]:
    """What the photo of a mask may be called, likeliest first; both names without the extension of an image."""
    yield mask
    yield without_suffix(mask)
    bare = _MASK.sub("", mask)
    yield bare
    yield without_suffix(bare)


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
        ValueError: if there is no such file, nothing in it, or no text.
    """
    path = next((p for p in (base / list_file, Path(list_file)) if p.is_file()), None)
    if path is None:
        raise ValueError(
            f"expected a list file of image names at {base / list_file} or {list_file}; check dataset.list"
        )
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"expected names in {path}, one a line, got an empty file")
    return lines


def name_of(path: str) -> str:
    """By what images, masks and lines of lists find each other: the path without an image's extension, each letter one
    with its accents, which macOS writes apart.
    """
    return unicodedata.normalize("NFC", without_suffix(path))


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
