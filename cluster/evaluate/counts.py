"""How many images show each class of a labelled data set, beside the counts that the field knows."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.prepare.prepare import parallel
from fss.datasets import Dataset, DatasetKeys, areas, fss1000, open_dataset
from fss.datasets.parts import coco

_BLOCK = 64
Shown = Mapping[str, frozenset[int]]
"""The classes that each image shows, by its name."""


@dataclass(frozen=True)
class Known:
    """Published counts at min_area = 2048. A fold's image shows one of its classes; `others` show one of the rest."""

    what: str
    images: int
    folds: tuple[int, ...] = ()
    others: tuple[int, ...] = ()
    classes: tuple[int, ...] = ()


KNOWN_AREA = 2048
#: Unpickled from CyCTR's lists (pascal5i) and HSNet's (coco20i); HSNet's masks are its own, see instances.paint.
PASCAL = (
    Known("PASCAL VOC's val list", 1449, (364, 445, 592, 336), classes=(
        81, 63, 89, 61, 71, 70, 100, 118, 110, 69, 73, 125, 76, 74, 386, 63, 53, 90, 82, 69)),
    Known("voc_sbd_merge_noduplicate.txt", 5953, others=(4760, 4588, 4097, 5108)),
)  # fmt: skip
COCO_2014 = (
    Known("COCO's val2014", 40137, (26052, 15305, 13138, 12640)),
    Known("COCO's train2014", 82081, others=(62040, 74381, 73035, 73808)),
)


def shown(config: DatasetKeys, dataset: Dataset, workers: int) -> tuple[Shown, list[str]]:
    """The classes on at least dataset.min_area pixels of each image, and what is wrong with the images left out."""
    spec = (config.name, config.root, config.list, tuple(config.options().items()))
    blocks = [(spec, dataset.names[i : i + _BLOCK]) for i in range(0, len(dataset.names), _BLOCK)]
    classes_of: dict[str, frozenset[int]] = {}
    problems: list[str] = []
    for in_block, wrong in parallel(_areas, blocks, workers):
        classes_of |= {
            name: frozenset(c for c, pixels in by_class.items() if pixels >= config.min_area)
            for name, by_class in in_block.items()
        }
        problems += wrong
    return classes_of, problems


@functools.lru_cache(maxsize=1)
def _open(name: str, root: str, list_file: str | None, options: tuple[tuple[str, Any], ...]) -> Dataset:
    return open_dataset(name, root, list_file, **dict(options))


def _areas(task: tuple[Any, Sequence[str]]) -> tuple[dict[str, dict[int, int]], list[str]]:
    spec, names = task
    areas_of, problems = {}, []
    for name in names:
        try:
            areas_of[name] = areas(_open(*spec), name)
        except ValueError as error:
            problems.append(str(error))
    return areas_of, problems


@dataclass(frozen=True)
class Fold:
    """Counts of one fold: images that show a class of it, that show another class, and images by class."""

    images: int
    others: int
    classes: dict[int, int]


def count(by_image: Shown, fold: Sequence[int]) -> Fold:
    """Counts of the classes `fold`."""
    wanted = frozenset(fold)
    return Fold(
        images=sum(bool(classes & wanted) for classes in by_image.values()),
        others=sum(bool(classes - wanted) for classes in by_image.values()),
        classes={c: sum(c in classes for classes in by_image.values()) for c in fold},
    )


def report(config: DatasetKeys, dataset: Dataset, by_image: Shown) -> Iterator[str]:
    """Lines for people: the counts of each fold, in both conventions for coco20i, and how they differ."""
    yield f"{config.name}: {len(by_image)} images of {config.root}; a class counts from {config.min_area} pixels"
    yield "images: with a class of the fold; pairs: (image, class); others: images with a class outside of the fold"
    conventions = {f" ({c})": coco.fold_classes(c) for c in coco.FOLDS} if config.name == "coco20i" else {}
    for title, folds in (conventions or {"": dataset.folds}).items():
        yield f"{'fold' + title:20}{'images':>8}{'pairs':>8}{'others':>8}"
        for i, fold in enumerate(folds):
            counted = count(by_image, fold)
            yield f"{i:<20}{counted.images:8}{sum(counted.classes.values()):8}{counted.others:8}"
            if folds == dataset.folds:
                named = (f"{dataset.class_names[c - 1]} {n}" for c, n in counted.classes.items())
                yield _wrapped(named)
    yield from differences(config, dataset, by_image)


