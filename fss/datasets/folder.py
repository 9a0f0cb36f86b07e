"""Anybody's images: images/NAME.*, masks/NAME.png, and the names of the classes in classes.txt or classes.json."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fss.datasets import Dataset, DatasetKeys, void_of
from fss.datasets.parts import files, numbering
from fss.imaging.masks import BLACK, Colour
from fss.keys import at_least, key
from fss.texts import read_json, shown

logger = logging.getLogger(__name__)

#: What tools write in front of the classes: labelme's and others' name of index 0, and labelme's of -1.
_IGNORED = ("__ignore__",)
_BACKGROUND = ("_background_", "__background__", "background")
#: A line of classes.txt that names an index too.
_NUMBERED = re.compile(r"(\d+)\s*[:;,=\s]\s*(\S.*)")


@dataclass
class Keys(DatasetKeys):
    """Your own labels: dataset.root=FOLDER with images/, masks/ and classes.txt."""

    name: str = "folder"
    num_folds: int = key(1, at_least(1))
    """Equal parts of the classes, in order."""


def dataset(root: str, list_file: str | None = None, num_folds: int = 1) -> Dataset:
    """Images in root/images with masks of the same name in root/masks, in `num_folds` consecutive folds of classes.

    `list_file` defaults to every image that has a mask. A mask holds indices (grey, palette or 16-bit PNG): 0 is
    background, 255 void (65535 with more than 254 classes); see `numbering.reader` for sets of one class. The classes
    are named by classes.txt (one a line, the first is 1, or an index before each; a background in front is left out),
    classes.json (a list, {"1": name, ...}, or {name: [r, g, b], ...}) or CVAT's labelmap.txt (name:r,g,b::). With
    colours, there or in colours.json ({name: [r, g, b], ...}, also of "background", else black, and "void"), masks are
    read by them.

    Raises:
        ValueError: if something is missing, doubled or malformed.
    """
    base = Path(root)
    class_names, colours = _classes(base)
    void = void_of(class_names)
    photos = _photos(base / "images")
    masks, lost = files.masks_of(photos, base / "masks")
    if lost:
        logger.warning("%s: %d masks have no image: %s ...; left out", base, len(lost), lost[0].name)
    names = (
        files.distinct(_name(photos, line) for line in files.read_list(base, list_file))
        if list_file
        else tuple(name for name in photos if name in masks)
    )
    if not names:
        raise ValueError(
            f"expected masks in {base / 'masks'}, NAME.png for an images/NAME.jpg, found none"
            + (f", but {lost[0].name}" if lost else "")
        )
    unmasked = [name for name in names if name not in masks]
    if unmasked:
        raise ValueError(f"expected {base / 'masks' / unmasked[0]}.png, the mask of an image of {list_file}")
    read = (
        numbering.by_colour(colours, class_names, void)
        if colours
        else numbering.reader([masks[name] for name in names], class_names)
    )
    return Dataset(
        names=names,
        class_names=class_names,
        folds=files.equal_folds(len(class_names), num_folds),
        path=lambda name: photos[name],
        read_mask=lambda name: files.upright_mask(read(masks[name]), photos[name], masks[name]),
        void=void,
        mask_path=lambda name: masks[name],
    )


def _photos(below: Path) -> dict[str, Path]:
    """Images by their path without extension, sorted."""
    by_name = files.images_below(below)
    doubled = next((paths for paths in by_name.values() if len(paths) > 1), None)
    if doubled:
        raise ValueError(f"expected one image for each mask, got {doubled[0]} and {doubled[1].name}; rename one")
    if not by_name:
        raise ValueError(f"expected images in {below}, found none; check dataset.root")
    odd = next((name for name in by_name if shown(name) != name), None)
    if odd is not None:
        raise ValueError(f"expected names of files in UTF-8 in {below}, got {shown(odd)}; rename it, as convmv does")
    return {name: paths[0] for name, paths in by_name.items()}


def _name(photos: Mapping[str, Path], line: str) -> str:
    """The image that a line names: all of it, as names may hold spaces, or its first column."""
    for entry in (line, line.split(maxsplit=1)[0]):
        name = files.name_of(entry.replace("\\", "/").removeprefix("images/"))
        if name in photos:
            return name
    raise ValueError(f"expected names of images below root/images in dataset.list, got {line!r}")


def _classes(base: Path) -> tuple[tuple[str, ...], dict[str, Colour]]:
    """Names in order, and colours by name, where there are any."""
    text, listed, colour_file = base / "classes.txt", base / "classes.json", base / "colours.json"
    path = next((p for p in (text, listed, colour_file, base / "labelmap.txt") if p.is_file()), None)
    if path is None:
        raise ValueError(f"expected the names of the classes in {text}, one a line, or {listed}; check dataset.root")
    if path.name == "labelmap.txt":
        content: Any = _labelmap(files.read_list(base, path.name), path)
    else:
        content = _by_number(files.read_list(base, text.name)) if path == text else read_json(path)
    names = _names(content, path)
    if colour_file.is_file():
        return names, _colours(read_json(colour_file), names, colour_file)
    return names, _colours(content, names, path) if isinstance(content, dict) and not _numbered(content) else {}


def _by_number(lines: list[str]) -> list[str] | dict[str, str]:
    """The lines, or names by index where each line gives one: `1 cat`, `1: cat` or `1,cat`."""
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    return {entry[1]: entry[2] for entry in numbered if entry} if all(numbered) else lines


def _labelmap(lines: list[str], path: Path) -> dict[str, list[int]]:
    """Colours by name of CVAT's name:r,g,b:parts:actions."""
    colours = {}
    for line in lines:
        name, _, rest = line.partition(":")
        numbers = rest.partition(":")[0].split(",")
        if not line.startswith("#"):
            if not all(number.strip().isdecimal() for number in numbers):
                raise ValueError(f"{path}: expected lines of name:r,g,b::, got {line!r}")
            colours[name] = [int(number) for number in numbers]
    return colours


