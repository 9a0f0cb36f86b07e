"""The labelled images that models are measured on: what of them is hashed, and whether episodes can come of them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.config import Config
from cluster.datasets.training import renders
from cluster.engine.settings import complaints
from fss import shards
from fss.datasets import Dataset, areas, open_dataset
from fss.scenes.scene import CLASSES

#: Masks that are looked at until one shows something.
_LOOKS = 100
_SCENE_FOLDS = 4


@dataclass(frozen=True)
class MeasuredSettings:
    """Which labelled images models are measured on."""

    name: str
    options: Mapping[str, Any]
    """Of the data set, as `fss.datasets.open_dataset` takes them."""
    min_area: int
    classes: tuple[str, ...]
    images: str | None
    """A hash over names and sizes of the images that are listed, and of their masks: a file that is replaced by another
    one of the same length goes unnoticed. None where the render stage makes them."""


@dataclass(frozen=True)
class MeasuredPlace:
    """Where they are: the data set's folder, None where the render stage makes it, and the list below it."""

    root: str | None
    list_file: str | None


def place(config: Config) -> MeasuredPlace:
    """Where they are, by this configuration."""
    root = config.dataset.root
    return MeasuredPlace(root and str(Path(root).resolve()), None if renders(config) else config.dataset.list)


def settings(config: Config) -> MeasuredSettings:
    """What of the images shapes figures.

    Raises:
        ValueError: for a data set that cannot be used, see `problems`.
    """
    chosen, classes, digest = config.dataset, tuple(CLASSES), None
    if not renders(config):
        dataset = given(config)
        classes, digest = dataset.class_names, _hash(dataset)
    return MeasuredSettings(chosen.name, chosen.options(), chosen.min_area, classes, digest)


def given(config: Config) -> Dataset:
    """The user's data set.

    Raises:
        ValueError: if dataset.root is not set, or there is no such set.
    """
    where, chosen = place(config), config.dataset
    if where.root is None:
        raise ValueError(
            f"dataset.root: expected the folder of {chosen.name}, whose labelled images models are measured on, got "
            "none; give it as dataset.root=FOLDER"
        )
    return _open(chosen.name, where.root, where.list_file, tuple(chosen.options().items()))


@functools.lru_cache(maxsize=2)
def _open(name: str, root: str, list_file: str | None, options: tuple[tuple[str, Any], ...]) -> Dataset:
    return open_dataset(name, root, list_file, **dict(options))


def _hash(dataset: Dataset) -> str:
    """Over the names and sizes of images and masks; one that is missing counts as such."""
    sizes = [(name, *(_size(path) for path in _paths(dataset, name))) for name in dataset.names]
    return shards.sha256(shards.dumps(sizes))


def _paths(dataset: Dataset, name: str) -> list[Path]:
    return [dataset.path(name), *([dataset.mask_path(name)] if dataset.mask_path else [])]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def problems(config: Config) -> list[str]:
    """Whether the data set is there, has the fold, and masks that show something."""
    if renders(config):
        return _fold(config, _SCENE_FOLDS)
    wrong = complaints(lambda: given(config))
    if wrong:
        return wrong
    dataset = given(config)
    return [*_fold(config, len(dataset.folds)), *complaints(lambda: _show_something(dataset, str(config.dataset.root)))]


def _fold(config: Config, number: int) -> list[str]:
    if config.episode_list or config.fold == "all" or config.fold in range(number):
        return []
    return [
        f"fold: {config.dataset.name} has the folds 0..{number - 1}, got {config.fold}; set one of them, or fold=all"
    ]


def _show_something(dataset: Dataset, root: str) -> None:
    """Look at masks all over the list until one shows a class."""
    step = max(1, len(dataset.names) // _LOOKS)
    names = dataset.names[::step]
    if not any(areas(dataset, name) for name in names):
        raise ValueError(
            f"dataset.root: expected masks in {root} that show classes, got {len(names)} of nothing but background and "
            "void; check their values, and dataset.name"
        )


def tested(config: Config) -> Sequence[str]:
    """The names of the classes that are tested, of the user's images or of those that will be rendered."""
    if renders(config):
        size = len(CLASSES) // _SCENE_FOLDS
        return [name for number, name in enumerate(CLASSES) if config.fold in ("all", number // size)]
    dataset = given(config)
    folds = dataset.folds if config.fold == "all" else [dataset.folds[config.fold]]
    return [dataset.class_names[c - 1] for fold in folds for c in fold]
