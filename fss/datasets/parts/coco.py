"""COCO's layouts: train2014, val2014 (or 2017) with images, and class masks as PNGs or as the instances JSON."""

from __future__ import annotations

import functools
import logging
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from fss.datasets import Dataset
from fss.datasets.parts import files
from fss.datasets.parts.coco_names import COCO_CLASSES
from fss.datasets.parts.instances import load_instances, paint
from fss.imaging import images

logger = logging.getLogger(__name__)

FOLDS = ("interleaved", "consecutive")
YEARS = (2014, 2017)
_PART = re.compile(r"(train|val)(2014|2017)")


def dataset(root: str, split: str, list_file: str | None, folds: str, year: int | None) -> Dataset:
    """The images of a list, or those of the split val or train that have a mask.

    Raises:
        ValueError: if images or masks are not there, both years are and none is chosen, or a choice is unknown.
    """
    base = Path(root)
    chosen = find_year(base, year)
    part = functools.cache(functools.partial(open_part, base))
    if list_file:
        names = files.distinct(_name(line, chosen) for line in files.read_list(base, list_file))
    else:
        names = tuple(f"{split}{chosen}/{stem}" for stem in part(f"{split}{chosen}").labelled())
    for used in dict.fromkeys(name.partition("/")[0] for name in names):
        part(used)

    def photo(name: str) -> Path:
        folder, _, stem = name.partition("/")
        return files.image_file(part(folder).images, stem)

    def mask(name: str) -> np.ndarray:
        folder, _, stem = name.partition("/")
        return files.upright_mask(part(folder).mask(stem), photo(name), name)

    def mask_file(name: str) -> Path:
        folder, _, stem = name.partition("/")
        own = part(folder)
        return own.masks / f"{stem}.png" if own.masks else own.instances

    return Dataset(
        names=names,
        class_names=COCO_CLASSES,
        folds=fold_classes(folds),
        path=photo,
        read_mask=mask,
        mask_path=mask_file,
    )


def fold_classes(convention: str) -> tuple[tuple[int, ...], ...]:
    """The classes of each fold: `interleaved` (FWB, HSNet, PFENet) i+1, i+5, ...; `consecutive` (PANet) 20i+1..20i+20.

    Raises:
        ValueError: for another convention.
    """
    if convention not in FOLDS:
        raise ValueError(f"dataset.folds: expected {' or '.join(FOLDS)}, got {convention!r}")
    if convention == "interleaved":
        return tuple(tuple(range(i, len(COCO_CLASSES) + 1, 4)) for i in range(1, 5))
    return files.equal_folds(len(COCO_CLASSES), 4)


def find_year(base: Path, year: int | None) -> int:
    """`year`, or the one whose images are below `base`.

    Raises:
        ValueError: if it is not there, or both are and none is chosen.
    """
    if year is not None and year not in YEARS:
        raise ValueError(f"dataset.year: expected 2014 or 2017, got {year}")
    there = [y for y in YEARS if any(image_folder(base, f"{split}{y}") for split in ("val", "train"))]
    if not there or (year and year not in there):
        raise ValueError(
            f"expected COCO's images in {base}/val{year or '2014 or val2017'}; check dataset.root and dataset.year"
        )
    if len(there) > 1 and year is None:
        raise ValueError(f"expected a choice, {base} holds 2014 and 2017: set dataset.year=2014 or dataset.year=2017")
    return year or there[0]


def image_folder(base: Path, part: str) -> Path | None:
    """Where the images of `part` (val2014) are: in root, or in root/images."""
    return next((f for f in (base / part, base / "images" / part) if f.is_dir()), None)


def mask_folder(base: Path, part: str) -> Path | None:
    """Where mask PNGs of `part` are, in the layouts of HSNet and UMTFSS, MaskSplit, CyCTR and RePRI, in this order."""
    places = (f"annotations/{part}", f"{part}gt", f"annotations/coco_masks/instance_{part}", part.rstrip("0123456789"))
    return next((base / place for place in places if next((base / place).glob("[!.]*.png"), None)), None)


def instances_file(base: Path, part: str) -> Path:
    """Where COCO's own annotations of `part` belong."""
    return base / "annotations" / f"instances_{part}.json"


@dataclass(frozen=True)
class CocoPart:
    """train2014, val2017 ...: its images, and where its masks come from."""

    images: Path
    masks: Path | None
    instances: Path

    def labelled(self) -> list[str]:
        """Stems of the images that have a mask, sorted."""
        drawn = (p.stem for p in self.masks.glob("[!.]*.png")) if self.masks else load_instances(self.instances)
        with_mask = set(drawn)
        there = {p.stem for p in self.images.iterdir() if images.is_image_name(p.name)}
        stems = sorted(there & with_mask)
        if not stems:
            raise ValueError(f"expected the images of {self.masks or self.instances} in {self.images}, found none")
        if len(stems) < len(with_mask):
            lost = len(with_mask) - len(stems)
            logger.info("%s: %d images with masks are not there, left out", self.images, lost)
        return stems

    def mask(self, stem: str) -> np.ndarray:
        """(H, W) uint8 class mask of an image."""
        if self.masks:
            return files.read_mask(self.masks / f"{stem}.png")
        annotated = load_instances(self.instances).get(stem)
        if annotated is None:
            raise ValueError(f"expected objects of {stem} in {self.instances}, found none; check dataset.list")
        return paint(annotated)


def open_part(base: Path, part: str) -> CocoPart:
    """The part `part` below `base`.

    Raises:
        ValueError: if it has no images, or neither masks nor annotations.
    """
    photos, masks, instances = image_folder(base, part), mask_folder(base, part), instances_file(base, part)
    if photos is None:
        raise ValueError(f"expected images in {base / part}; check dataset.root and dataset.list")
    if masks is None and not instances.is_file():
        raise ValueError(
            f"expected mask PNGs in {base / 'annotations' / part} (or {part}gt, coco_masks/instance_{part}), or "
            f"{instances}; check dataset.root"
        )
    return CocoPart(photos, masks, instances)


def _name(line: str, year: int) -> str:
    """The image that a line names in its first column: val2014/STEM.jpg below anything, or STEM."""
    path = PurePosixPath(line.split(maxsplit=1)[0].replace("\\", "/"))
    folder = next((p for p in reversed(path.parts[:-1]) if _PART.fullmatch(p)), None)
    in_stem = re.match(rf"COCO_({_PART.pattern})_", path.name)
    return f"{folder or (in_stem[1] if in_stem else f'val{year}')}/{files.without_suffix(path.name)}"
