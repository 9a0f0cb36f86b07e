"""COCO's instances JSON: which objects are on which image, and the masks drawn of them.

Nothing of a file reaches a C library before it is checked: what is malformed is left out, counted and named.
"""

from __future__ import annotations

import functools
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from fss.datasets.parts import files
from fss.datasets.parts.coco_names import CLASS_OF, COCO_CLASSES

logger = logging.getLogger(__name__)

_NUMBER = {name: i for i, name in enumerate(COCO_CLASSES, 1)}
_MOST_PIXELS = 64_000_000
#: The longest outline of an object, in sides of its image: the work of drawing grows with its length.
_LONGEST = 1000
_NO_SHAPE = "no segmentation"


@dataclass(frozen=True)
class Annotated:
    """An image of an instances JSON with its objects, (class 1..80, shape) in the file's order.

    A shape is a list of polygons [x, y, x, y, ...], or the runs of an RLE as an array.
    """

    height: int
    width: int
    objects: tuple[tuple[int, list[list[float]] | np.ndarray], ...]


@dataclass
class _Account:
    """What a file holds that cannot be used as it stands, by kind: the ids of its annotations."""

    path: Path
    ids: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, kind: str, annotation: Mapping[str, Any]) -> None:
        self.ids.setdefault(kind, []).append(annotation.get("id"))

    def tell(self, total: int) -> None:
        for kind, ids in sorted(self.ids.items()):
            shown = ", ".join(map(str, ids[:5])) + (", ..." if len(ids) > 5 else "")
            logger.warning("%s: %d of %d annotations, %s: ids %s", self.path, len(ids), total, kind, shown)


@functools.lru_cache(maxsize=2)
def load_instances(path: Path) -> dict[str, Annotated]:
    """The images of an instances JSON that show an object, by stem. Crowds are left out, and what has no shape.

    Raises:
        ValueError: if it is no such file, or its categories are not COCO's.
    """
    account = _Account(path)
    try:
        document = json.loads(files.read_bytes(path, "COCO's instances JSON"))
        annotations = [one for one in document["annotations"] if not one.get("iscrowd")]
        classes = _classes(document, annotations, path)
        stems, sizes = _images(document["images"], path)
        objects: dict[str, list[tuple[int, Any]]] = {}
        for one in annotations:
            stem = stems.get(one["image_id"])
            if stem is None:
                account.add("of images that are not listed, left out", one)
            elif (shape := _shape(one, *sizes[stem], account)) is not None:
                objects.setdefault(stem, []).append((classes[one["category_id"]], shape))
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        got = f"an entry without {error}" if isinstance(error, KeyError) else "entries of another form"
        raise ValueError(f"{path}: expected COCO's instances with images and annotations, got {got}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    account.tell(len(annotations))
    return {stem: Annotated(*sizes[stem], tuple(objects[stem])) for stem in sizes if stem in objects}


def paint(image: Annotated) -> np.ndarray:
    """(H, W) uint8 class mask as the field makes it (CyCTR): all parts of an object, later objects over earlier ones,
    crowds left as background, no void.
    """
    mask = np.zeros((image.height, image.width), np.uint8)
    for class_id, shape in image.objects:
        mask[_pixels(shape, image.height, image.width)] = class_id
    return mask


def _classes(document: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]], path: Path) -> dict[int, int]:
    """The class 1..80 of each category id that occurs: by the names that the file gives, which ids then follow."""
    names = {one["id"]: str(one["name"]) for one in document.get("categories") or ()}
    used = {one["category_id"]: one.get("id") for one in reversed(annotations)}
    if not names:
        logger.warning("%s: it names no categories; their ids are taken for COCO's", path)
        names = {number: COCO_CLASSES[i - 1] for number, i in CLASS_OF.items()}
    lost = next((number for number in used if number not in names), None)
    if lost is not None:
        raise ValueError(f"expected COCO's 80 category ids, got {lost} in annotation {used[lost]}")
    foreign = [names[number] for number in used if names[number].strip().lower() not in _NUMBER]
    if foreign:
        raise ValueError(
            f"expected COCO's 80 categories, got {', '.join(sorted(foreign)[:5])}; a set with classes of its own "
            "is read by dataset=folder: images, masks of class indices, and classes.txt"
        )
    numbers = {number: _NUMBER[names[number].strip().lower()] for number in used}
    moved = [f"{number} {names[number]}" for number in sorted(used) if CLASS_OF.get(number) != numbers[number]]
    if moved:
        logger.warning("%s: categories have other ids than COCO's, read by name: %s", path, ", ".join(moved[:9]))
    return numbers


