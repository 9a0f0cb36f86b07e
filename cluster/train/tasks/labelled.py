"""Tasks of labelled images: episodes of the classes that a fold does not test, drawn while training.

The same interface as pseudo-tasks (`cluster.train.tasks.Tasks`), one shard an epoch. The images that are used stand in
`LIST`.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.config import Config
from cluster.datasets import training
from cluster.datasets.training import TrainingImages, TrainingSettings
from cluster.engine.stage import Output, Unit, Work, read_file
from fss import shards
from fss.datasets import Dataset, areas
from fss.datasets.parts import files
from fss.imaging import images
from fss.tasks import labelled, task

logger = logging.getLogger(__name__)

#: The names of the images that training used, one a line: a list for train.images.
LIST = "labelled.txt"
_IMAGES = 64


@dataclass(frozen=True)
class LabelledSettings:
    """What of the labelled images shapes training."""

    images: TrainingSettings
    shots: int
    min_area: int


def settings(config: Config) -> LabelledSettings:
    """What of the labelled images shapes training."""
    return LabelledSettings(training.settings(config), config.pair.shots, config.dataset.min_area)


@dataclass(frozen=True)
class IndexMasks:
    """Pixels of each class in each image of a unit."""

    source: TrainingImages

    def __call__(self, unit: Unit) -> Output:
        """A JSON file {name: {class: pixels}}."""
        dataset, _ = self.source.open()
        pixels = {name: areas(dataset, name) for name in unit.payload}
        return Output({f"index/{unit.name}.json": shards.dumps(pixels)}, counts={"images": len(pixels)})


def open_tasks(
    work: Work[Any, Any], chosen: LabelledSettings, source: TrainingImages, held: int
) -> tuple[LabelledTasks, LabelledTasks]:
    """Those for training and `held` ones for validation; the masks are indexed once, by the run's workers.

    Raises:
        ValueError: if there are too few images of every class.
        StageError: if an image or a mask is damaged, naming it.
    """
    used = source.used()
    parts = [used[start : start + _IMAGES] for start in range(0, len(used), _IMAGES)]
    units = [Unit(f"masks-{number:06d}", part) for number, part in enumerate(parts)]
    indexed, _ = work.map("train", IndexMasks(source), units, parts="blocks of masks")
    table: dict[str, dict[int, int]] = {}
    for file in indexed:
        for name, pixels in json.loads(read_file(work.folder, file)).items():
            table[name] = {int(class_id): area for class_id, area in pixels.items()}
    dataset, classes = source.open()
    train, validating = labelled.episodes(
        {name: table[name] for name in used},
        classes,
        shots=chosen.shots,
        min_area=chosen.min_area,
        held=held,
        seed=chosen.images.seed,
    )
    logger.info(
        "train: %d of %d labelled images, %d with objects of %d of %d classes are trained on, %d validate",
        *(len(used), len(dataset.names), len(train.queries), len(train.supports), len(classes)),
        len(validating.queries),
    )
    return LabelledTasks(source, train, False), LabelledTasks(source, validating, True)


def facts(source: TrainingImages) -> dict[str, Any]:
    """What an exported model says of the labels it has seen; evaluation refuses to test on `classes`."""
    dataset, classes = source.open()
    return {
        "labelled": True,
        "dataset": source.name,
        "fold": source.fold,
        "ratio": source.ratio,
        "images": len(source.used()),
        "classes": [dataset.class_names[c - 1] for c in classes],
    }


@dataclass(frozen=True)
class LabelledTasks:
    """Episodes of labelled images as tasks, each read when it is asked for. Picklable."""

    source: TrainingImages
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
def _mask(source: TrainingImages) -> Callable[[str, int], bytes]:
    """PNGs of masks in {0, 1, 255}; the last few thousand, of a few kilobytes each, are kept."""
    dataset, _ = source.open()
    return functools.lru_cache(4096)(lambda name, class_id: images.encode_png(dataset.binary_mask(name, class_id)))
