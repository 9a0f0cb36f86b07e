"""evaluate: a fixed list of episodes, split over the workers; integer counts come back and add.

Every model is measured on the same episodes, next to the training-free read-out of its own backbone. An image's
features are computed once a worker, for all its episodes, numbers of shots and heads on one backbone.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cluster import backbone, publish
from cluster.backbone import BackboneSpec
from cluster.config import folds, shots
from cluster.measure import Block, DataSpec, Entry, IndexImages, RunBlock, testable
from cluster.run import Run
from cluster.stage import File, Stage, Unit, map_units, write_file
from cluster.stages.train import model_options
from fss import metrics, segmenter
from fss.datasets import Dataset

logger = logging.getLogger(__name__)

_BLOCK = 50
_INDEX_BLOCK = 64
FLOOR = "prototype read-out"
SMOOTHED = "smoothed read-out"
READOUTS = ("prototype", "smoothed")
"""Heads that need no training."""


def summary(rows: pa.Table, dataset: Dataset) -> dict[str, Any]:
    """Figures by model, number of shots and fold, with the mean over the folds; fractions in [0, 1]."""
    found: dict[str, Any] = {}
    for row in rows.to_pylist():
        folds_of = found.setdefault(row["model"], {}).setdefault(str(row["shots"]), {})
        folds_of.setdefault(str(row["fold"]), []).append(row)
    for by_shots in found.values():
        for number, by_fold in by_shots.items():
            figures = {fold: _named(metrics.summarise(r), dataset) for fold, r in sorted(by_fold.items())}
            keys = ("miou", "miou_episode_mean", "fb_iou", "area_ratio")
            mean = {key: float(np.mean([f[key] for f in figures.values()])) for key in keys}
            by_shots[number] = {"folds": figures, "mean": mean}
    return found


def _named(figures: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    return figures | {"classes": {dataset.class_names[c - 1]: v for c, v in figures["classes"].items()}}


def data_spec(run: Run) -> DataSpec:
    """Which labelled images this run is measured on.

    Raises:
        ValueError: if dataset.root is not set.
    """
    chosen = run.config.dataset
    if chosen.name == "scenes" and not chosen.root:
        return DataSpec("scenes", str(run.manifest("render").folder), None)
    if not chosen.root:
        raise ValueError(f"expected the folder of {chosen.name}: give it as dataset.root=FOLDER")
    return DataSpec(chosen.name, str(Path(chosen.root).resolve()), chosen.list)


def entries(run: Run) -> tuple[Entry, ...]:
    """What is measured: the floors first, the model last."""
    model = run.config.model
    if model.name == "trained":
        if not model.path:
            raise ValueError("expected the folder of an exported model: give it as model=FOLDER")
        folder = segmenter.find(model.path)
        about = segmenter.read_about(folder)
        chosen = about["backbone"]
        weights = str(folder / "backbone.safetensors")
        spec = BackboneSpec(chosen["name"], weights, chosen["stride"], chosen["size"], 0)
        return (*_floors(spec), Entry(about["model"]["name"], spec, "trained", str(folder)))
    spec = backbone.spec(run)
    if model.name in READOUTS:
        return (Entry(FLOOR if model.name == "prototype" else SMOOTHED, spec, model.name),)
    found = [*_floors(spec)]
    if run.config.backbone.weights == "pretrain":
        found.insert(0, Entry(f"{FLOOR}, random backbone", backbone.untrained(run), "prototype"))
    found.append(Entry(f"{model.name}, meta-trained", spec, "trained", str(run.manifest("train").folder / "model")))
    return tuple(found)


def _floors(spec: BackboneSpec) -> tuple[Entry, Entry]:
    """What a trained head has to beat: the field's floor, and the read-out that residual heads start from."""
    return Entry(FLOOR, spec, "prototype"), Entry(SMOOTHED, spec, "smoothed")


def _inputs(run: Run) -> tuple[str, ...]:
    config = run.config
    needed = ["train"] if config.model.name not in (*READOUTS, "trained") else []
    needed += backbone.needed(run) if config.model.name != "trained" else []
    needed += ["render"] if config.dataset.name == "scenes" and not config.dataset.root else []
    return tuple(needed)