def _images(listed: Sequence[Mapping[str, Any]], path: Path) -> tuple[dict[int, str], dict[str, tuple[int, int]]]:
    """The stem of each image id, and the (height, width) of each stem; an image listed twice is one."""
    stems: dict[int, str] = {}
    sizes: dict[str, tuple[int, int]] = {}
    names: dict[str, str] = {}
    twice = []
    for one in listed:
        name, size = str(one["file_name"]), (int(one["height"]), int(one["width"]))
        stem = PurePosixPath(name.replace("\\", "/")).stem
        if min(size) < 1 or size[0] * size[1] > _MOST_PIXELS:
            raise ValueError(f"{name}: expected an image of up to {_MOST_PIXELS} pixels, got {size[1]}x{size[0]}")
        if stem in names and (names[stem], sizes[stem]) != (name, size):
            raise ValueError(
                f"expected images of different names, got {names[stem]} {sizes[stem][::-1]} and {name} {size[::-1]}"
            )
        if stems.setdefault(one["id"], stem) != stem:
            raise ValueError(f"expected one image of each id, got {one['id']} of {stems[one['id']]} and {stem}")
        if stem in names:
            twice.append(name)
        names[stem], sizes[stem] = name, size
    if twice:
        logger.warning("%s: %d images are listed twice and are one each: %s", path, len(twice), ", ".join(twice[:5]))
    return stems, sizes


def _shape(one: Mapping[str, Any], height: int, width: int, account: _Account) -> list[list[float]] | np.ndarray | None:
    """The checked shape of an annotation; None, counted, where there is none."""
    given = one.get("segmentation")
    if not given:
        account.add(f"{_NO_SHAPE}, left out", one)
        return None
    try:
        if isinstance(given, dict):
            return _checked_runs(given, height, width)
        if isinstance(given, list):
            return _polygons(given, height, width, one, account)
        raise ValueError(f"neither polygons nor RLE but {type(given).__name__}")
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        account.add(f"malformed ({str(error)[:80]}), left out", one)
        return None


def _polygons(
    given: list[Any], height: int, width: int, one: Mapping[str, Any], account: _Account
) -> list[list[float]] | None:
    if all(isinstance(value, int | float) for value in given):
        account.add("a flat list of coordinates, read as one polygon", one)
        given = [given]
    # Fewer than 3 points have no area, and pycocotools would take 2 for a box.
    drawable = [part for part in given if len(part) >= 6]
    if not drawable:
        account.add("no polygon of three points, left out", one)
        return None
    longest = _LONGEST * (height + width)
    for part in drawable:
        if len(part) % 2:
            raise ValueError("a polygon of an odd number of coordinates")
        if not _is_finite(part):
            raise ValueError("coordinates that are not finite")
        if (max(part) - min(part)) * len(part) > longest and _length(part) > longest:
            raise ValueError(f"an outline of more than {longest} pixels")
        if max(map(abs, part)) > longest:
            raise ValueError("coordinates far from the image")
    return drawable


def _is_finite(part: list[Any]) -> bool:
    try:
        return math.isfinite(sum(part))
    except TypeError as error:
        raise ValueError("a polygon that is not x, y, x, y, ... in numbers") from error


def _length(part: list[float]) -> float:
    points = np.asarray(part, np.float64).reshape(-1, 2)
    return float(np.abs(points - np.roll(points, 1, axis=0)).sum())


def _checked_runs(encoded: Mapping[str, Any], height: int, width: int) -> np.ndarray:
    """The runs of an RLE, compressed or not, of 0 first, down the columns."""
    if list(encoded["size"]) != [height, width]:
        raise ValueError(f"RLE of height x width {encoded['size']} on an image of {height}x{width}")
    counts = encoded["counts"]
    runs = list(_unpacked(counts)) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(isinstance(run, int) and run >= 0 for run in runs):
        raise ValueError("RLE counts that are no whole numbers from 0")
    if sum(runs) != height * width:
        raise ValueError(f"RLE counts of {sum(runs)} pixels instead of {height * width}")
    return np.array(runs, np.int64)


def _unpacked(counts: str) -> Iterator[int]:
    """The runs of COCO's compressed RLE: five bits a character, the lowest first, each run less the one before last."""
    before: list[int] = []
    value, shift = 0, 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError(f"RLE counts with {character!r}")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            run = value + (before[-2] if len(before) > 2 else 0)
            before.append(run)
            yield run
            value, shift = 0, 0
    if shift:
        raise ValueError("RLE counts that are cut off")


def _pixels(shape: list[list[float]] | np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W) bool of checked polygons or runs."""
    if isinstance(shape, np.ndarray):
        return np.repeat(np.arange(len(shape)) % 2 == 1, shape).reshape(width, height).T
    from pycocotools import mask as rle  # here, so that other data sets do not need it

    return rle.decode(rle.merge(rle.frPyObjects(shape, height, width))).astype(bool)
