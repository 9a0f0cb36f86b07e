"""The labelled images that a run may learn from: those of the classes that its fold does not test.

The images that are used, a share of the data set's, are a pure function of the run's seed and of their names.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.config import Config
from cluster.engine.manifest import Manifest
from cluster.engine.settings import complaints
from fss import shards
from fss.datasets import Dataset, open_training
from fss.scenes.scene import CLASSES
from fss.tasks import labelled


@dataclass(frozen=True)
class TrainingSettings:
    """Which labelled images are learned from."""

    dataset: str
    fold: int
    options: Mapping[str, Any]
    """Of the data set, as `fss.datasets.open_dataset` takes them."""
    ratio: float
    seed: int
    listed: str | None
    """Of rendered images: the name of their list, or the hash of a list of the user's."""
    classes: tuple[int, ...] | None
    images: str | None
    """A hash over names and sizes of the user's images and masks, which takes a second for a whole COCO: a file that is
    replaced by another one of the same length goes unnoticed. None of both where the render stage makes them."""


@dataclass(frozen=True)
class TrainingPlace:
    """Where they are: the data set's folder, None where the render stage makes it; their list, and the tested one."""

    root: str | None
    images: str | None
    tested: str | None


@dataclass(frozen=True)
class TrainingImages:
    """The arguments of `fss.datasets.open_training`, and which share is used."""

    name: str
    root: str
    images: str | None
    fold: int
    tested: str | None
    options: tuple[tuple[str, Any], ...]
    ratio: float
    seed: int

    def open(self) -> tuple[Dataset, tuple[int, ...]]:
        """The images and the classes to train on; kept for the next call in this process."""
        return _open(self)

    def used(self) -> tuple[str, ...]:
        """The names of the images that are used, in the order of their list."""
        return labelled.subset(self.open()[0].names, self.ratio, self.seed)


@functools.lru_cache(maxsize=2)
def _open(one: TrainingImages) -> tuple[Dataset, tuple[int, ...]]:
    return open_training(one.name, one.root, one.images, one.fold, one.tested, **dict(one.options))


def renders(config: Config) -> bool:
    """Whether the images are those of the render stage."""
    return config.dataset.rendered


def needed(config: Config) -> tuple[str, ...]:
    """The stages that they come from."""
    return ("render",) if renders(config) else ()


def place(config: Config) -> TrainingPlace:
    """Where they are, by this configuration."""
    root = config.dataset.root
    return TrainingPlace(root and str(Path(root).resolve()), config.train.images, config.dataset.list)


def images(chosen: TrainingSettings, where: TrainingPlace, inputs: Mapping[str, Manifest]) -> TrainingImages:
    """The images of these settings, which lie at this place or in the render stage of `inputs`."""
    root = where.root or str(inputs["render"].folder)
    options = tuple(chosen.options.items())
    share = (chosen.ratio, chosen.seed)
    return TrainingImages(chosen.dataset, root, where.images, chosen.fold, where.tested, options, *share)


def settings(config: Config) -> TrainingSettings:
    """What of the labelled images shapes what is learned.

    Raises:
        ValueError: for a data set that cannot be used, see `problems`.
    """
    listed = classes = digest = None
    if renders(config):
        listed = _content(config.train.images)
    else:
        source = given(config)
        dataset, classes = source.open()
        sizes = [(name, *(path.stat().st_size for path in _files(dataset, name))) for name in source.used()]
        digest = shards.sha256(shards.dumps(sizes))
    return TrainingSettings(
        dataset=config.dataset.name,
        fold=config.fold,
        options=config.dataset.options(),
        ratio=config.train.ratio,
        seed=config.seed,
        listed=listed,
        classes=classes,
        images=digest,
    )


def _content(name: str | None) -> str | None:
    return shards.sha256(Path(name).read_bytes()) if name and Path(name).is_file() else name


def given(config: Config) -> TrainingImages:
    """The user's images.

    Raises:
        ValueError: if dataset.root is not set.
    """
    where, chosen = place(config), config.dataset
    if where.root is None:
        raise ValueError(
            f"dataset.root: expected the folder of {chosen.name} with its training images, got none; give it "
            "as dataset.root=FOLDER"
        )
    options = tuple(chosen.options().items())
    share = (config.train.ratio, config.seed)
    return TrainingImages(chosen.name, where.root, where.images, config.fold, where.tested, options, *share)


def class_names(config: Config) -> tuple[str, ...]:
    """The names of all classes of the data set, those of the user's images or of those that will be rendered."""
    return tuple(CLASSES) if renders(config) else given(config).open()[0].class_names


def trained_names(config: Config) -> tuple[str, ...]:
    """The names of the classes of rendered images that the fold does not test."""
    size = len(CLASSES) // 4
    return tuple(name for number, name in enumerate(CLASSES) if number // size != config.fold)


def problems(config: Config) -> Sequence[str]:
    """Whether the user's images, their list, masks and fold are there."""
    return [] if renders(config) else complaints(lambda: settings(config))


def _files(dataset: Dataset, name: str) -> list[Path]:
    paths = [dataset.path(name), *([dataset.mask_path(name)] if dataset.mask_path else [])]
    missing = next((path for path in paths if not path.is_file()), None)
    if missing:
        raise ValueError(f"{name}: expected {missing}, it is not there; check dataset.root and train.images")
    return paths
