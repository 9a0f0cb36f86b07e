"""The labelled images that a model may be trained on, and the classes it may be trained on, by fold."""

from __future__ import annotations

from pathlib import Path

from fss.datasets import Dataset, coco, open_dataset

#: Lists of training images that a set itself brings, the first that is there.
LISTS = {
    "pascal5i": ("ImageSets/Segmentation/trainaug.txt", "ImageSets/Segmentation/train.txt"),
    "scenes": ("ImageSets/train.txt",),
}


def open_training(
    name: str, root: str, images: str | None, fold: int, tested: str | None = None, **options: str | int | None
) -> tuple[Dataset, tuple[int, ...]]:
    """Labelled images of data set `name` and the classes of them that `fold` does not test.

    `images` is their list; None is the set's own: `LISTS`, the training images of coco20i, the training classes of
    fss1000. `tested` is the list that is measured on (fss1000: its classes are those tested); `options` as
    `open_dataset` takes them.

    Raises:
        ValueError: if there is no list, no such fold, or no class is left.
    """
    dataset = _open(name, root, images, options)
    if name == "fss1000":
        measured = open_dataset(name, root, tested, **options)
        names = {measured.class_names[c - 1] for c in _fold(measured, name, fold)}
    else:
        names = {dataset.class_names[c - 1] for c in _fold(dataset, name, fold)}
    left = tuple(c for c, called in enumerate(dataset.class_names, 1) if called not in names)
    if not left:
        raise ValueError(
            f"expected classes that fold {fold} of {name} does not test, it tests all {len(dataset.class_names)}; "
            f"{'set dataset.num_folds' if name == 'folder' else 'give other images as train.images'}"
        )
    return dataset, left


def _open(name: str, root: str, images: str | None, options: dict[str, str | int | None]) -> Dataset:
    if name == "fss1000":
        return open_dataset(name, root, images, **options | {"split": None if images else "train"})
    if images:
        return open_dataset(name, root, images, **options)
    if name == "coco20i":
        return coco.training(root, str(options.get("folds") or "interleaved"), year=_year(options))
    found = next((one for one in LISTS.get(name, ()) if (Path(root) / one).is_file()), None)
    if found is None:
        known = f" at {' or '.join(str(Path(root) / one) for one in LISTS[name])}" if name in LISTS else ""
        raise ValueError(f"expected a list of {name}'s training images{known}; set train.images=FILE")
    return open_dataset(name, root, found, **options)


def _year(options: dict[str, str | int | None]) -> int | None:
    year = options.get("year")
    return None if year is None else int(year)


def _fold(dataset: Dataset, name: str, fold: int) -> tuple[int, ...]:
    if not 0 <= fold < len(dataset.folds):
        raise ValueError(f"fold: {name} has the folds 0..{len(dataset.folds) - 1}, got {fold}")
    return dataset.folds[fold]
