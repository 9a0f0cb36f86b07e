"""Tasks of labelled images: episodes of the classes that a fold does not test, drawn while training.

The same interface as pseudo-tasks (`cluster.train.tasks.Tasks`), one shard an epoch. The images that are used, a
share of the data set's, are a pure function of the run's seed and of their names, and stand in `LIST`.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.engine.run import Run
from cluster.engine.stage import Output, Unit, map_units, read_file
from fss import shards
from fss.datasets import Dataset, areas, files
from fss.datasets.training import open_training
from fss.imaging import images
from fss.tasks import labelled, task

logger = logging.getLogger(__name__)

#: The names of the images that training used, one a line: a list for train.images.
LIST = "labelled.txt"
_IMAGES = 64


@dataclass(frozen=True)
class Source:
    """Which labelled images: the arguments of `fss.datasets.training.open_training`."""

    name: str
    root: str
    images: str | None
    fold: int
    tested: str | None
    options: tuple[tuple[str, Any], ...]

    def open(self) -> tuple[Dataset, tuple[int, ...]]:
        """The images and the classes to train on; kept for the next call in this process."""
        return _open(self)


@functools.lru_cache(maxsize=2)
def _open(source: Source) -> tuple[Dataset, tuple[int, ...]]:
    return open_training(source.name, source.root, source.images, source.fold, source.tested, **dict(source.options))


def source(run: Run) -> Source:
    """The labelled images of this run.

    Raises:
        ValueError: if dataset.root is not set.
    """
    config, chosen = run.config, run.config.dataset
    root = chosen.root
    if renders(run):
        root = str(run.manifest("render").folder)
    if not root:
        raise ValueError(
            f"expected the folder of {chosen.name} with its training images: give it as dataset.root=FOLDER"
        )
    options = tuple(chosen.options().items())
    return Source(chosen.name, str(Path(root).resolve()), config.train.images, config.fold, chosen.list, options)


def renders(run: Run) -> bool:
    """Whether the images are those of the render stage."""
    return run.config.dataset.name == "scenes" and not run.config.dataset.root


def names(run: Run) -> tuple[str, ...]:
    """The images that are used, in the order of their list."""
    dataset, _ = source(run).open()
    return labelled.subset(dataset.names, run.config.train.ratio, run.config.seed)


def settings(run: Run) -> dict[str, Any]:
    """What of the labelled images shapes training.

    Images and masks count by name and size in bytes, which takes a second for a whole COCO: a file that is replaced by
    another one of the same length goes unnoticed. Rendered scenes follow from the render stage.
    """
    config = run.config
    about: dict[str, Any] = {
        "dataset": config.dataset.name,
        "fold": config.fold,
        "folds": config.dataset.options(),
        "shots": config.pair.shots,
        "min_area": config.dataset.min_area,
        "seed": config.seed,
    }
    if renders(run):
        return about
    dataset, classes = source(run).open()
    sizes = [(name, *(path.stat().st_size for path in _files(dataset, name))) for name in names(run)]
    return about | {"classes": list(classes), "images": shards.sha256(shards.dumps(sizes))}


def _files(dataset: Dataset, name: str) -> list[Path]:
    found = [dataset.path(name), *([dataset.mask_path(name)] if dataset.mask_path else [])]
    missing = next((path for path in found if not path.is_file()), None)
    if missing:
        raise ValueError(f"{name}: expected {missing}, it is not there; check dataset.root and train.images")
    return found


@dataclass(frozen=True)
class IndexMasks:
    """Pixels of each class in each image of a unit."""

    source: Source

    def __call__(self, unit: Unit) -> Output:
        """A JSON file {name: {class: pixels}}."""
        dataset, _ = self.source.open()
        found = {name: areas(dataset, name) for name in unit.payload}
        return Output({f"index/{unit.name}.json": shards.dumps(found)}, counts={"images": len(found)})


def open_tasks(run: Run, folder: Path) -> tuple[LabelledTasks, LabelledTasks]:
    """Those for training and those for validation; the masks are indexed below `folder`, once, by the run's workers.

    Raises:
        ValueError: if there are too few images of every class.
        StageError: if an image or a mask is damaged, naming it.
    """
    config, found, chosen = run.config, source(run), names(run)
    parts = [chosen[start : start + _IMAGES] for start in range(0, len(chosen), _IMAGES)]
    units = [Unit(f"masks-{number:06d}", part) for number, part in enumerate(parts)]
    indexed, _ = map_units(run, folder, "train", IndexMasks(found), units, total=len(units), parts="blocks of masks")
    table: dict[str, dict[int, int]] = {}
    for file in indexed:
        for name, pixels in json.loads(read_file(folder, file)).items():
            table[name] = {int(class_id): area for class_id, area in pixels.items()}
    dataset, classes = found.open()
    train, held = labelled.episodes(
        {name: table[name] for name in chosen},
        classes,
        shots=config.pair.shots,
        min_area=config.dataset.min_area,
        held=config.train.holdout,
        seed=config.seed,
    )
    logger.info(
        "train: %d of %d labelled images, %d with objects of %d of %d classes are trained on, %d validate",
        *(len(chosen), len(dataset.names), len(train.queries), len(train.supports), len(classes), len(held.queries)),
    )
    return LabelledTasks(found, train, False), LabelledTasks(found, held, True)


def facts(run: Run) -> dict[str, Any]:
    """What an exported model says of the labels it has seen; evaluation refuses to test on `classes`."""
    dataset, classes = source(run).open()
    return {
        "labelled": True,
        "dataset": run.config.dataset.name,
        "fold": run.config.fold,
        "ratio": run.config.train.ratio,
        "images": len(names(run)),
        "classes": [dataset.class_names[c - 1] for c in classes],
    }


@dataclass(frozen=True)
class LabelledTasks:
    """Episodes of labelled images as tasks, each read when it is asked for. Picklable."""

    source: Source
    episodes: labelled.Episodes
    held: bool

    @property
    def counts(self) -> tuple[int, ...]:
        """One shard, of an epoch's episodes."""
        return (self.episodes.count,)

    def __call__(self, number: int, epoch: int) -> Sequence[task.Task]:
        """The tasks of an epoch: drawn anew in each, but for those of validation."""
        drawn_in = 0 if self.held else epoch
        return task.LazyTasks(self.episodes.count, lambda place: self._task(place, drawn_in))

    def _task(self, place: int, epoch: int) -> task.Task:
        class_id, query, supports = self.episodes.draw(place, epoch)
        keys = (query, *supports)
        dataset, _ = self.source.open()
        return task.Task(
            keys=keys,
            jpegs=tuple(_jpeg(dataset, name) for name in keys),
            masks=tuple(_mask(self.source)(name, class_id) for name in keys),
        )


def _jpeg(dataset: Dataset, name: str) -> bytes:
    """The image's file, or what is in it as JPEG."""
    path = dataset.path(name)
    data = files.read_bytes(path, "an image")
    return data if data.startswith(b"\xff\xd8\xff") else images.encode_jpeg(files.read_image(path))


@functools.lru_cache(maxsize=2)
def _mask(source: Source) -> Callable[[str, int], bytes]:
    """PNGs of masks in {0, 1, 255}; the last few thousand, of a few kilobytes each, are kept."""
    dataset, _ = source.open()
    return functools.lru_cache(4096)(lambda name, class_id: images.encode_png(dataset.binary_mask(name, class_id)))
