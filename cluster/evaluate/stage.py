"""evaluate: a fixed list of episodes, split over the workers; integer counts come back and add.

Every model is measured on the same episodes, next to the training-free read-outs of its own backbone. First the
features of all images that occur are computed, once each, into a folder that all workers and later runs share; then
workers take blocks of episodes that belong to the same queries.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import save

from cluster.config import Config
from cluster.datasets import training
from cluster.engine import publish
from cluster.engine.stage import File, Stage, Unit, read_array, read_file, write_file
from cluster.evaluate import episode_list, figures, measured, pairs, supports
from cluster.evaluate.entries import EvaluateWork, data_spec, entries, refuse_trained_on
from cluster.evaluate.episode_list import Item
from cluster.evaluate.measure import Cache, Describe, Draw, IndexImages, MeasuredModel, Picture, Prepare, RunBlock, slug
from cluster.evaluate.settings import check, decode, means, read, settings
from cluster.evaluate.supports import MaskSupports
from cluster.evaluate.units import blocks, image_names, image_units, support_units
from cluster.features import backbone
from cluster.features.head import looking_up
from cluster.label.sources import cam
from cluster.train import candidates
from fss import heads, segmenter
from fss.datasets import Dataset
from fss.evaluation.episodes import EpisodePool, EpisodeRules, draw, pool
from fss.heads.parts.capabilities import Fits

logger = logging.getLogger(__name__)


def _inputs(config: Config) -> tuple[str, ...]:
    own = config.model.name != "trained"
    needed = ["train"] if own and config.model.name not in heads.training_free() else []
    needed += backbone.needed(config) if own else []
    needed += ["index"] if looking_up(config) else []
    needed += training.needed(config)
    return tuple(needed)


class _Evaluation:
    """One run of the stage: what its steps share."""

    def __init__(self, given: EvaluateWork):
        self.given, self.folder, self.settings, means = given, given.folder, given.settings, given.means
        self.data = data_spec(given)
        self.dataset: Dataset = self.data.open()
        self.entries = entries(given)
        self.cache = Cache(
            folder=str(means.features) if means.features_gib else None,
            disk=int(means.features_gib * 2**30),
            memory=int(means.memory_gib * 2**30),
        )
        self.left_out: dict[str, list[str]] = {}
        self.support_iou: float | None = None

    def work(self) -> tuple[Sequence[File], Mapping[str, int]]:
        """All steps, and the stage's files."""
        items = self.items()
        if self.settings.select == "base_classes" and len({item.fold for item in items}) < 2:
            raise ValueError("select=base_classes: expected several folds, the others' classes select; set fold=all")
        refuse_trained_on(self.entries, self.dataset, items)
        self._prepare(items)
        if self.settings.protocol.supports == "names":
            self._mask_supports(items)
        self.entries = tuple(self._fitted(entry) for entry in self.entries)
        function = RunBlock(
            self.data, self.entries, self.cache, self.settings.protocol.resolution, *self._predictions(items)
        )
        files, counts = self._map("evaluate", function, list(blocks(items)), items="episodes")
        rows, selection = self._selected(self._table(files))
        files += self._pictures(function, rows, items, selection)
        listed = episode_list.encode(items, self.data.name, self.dataset.class_names)
        results = self._figures(rows, items, selection)
        own = {
            "episode_list.parquet": listed,
            "episodes.parquet": publish.parquet(rows),
            "metrics.json": _json(results),
            **measured.files(results),
        }
        files += [write_file(self.folder, name, data) for name, data in own.items()]
        with self.given.journal() as journal:
            measured.log(journal, self.folder, results, [f.path for f in files if f.path.startswith("gallery/")])
        return files, counts

    def items(self) -> list[Item]:
        """The list of episodes: read, or drawn."""
        drawn, listed = self.settings.drawn, self.given.means.listed
        if drawn is None:
            assert listed is not None
            return decode(read(listed), listed, self.dataset)
        folds, own = self._folds(drawn.fold), self.given.means.pairs
        if own is not None:
            draws = functools.partial(pairs.items, own, self.dataset, folds=folds, count=drawn.episodes)
            return draws(shots=drawn.shots, seeds=drawn.seeds)
        areas = self._areas()
        return [
            Item(fold, k, drawn.ways, seed, episode)
            for fold in folds
            for k in drawn.shots
            for source in [self._pool(areas, fold, k, drawn.ways)]
            for seed in drawn.seeds
            for episode in draw(source, count=drawn.episodes, seed=seed)
        ]

    def _folds(self, fold: Any) -> Sequence[int]:
        there = range(len(self.dataset.folds))
        return there if fold == "all" else [fold]

    def _pool(self, areas: Mapping[str, Mapping[int, int]], fold: int, k: int, ways: int) -> EpisodePool:
        classes, chosen = self.dataset.folds[fold], self.settings.protocol
        rules = EpisodeRules(chosen.order, ways, k, self.settings.data.min_area, chosen.tiny_queries)
        try:
            source = pool(areas, classes, rules)
        except ValueError as error:
            raise ValueError(f"fold {fold}: {error}") from error
        missing = [self.dataset.class_names[c - 1] for c in classes if c not in source.supports]
        if missing:
            self.left_out.setdefault(str(k), []).extend(missing)
            logger.warning("fold %d, %d-shot: too few images of %s, left out", fold, k, ", ".join(missing))
        return source

    def _areas(self) -> dict[str, dict[int, int]]:
        """Pixels of each class in each image, in list order."""
        files, _ = self._map("index", IndexImages(self.data), image_units("index", self.dataset.names))
        areas: dict[str, dict[int, int]] = {}
        for file in files:
            for name, pixels in json.loads(read_file(self.folder, file)).items():
                areas[name] = {int(class_id): area for class_id, area in pixels.items()}
        return areas

    def _prepare(self, items: Sequence[Item]) -> None:
        """Every image that occurs goes through the backbones once."""
        if self.cache.folder is None:
            return
        specs = tuple(dict.fromkeys(entry.spec for entry in self.entries))
        function = Prepare(self.data, specs, self.cache, self.given.means.threads)
        self._map("features", function, image_units("features", image_names(items)))

    def _mask_supports(self, items: Sequence[Item]) -> None:
        """Supports show masks made of names from here on, as the model's backbone and a classifier see them."""
        names, where = self.settings.names, self.given.means.names
        assert names is not None
        assert where is not None
        namer = cam.build(names, where, {})
        function = MaskSupports(self.data, self.entries[-1].spec, self.cache, namer, names.levels)
        _, counts = self._map("supports", function, support_units(items), items="supports")
        self.support_iou = counts["intersection"] / max(counts["union"], 1)
        self.data = dataclasses.replace(self.data, supports=str(self.folder / supports.FOLDER))

    def _fitted(self, entry: MeasuredModel) -> MeasuredModel:
        """The entry, its head fitted on the images of the data set, unlabelled, if it needs that."""
        if entry.folder or not isinstance(head := entry.load(), Fits):
            return entry
        units = image_units(f"describe-{slug(entry.label)}", self.dataset.names)
        files, _ = self._map("describe", Describe(self.data, entry, self.cache), units)
        rows = [read_array(self.folder, file) for file in files]
        head.fit(np.concatenate(rows), self.settings.seed)
        weights = save({name: value.cpu().contiguous() for name, value in head.state_dict().items()})
        path = self.folder / f"fitted/{slug(entry.label)}.safetensors"
        publish.write_bytes(path, weights)
        return MeasuredModel(entry.label, entry.spec, entry.head, entry.options, entry.folder, str(path))

    def _predictions(self, items: Sequence[Item]) -> tuple[bool, bool]:
        """Whether masks are saved, and whether episode numbers alone tell them apart."""
        lists = {item[:4] for item in items}
        return self.settings.save_predictions, len(self.entries) == len(lists) == 1

    def _table(self, files: Sequence[File]) -> pa.Table:
        """All rows: models in order, then fold, shots, ways, seed, episode and way."""
        tables = [io.BytesIO(read_file(self.folder, f)) for f in files if f.path.startswith("rows/")]
        table = pa.concat_tables([pq.read_table(file) for file in tables])
        order = {entry.label: number for number, entry in enumerate(self.entries)}
        keys = ("way", "episode", "seed", "ways", "shots", "fold")
        models_of = np.array([order[name] for name in table["model"].to_pylist()])
        return table.take(np.lexsort([*(table[key].to_numpy() for key in keys), models_of]))

    def _selected(self, rows: pa.Table) -> tuple[pa.Table, dict[str, Any]]:
        by = self.settings.select
        trained = [entry for entry in self.entries if entry.folder]
        steps = {entry.label: candidates.step_of(entry.weights) for entry in trained if entry.weights}
        if not steps:
            exported = [segmenter.read_about(Path(entry.folder)) for entry in trained if entry.folder]
            return rows, exported[-1]["facts"].get("selection", {}) if exported else {}
        label = f"{next(iter(steps)).rpartition(', step')[0]} (selected on {by.replace('_', ' ')})"
        rows, chosen = figures.chosen_by_labels(rows, steps, by, label)
        return rows, {"by": by, "steps": chosen}

    def _pictures(
        self, function: RunBlock, rows: pa.Table, items: Sequence[Item], selection: Mapping[str, Any]
    ) -> list[File]:
        """The last model's best, median and worst episode of every fold."""
        by_number = {(*item[:4], item.episode.index): item for item in items}
        keys = ("fold", "shots", "ways", "seed", "episode")
        by_step = {candidates.step_of(e.weights): e for e in self.entries if e.folder and e.weights}
        steps = selection.get("steps", {})

        def entry(row: Mapping[str, Any]) -> MeasuredModel:
            return by_step.get(steps.get(f"fold {row['fold']}, {row['shots']}-shot"), self.entries[-1])

        chosen = tuple(
            Picture(name, by_number[tuple(row[key] for key in keys)], entry(row))
            for name, row in figures.examples(rows).items()
        )
        return self._map("gallery", Draw(**vars(function)), [Unit("gallery", chosen)], items="pictures")[0]

    def _figures(self, rows: pa.Table, items: Sequence[Item], selection: dict[str, Any]) -> dict[str, Any]:
        chosen = self.settings.protocol
        return {
            "format": 2,
            "dataset": {
                "name": self.data.name,
                "images": len(self.dataset.names),
                "folds": len(self.dataset.folds),
                "min_area": self.settings.data.min_area,
            },
            "protocol": {
                "name": "list" if self.settings.drawn is None else chosen.name,
                "order": chosen.order,
                "pairs": chosen.pairs,
                "tiny_queries": chosen.tiny_queries,
                "supports": chosen.supports,
                "support_iou": self.support_iou,
                "headline": chosen.headline,
                "model_resolution": chosen.resolution or self.entries[-1].spec.size,
                "ways": sorted({item.ways for item in items}),
                "seeds": sorted({item.seed for item in items}),
                "episodes": len(items),
            },
            "episodes_sha256": episode_list.sha256(items),
            "selection": selection,
            "left_out": self.left_out,
            "class_names": {str(i): name for i, name in enumerate(self.dataset.class_names, 1)},
            "models": figures.summary(rows, self.dataset),
        }

    def _map(
        self, step: str, function: Any, units: Sequence[Unit], items: str = "images"
    ) -> tuple[list[File], dict[str, int]]:
        return self.given.map(step, function, units, items=items, parts="blocks")


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def _size(settings: Callable[[str], Any]) -> Mapping[str, int]:
    drawn = settings("evaluate").drawn
    if drawn is None:  # they are listed in a file
        return {}
    number = drawn.episodes * len(drawn.shots) * len(drawn.seeds)
    return {"episodes of each fold" if drawn.fold == "all" else "episodes": number}


STAGE = Stage(
    "evaluate",
    _inputs,
    settings,
    lambda work: _Evaluation(work).work(),
    means=means,
    check=check,
    size=_size,
    unit="episodes",
    version=4,
)