def _wrapped(entries: Iterable[str]) -> str:
    """Entries side by side, none broken over two lines."""
    text = ", ".join(entry.replace(" ", "\N{NO-BREAK SPACE}") for entry in entries)
    indent = 6 * " "
    wrapped = textwrap.fill(text, 110, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    return wrapped.replace("\N{NO-BREAK SPACE}", " ")


def differences(config: DatasetKeys, dataset: Dataset, by_image: Shown) -> Iterator[str]:
    """What differs from the counts that the field knows, a line each; that nothing does; or why nobody can say."""
    empty = [
        dataset.class_names[c - 1] for fold in dataset.folds for c, n in count(by_image, fold).classes.items() if not n
    ]
    if empty:
        yield f"{len(empty)} classes are on no image: {', '.join(empty[:8])}{' ...' if len(empty) > 8 else ''}"
    if config.name == "fss1000":
        yield from _fss1000(config, dataset)
        return
    known = _known(config, dataset)
    if not known:
        yield "there are no published counts to compare with"
    elif config.min_area != KNOWN_AREA:
        yield f"published counts are of dataset.min_area={KNOWN_AREA}: not compared"
    else:
        yield from _compare(known, len(dataset.names), [count(by_image, fold) for fold in dataset.folds])


def _known(config: DatasetKeys, dataset: Dataset) -> tuple[Known, ...]:
    if config.name == "pascal5i":
        return PASCAL
    interleaved = config.name == "coco20i" and dataset.folds == coco.fold_classes("interleaved")
    return COCO_2014 if interleaved and dataset.names[0].startswith(("val2014/", "train2014/")) else ()


def _compare(known: Sequence[Known], images: int, folds: Sequence[Fold]) -> Iterator[str]:
    official = next((k for k in known if k.images == images), None)
    if official is None:
        lists = " and ".join(f"{k.images} of {k.what}" for k in known)
        kind = "a part of one" if images < max(k.images for k in known) else "more than any"
        yield f"{images} images are {kind} of the lists with published counts ({lists}): not compared"
        return
    pairs = [("images", official.folds, [f.images for f in folds])]
    pairs += [("images with other classes", official.others, [f.others for f in folds])]
    pairs += [("images of each class", official.classes, [n for f in folds for n in f.classes.values()])]
    wrong = [(what, list(expected), got) for what, expected, got in pairs if expected and list(expected) != got]
    for what, expected, got in wrong:
        yield f"differs: {what}: published for {official.what} {expected}, here {got}"
    if not wrong:
        yield f"all counts are those published for {official.what}"


def _fss1000(config: DatasetKeys, dataset: Dataset) -> Iterator[str]:
    expected = fss1000.IMAGES_PER_CLASS
    number = {c: 0 for c in dataset.class_names}
    for name in dataset.names:
        number[name.rpartition("/")[0]] += 1
    wrong = {c: n for c, n in number.items() if n != expected}
    for name, n in list(wrong.items())[:8]:
        yield f"differs: {name}: {expected} images published, here {n}"
    sizes = sorted(set(fss1000.SPLITS.values()))
    if len(number) not in sizes:
        yield f"{len(number)} classes; the published splits have {' or '.join(map(str, sizes))}: a part of one"
    elif not wrong:
        yield f"{len(number)} classes of {expected} images, as published"
    if not config.list:
        yield "this split is alphabetical, not the paper's: give dataset.list=FILE to compare with published figures"