def _settings(run: Run) -> dict[str, Any]:
    config = run.config
    settings: dict[str, Any] = {
        "seed": config.seed,
        "folds": folds(config),
        "shots": shots(config),
        "episodes": config.episodes,
        "dataset": vars(config.dataset),
        "save_predictions": config.save_predictions,
    }
    if config.model.name == "trained":
        return settings | {"model": [segmenter.read_about(segmenter.find(config.model.path or ""))["sha256"]]}
    return settings | {"model": model_options(run)["name"], "backbone": backbone.settings(run)}


def _work(run: Run, folder: Path) -> tuple[Sequence[File], Mapping[str, int]]:
    config, data = run.config, data_spec(run)
    dataset = data.open()
    images_of = _index(run, folder, data, dataset)
    measured, left_out = entries(run), _left_out(run, dataset, images_of)
    units = [
        Unit(f"fold{f}-{k}shot-{start:06d}", Block(f, k, start, min(start + _BLOCK, config.episodes)))
        for k in shots(config)
        for f in folds(config)
        for start in range(0, config.episodes, _BLOCK)
    ]
    function = RunBlock(
        data=data,
        images_of=images_of,
        entries=measured,
        seed=config.seed,
        capacity=int(config.train.cache_gib * 2**30),
        save_predictions=config.save_predictions,
        flat=len(measured) == len(shots(config)) == len(folds(config)) == 1,
    )
    files, counts = map_units(
        run, folder, "evaluate", function, units, total=len(units), items="episodes", parts="blocks"
    )
    table = pa.concat_tables([pq.read_table(folder / f.path) for f in files if f.path.startswith("rows/")])
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    figures = {
        "dataset": {"name": data.name, "images": len(dataset.names), "min_area": config.dataset.min_area},
        "episodes_per_fold": config.episodes,
        "seed": config.seed,
        "resolution": "original",
        "left_out": left_out,
        "models": summary(table, dataset),
    }
    own = [
        write_file(folder, "episodes.parquet", buffer.getvalue(), len(table)),
        write_file(folder, "metrics.json", (json.dumps(figures, indent=2) + "\n").encode()),
    ]
    return [*files, *own], counts


def _left_out(run: Run, dataset: Dataset, images_of: Mapping[int, tuple[str, ...]]) -> dict[str, list[str]]:
    """The classes that cannot be tested for want of images, by number of shots.

    Raises:
        ValueError: if that leaves a fold without any class.
    """
    found: dict[str, list[str]] = {}
    for number in shots(run.config):
        for fold in folds(run.config):
            classes = dataset.folds[fold]
            enough = testable(images_of, classes, number)
            if not enough:
                raise ValueError(
                    f"fold {fold}: expected a class with at least {number + 1} images of {run.config.dataset.min_area} "
                    "pixels, found none; lower shots= or dataset.min_area=, or give more images"
                )
            missing = [dataset.class_names[c - 1] for c in classes if c not in enough]
            if missing:
                found.setdefault(str(number), []).extend(missing)
                logger.warning("fold %d, %d-shot: too few images of %s, left out", fold, number, ", ".join(missing))
    return found


def _index(run: Run, folder: Path, data: DataSpec, dataset: Dataset) -> dict[int, tuple[str, ...]]:
    """The images that show each class on at least dataset.min_area pixels."""
    names = dataset.names
    units = [
        Unit(f"index-{start:06d}", names[start : start + _INDEX_BLOCK]) for start in range(0, len(names), _INDEX_BLOCK)
    ]
    files, _ = map_units(run, folder, "index", IndexImages(data), units, total=len(units), parts="blocks")
    found: dict[int, list[str]] = {}
    for file in files:
        for name, pixels in publish.read_json(folder / file.path).items():
            for class_id, area in pixels.items():
                if area >= run.config.dataset.min_area:
                    found.setdefault(int(class_id), []).append(name)
    return {class_id: tuple(names) for class_id, names in sorted(found.items())}


STAGE = Stage("evaluate", _inputs, _settings, _work)
