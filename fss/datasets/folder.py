"""Anybody's images: images/NAME.*, masks/NAME.png, and the names of the classes in classes.txt or classes.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fss.datasets import Dataset, DatasetKeys, void_of
from fss.datasets.parts import files
from fss.imaging import images
from fss.keys import at_least, key

Colour = tuple[int, int, int]
_BLACK: Colour = (0, 0, 0)


@dataclass
class Keys(DatasetKeys):
    """Your own labels: dataset.root=FOLDER with images/, masks/ and classes.txt."""

    name: str = "folder"
    num_folds: int = key(1, at_least(1))
    """Equal parts of the classes, in order."""


def dataset(root: str, list_file: str | None = None, num_folds: int = 1) -> Dataset:
    """Images in root/images with masks of the same name in root/masks, in `num_folds` consecutive folds of classes.

    `list_file` defaults to every image that has a mask. A mask holds indices (grey, palette or 16-bit PNG): 0 is
    background, 255 void (65535 with more than 254 classes). The classes are named by classes.txt (one a line, the
    first is 1) or classes.json (a list, {"1": name, ...}, or {name: [r, g, b], ...}). With colours, there or in
    colours.json ({name: [r, g, b], ...}, also of "background", else black, and "void"), masks are read by them.

    Raises:
        ValueError: if something is missing, doubled or malformed.
    """
    base = Path(root)
    class_names, colours = _classes(base)
    void = void_of(class_names)
    photos = _photos(base / "images")
    masks = {files.without_suffix(p.relative_to(base / "masks").as_posix()): p for p in (base / "masks").rglob("*.png")}
    names = (
        files.distinct(_name(photos, line) for line in files.read_list(base, list_file))
        if list_file
        else tuple(name for name in photos if name in masks)
    )
    if not names:
        raise ValueError(f"expected masks in {base / 'masks'}, NAME.png for an images/NAME.jpg, found none")
    unmasked = [name for name in names if name not in masks]
    if unmasked:
        raise ValueError(f"expected {base / 'masks' / unmasked[0]}.png, the mask of an image of {list_file}")
    read = files.read_mask if not colours else _by_colour(colours, class_names, void)
    return Dataset(
        names=names,
        class_names=class_names,
        folds=files.equal_folds(len(class_names), num_folds),
        path=lambda name: photos[name],
        read_mask=lambda name: read(masks[name]),
        void=void,
        mask_path=lambda name: masks[name],
    )


def _photos(below: Path) -> dict[str, Path]:
    """Images by their path without extension, sorted."""
    found: dict[str, Path] = {}
    for path in sorted(p for p in below.rglob("*") if p.suffix.lower() in images.EXTENSIONS and p.is_file()):
        name = files.without_suffix(path.relative_to(below).as_posix())
        if name in found:
            raise ValueError(f"expected one image for each mask, got {found[name]} and {path.name}; rename one")
        found[name] = path
    if not found:
        raise ValueError(f"expected images in {below}, found none; check dataset.root")
    return found


def _name(photos: Mapping[str, Path], line: str) -> str:
    """The image that a line names: all of it, as names may hold spaces, or its first column."""
    for entry in (line, line.split(maxsplit=1)[0]):
        name = files.without_suffix(entry.replace("\\", "/").removeprefix("images/"))
        if name in photos:
            return name
    raise ValueError(f"expected names of images below root/images in dataset.list, got {line!r}")


def _classes(base: Path) -> tuple[tuple[str, ...], dict[str, Colour]]:
    """Names in order, and colours by name, where there are any."""
    text, listed, colour_file = base / "classes.txt", base / "classes.json", base / "colours.json"
    path = next((p for p in (text, listed, colour_file) if p.is_file()), None)
    if path is None:
        raise ValueError(f"expected the names of the classes in {text}, one a line, or {listed}; check dataset.root")
    found = files.read_list(base, text.name) if path == text else _json(path)
    names = _names(found, path)
    if colour_file.is_file():
        return names, _colours(_json(colour_file), names, colour_file)
    return names, _colours(found, names, path) if isinstance(found, dict) and not _numbered(found) else {}


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON: {error}") from error


def _numbered(value: Mapping[str, Any]) -> bool:
    return all(key.isdecimal() for key in value)


def _names(found: Any, path: Path) -> tuple[str, ...]:
    if isinstance(found, dict) and found and _numbered(found):
        order = sorted(found, key=int)
        if [int(key) for key in order] != list(range(1, len(order) + 1)):
            raise ValueError(f"{path}: expected the indices 1, 2, ... of the classes, got {', '.join(order[:9])}")
        found = [found[key] for key in order]
    elif isinstance(found, dict):
        found = [name for name in found if name not in ("background", "void")]
    if not isinstance(found, list) or not found or not all(isinstance(name, str) for name in found):
        raise ValueError(f'{path}: expected a list of names or {{"1": name, ...}}, got {str(found)[:60]}')
    if len(set(found)) != len(found):
        raise ValueError(f"{path}: expected different names of classes, got {len(found) - len(set(found))} doubled")
    if "background" in found:
        raise ValueError(f"{path}: expected the classes alone, the first is index 1; leave background out")
    return tuple(found)


def _colours(value: Any, names: tuple[str, ...], path: Path) -> dict[str, Colour]:
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected {{name: [r, g, b], ...}}, got {str(value)[:60]}")
    found: dict[str, Colour] = {}
    for name, colour in ({"background": _BLACK} | dict(value)).items():
        numbers = list(colour) if isinstance(colour, list | tuple) else []
        if len(numbers) != 3 or not all(isinstance(v, int) and 0 <= v <= 255 for v in numbers):
            raise ValueError(f"{path}: expected [r, g, b] of 0..255 for {name!r}, got {colour!r}")
        found[name] = (numbers[0], numbers[1], numbers[2])
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"{path}: expected a colour for every class, {missing[0]!r} has none")
    if len(set(found.values())) != len(found):
        raise ValueError(f"{path}: expected different colours, also from the background's, got {found}")
    return found


def _by_colour(colours: Mapping[str, Colour], names: tuple[str, ...], void: int) -> Callable[[Path], np.ndarray]:
    index = {"background": 0, "void": void} | {name: i for i, name in enumerate(names, 1)}
    table = {_packed(np.array(colour)): index[name] for name, colour in colours.items() if name in index}

    def read(path: Path) -> np.ndarray:
        try:
            packed = _packed(images.decode_colours(files.read_bytes(path, "a mask")))
        except images.BadImageError as error:
            raise ValueError(f"{path}: {error}") from error
        values, inverse = np.unique(packed, return_inverse=True)
        unknown = [(int(v) >> 16, int(v) >> 8 & 255, int(v) & 255) for v in values if int(v) not in table]
        if unknown:
            raise ValueError(f"{path}: expected the colours of the classes, got also {unknown[:3]}; see colours.json")
        return files.narrow(np.array([table[int(v)] for v in values])[inverse].reshape(packed.shape))

    return read


def _packed(colours: np.ndarray) -> Any:
    """(..., 3) colours as (...) whole numbers."""
    r, g, b = np.moveaxis(colours.astype(np.int64), -1, 0)
    packed = r << 16 | g << 8 | b
    return packed if packed.ndim else int(packed)