def _numbered(value: Mapping[str, Any]) -> bool:
    return all(key.isdecimal() for key in value)


def _names(names: Any, path: Path) -> tuple[str, ...]:
    if isinstance(names, dict) and names and _numbered(names):
        order = [key for key in sorted(names, key=int) if int(key) or names[key] not in _BACKGROUND]
        if [int(key) for key in order] != list(range(1, len(order) + 1)):
            raise ValueError(f"{path}: expected the indices 1, 2, ... of the classes, got {', '.join(order[:9])}")
        names = [names[key] for key in order]
    elif isinstance(names, dict):
        names = [name for name in names if name not in ("background", "void")]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f'{path}: expected a list of names or {{"1": name, ...}}, got {str(names)[:60]}')
    if len(names) == 1 and any(mark in names[0] for mark in ",;\t"):
        raise ValueError(f"{path}: expected one name of a class a line, got {names[0]!r}; write one a line")
    names = _without_background(names, path)
    if len(set(names)) != len(names):
        raise ValueError(f"{path}: expected different names of classes, got {len(names) - len(set(names))} doubled")
    return tuple(names)


def _without_background(names: list[str], path: Path) -> list[str]:
    """The classes from index 1 on, of a list that may begin with index 0, or with -1 and 0."""
    first = next((i for i, name in enumerate(names) if name not in _IGNORED), 0)
    if names[first] in _BACKGROUND:
        logger.warning("%s: its first class is %s, index 0; class 1 is the next", path, names[first])
        names = names[first + 1 :]
    wrong = [name for name in names if name in (*_BACKGROUND, *_IGNORED)]
    if wrong or not names:
        raise ValueError(
            f"{path}: expected the classes alone, the first is index 1; leave {(*wrong, 'background')[0]} out"
        )
    return names


def _colours(value: Any, names: tuple[str, ...], path: Path) -> dict[str, Colour]:
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected {{name: [r, g, b], ...}}, got {str(value)[:60]}")
    colours: dict[str, Colour] = {}
    for name, colour in ({"background": BLACK} | dict(value)).items():
        numbers = list(colour) if isinstance(colour, list | tuple) else []
        if len(numbers) != 3 or not all(isinstance(v, int) and 0 <= v <= 255 for v in numbers):
            raise ValueError(f"{path}: expected [r, g, b] of 0..255 for {name!r}, got {colour!r}")
        colours[name] = (numbers[0], numbers[1], numbers[2])
    missing = [name for name in names if name not in colours]
    if missing:
        raise ValueError(f"{path}: expected a colour for every class, {missing[0]!r} has none")
    if len(set(colours.values())) != len(colours):
        raise ValueError(f"{path}: expected different colours, also from the background's, got {colours}")
    return colours
