"""MaskSplit's ablations: the rows of its Tables 1 and 2, each a pipeline that shares what it can with the others.

    python -m benchmarks.ablation [--only ROW ...] [--json FILE] [key=value ...]
    python -m benchmarks.ablation corpus.root=VOC2012/JPEGImages corpus.list=train.txt dataset.root=VOC2012 ...

`key=value` are those of jobs.pipeline, over experiment=masksplit. Rows of ground truth take the masks of the data set's
training images (train.images=LIST, if not its own). Rows `fold` train a model for each fold, on those of them that show
nothing of the classes which it tests; the paper does not say which it takes. Figures are the protocol's headline of
the first number of shots; the paper's are of ResNet-101 and 2,500 episodes of 5 lists on all of PASCAL-5i.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cluster.config import Config
from cluster.engine import publish
from cluster.engine.run import Run
from cluster.evaluate import measured
from cluster.stages import STAGES
from fss.datasets import Dataset, areas, open_training
from jobs._config import load

_PLAIN_VIEWS = ("crop=1", "widest=1", "rotation=0", "flip=0", "vertical_flip=0", "colour=0", "gray=0", "blur=0")


@dataclasses.dataclass(frozen=True)
class Row:
    """One row: what it changes, and the paper's mean mIoU."""

    name: str
    paper: float
    changes: tuple[str, ...] = ()
    truth: bool = False
    """Whether regions are the classes' masks."""
    fold: bool = False
    """Whether each fold has a model of its own."""


ROWS = (
    Row("aug, no split", 48.6, ("pair.split.probability=0",)),
    Row("Vsplit, no aug", 47.8, tuple(f"train.augment.{one}" for one in _PLAIN_VIEWS)),
    Row("Vsplit, no slope", 51.0, ("pair.split.slope=0",)),
    Row("Hsplit", 52.3, ("pair.split.kind=horizontal",)),
    Row("MixedSplit", 51.3, ("pair.split.kind=mixed",)),
    Row("Vsplit, no alternate", 52.7, ("pair.split.alternate=false",)),
    Row("Vsplit, probability 0.3", 51.9, ("pair.split.probability=0.3",)),
    Row("Vsplit", 53.0),
    Row("ground truth, fold", 45.1, truth=True, fold=True),
    Row("saliency, fold", 50.9, fold=True),
    Row("supervised, fold", 52.6, ("train.tasks=labelled",), fold=True),
    Row("ground truth", 57.3, truth=True),
)


_IMAGES = "train.images="


def measure(row: Row, given: Sequence[str], folder: Path) -> dict[str, float]:
    """The headline of each fold and their mean, in per cent; lists of images are written into `folder`."""
    images = next((one.removeprefix(_IMAGES) for one in given if one.startswith(_IMAGES)), None)
    labelled = "train.tasks=labelled" in row.changes  # elsewhere the list is ours alone: training reads no labels
    taken = [one for one in given if labelled or not one.startswith(_IMAGES)]
    arguments = ["experiment=masksplit", *taken, *row.changes]
    config = load(arguments)
    number = len(_open(config, images, 0)[0].folds) if row.fold else 1
    figures: dict[str, float] = {}
    for fold in range(number):
        dataset, classes = _open(config, images, fold) if row.truth or row.fold else (None, ())
        more = [f"fold={fold}"] if row.fold else []
        if row.truth and dataset is not None:
            more += [f"source.maps={_masks(dataset)}", "source.maps_kind=classes"]
        if row.fold and dataset is not None:
            place = folder / f"fold{fold}.txt"
            place.write_text("".join(f"{name}\n" for name in _without(dataset, classes)))
            more.append(f"corpus.list={place}")
        figures |= _folds(load([*arguments, *more]))
    return {**figures, "mean": statistics.fmean(figures.values())}


def _open(config: Config, images: str | None, fold: int) -> tuple[Dataset, tuple[int, ...]]:
    """The labelled training images, and the classes that `fold` does not test."""
    chosen = config.dataset
    return open_training(chosen.name, chosen.root or "", images, fold, chosen.list, **chosen.options())


def _masks(dataset: Dataset) -> Path:
    if dataset.mask_path is None:
        raise SystemExit("rows of ground truth need a data set with a folder of masks: pascal5i or folder")
    return dataset.mask_path(dataset.names[0]).parent


def _without(dataset: Dataset, classes: Sequence[int]) -> list[str]:
    """The images that show some of `classes` and nothing else."""
    return [name for name in dataset.names if (shown := set(areas(dataset, name))) and shown <= set(classes)]


def _folds(config: Config) -> dict[str, float]:
    """The trained model's headline in every fold that is measured."""
    with Run(config, STAGES) as run:
        figures = publish.read_json(run.ensure("evaluate").path("metrics.json"))
    *_, model = figures["models"].values()
    folds = next(iter(model.values()))["folds"]
    return {fold: 100 * measured.pick(one, config.protocol.headline) for fold, one in folds.items()}


def table(found: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """The rows as lines."""
    folds = list(dict.fromkeys(fold for row in found.values() for fold in row if fold != "mean"))
    columns = [*(f"fold {fold}" for fold in folds), "mean", "paper"]
    yield f"{'row':<26}" + "".join(f"{column:>9}" for column in columns)
    for row in ROWS:
        if row.name in found:
            figures = [found[row.name].get(key, math.nan) for key in (*folds, "mean")]
            yield f"{row.name:<26}" + "".join(f"{figure:>9.1f}" for figure in (*figures, row.paper))


def main() -> None:
    """Measure the rows one after the other, print the table, and write it with --json."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="*", choices=[row.name for row in ROWS], default=[row.name for row in ROWS])
    parser.add_argument("--json")
    chosen, given = parser.parse_known_args()
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for row in (row for row in ROWS if row.name in chosen.only):
            figures[row.name] = measure(row, given, Path(folder))
            print("\n".join(table(figures)), flush=True)
            if chosen.json:
                Path(chosen.json).write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
