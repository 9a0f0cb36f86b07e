"""evaluate: a fixed list of episodes, split over the workers; integer counts come back and add.

Every model is measured on the same episodes, next to the training-free read-outs of its own backbone. First the
features of all images that occur are computed, once each, into a folder that all workers and later runs share; then
workers take blocks of episodes that belong to the same queries.
"""

from __future__ import annotations

import dataclasses
import io
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import save

from cluster.config import baselines, episodes, seeds, shots
from cluster.engine import publish
from cluster.engine.run import Run
from cluster.engine.stage import File, Stage, Unit, map_units, read_file, write_file
from cluster.evaluate import episode_list, figures, measured, supports
from cluster.evaluate.entries import data_spec, entries, refuse_seen
from cluster.evaluate.episode_list import Item
from cluster.evaluate.measure import Cache, Describe, Draw, Entry, IndexImages, Picture, Prepare, RunBlock, slug
from cluster.evaluate.supports import MaskSupports
from cluster.evaluate.units import blocks, image_names, image_units, support_units
from cluster.features import backbone
from cluster.label.sources import cam
from cluster.train import candidates
from cluster.train.stage import model_options
from fss import heads, segmenter, shards
from fss.datasets import Dataset
from fss.evaluation.episodes import Pool, Rules, draw, pool

logger = logging.getLogger(__name__)


def _inputs(run: Run) -> tuple[str, ...]:
    config = run.config
    needed = ["train"] if config.model.name not in (*heads.TRAINING_FREE, "trained") else []
    needed += backbone.needed(run) if config.model.name != "trained" else []
    needed += ["render"] if config.dataset.name == "scenes" and not config.dataset.root else []
    return tuple(needed)


def _settings(run: Run) -> dict[str, Any]:
    config = run.config
    settings: dict[str, Any] = {
        "seeds": list(seeds(config)),
        "fold": config.fold,
        "shots": list(shots(config)),
        "ways": config.ways,
        "episodes": episodes(config),
        "protocol": vars(config.protocol),
        "dataset": vars(config.dataset) | {"list_sha256": _hash(config.dataset.root, config.dataset.list)},
        "episode_list": shards.sha256(_read(config.episode_list)) if config.episode_list else None,
        "baselines": baselines(config),
        "select": config.select,
        "save_predictions": config.save_predictions,
    }
    if config.protocol.supports == "names":
        settings["names"] = cam.namer_settings(run, data_spec(run).open().class_names)
    if config.model.name == "trained":
        return settings | {"model": [segmenter.read_about(segmenter.find(config.model.path or ""))["sha256"]]}
    return settings | {"model": model_options(run), "backbone": backbone.settings(run)}


def _hash(root: str | None, name: str | None) -> str | None:
    places = [Path(folder) / name for folder in (root, ".") if folder and name]
    return next((shards.sha256(path.read_bytes()) for path in places if path.is_file()), None)


class _Evaluation:
    """One run of the stage: what its steps share."""

    def __init__(self, run: Run, folder: Path):
        self.run, self.folder, self.config = run, folder, run.config
        self.data = data_spec(run)
        self.dataset: Dataset = self.data.open()
        self.entries = entries(run)
        chosen = run.config.cluster
        features = Path(chosen.features or Path(run.config.root) / "features").resolve()
        self.cache = Cache(
            folder=str(features) if chosen.features_gib else None,
            disk=int(chosen.features_gib * 2**30),
            memory=int(chosen.memory_gib * 2**30),
        )
        self.left_out: dict[str, list[str]] = {}
        self.support_iou: float | None = None

    def work(self) -> tuple[Sequence[File], Mapping[str, int]]:
        """All steps, and the stage's files."""
        items = self.items()
        if self.config.select == "base_classes" and len({item.fold for item in items}) < 2:
            raise ValueError("select=base_classes: expected several folds, the others' classes select; set fold=all")
        refuse_seen(self.entries, self.dataset, items)
        self._prepare(items)
        if self.config.protocol.supports == "names":
            self._mask_supports(items)
        self.entries = tuple(self._fitted(entry) for entry in self.entries)
        function = RunBlock(
            self.data, self.entries, self.cache, self.config.protocol.resolution, *self._predictions(items)
        )
        files, counts = self._map("evaluate", function, list(blocks(items)), items="episodes", parts="blocks")
        rows, selection = self._selected(self._table(files))
        files += self._pictures(function, rows, items, selection)
        listed = episode_list.encode(items, self.data.name, self.dataset.class_names)
        found = self._figures(rows, items, selection)
        own = {
            "episode_list.parquet": listed,
            "episodes.parquet": publish.parquet(rows),
            "metrics.json": _json(found),
            **measured.files(found),
        }
        files += [write_file(self.folder, name, data) for name, data in own.items()]
        with self.run.journal("evaluate") as journal:
            measured.log(journal, self.folder, found, [f.path for f in files if f.path.startswith("gallery/")])
        return files, counts

    def items(self) -> list[Item]:
        """The list of episodes: read, or drawn."""
        config = self.config
        if config.episode_list:
            try:
                return episode_list.decode(_read(config.episode_list), self.dataset)
            except ValueError as error:
                raise ValueError(f"{config.episode_list}: {error}") from error
        folds, areas = self._folds(), self._areas()
        return [
            Item(fold, k, config.ways, seed, episode)
            for fold in folds
            for k in shots(config)
            for source in [self._pool(areas, fold, k)]
            for seed in seeds(config)
            for episode in draw(source, count=episodes(config), seed=seed)
        ]

    def _folds(self) -> Sequence[int]:
        there = range(len(self.dataset.folds))
        if self.config.fold != "all" and self.config.fold not in there:
            raise ValueError(f"fold: {self.data.name} has the folds 0..{len(there) - 1}, got {self.config.fold}")
        return there if self.config.fold == "all" else [self.config.fold]

    def _pool(self, areas: Mapping[str, Mapping[int, int]], fold: int, k: int) -> Pool:
        config, classes = self.config, self.dataset.folds[fold]
        chosen = config.protocol
        rules = Rules(chosen.order, config.ways, k, config.dataset.min_area, chosen.tiny_queries)
        try:
            found = pool(areas, classes, rules)
        except ValueError as error:
            raise ValueError(f"fold {fold}: {error}") from error
        missing = [self.dataset.class_names[c - 1] for c in classes if c not in found.supports]
        if missing:
            self.left_out.setdefault(str(k), []).extend(missing)
            logger.warning("fold %d, %d-shot: too few images of %s, left out", fold, k, ", ".join(missing))
        return found

    def _areas(self) -> dict[str, dict[int, int]]:
        """Pixels of each class in each image, in list order."""
        files, _ = self._map("index", IndexImages(self.data), image_units("index", self.dataset.names))
        found: dict[str, dict[int, int]] = {}
        for file in files:
            for name, pixels in json.loads(read_file(self.folder, file)).items():
                found[name] = {int(class_id): area for class_id, area in pixels.items()}
        return found

    def _prepare(self, items: Sequence[Item]) -> None:
        """Every image that occurs goes through the backbones once."""
        if self.cache.folder is None:
            return
        specs = tuple(dict.fromkeys(entry.spec for entry in self.entries))
        self._map("features", Prepare(self.data, specs, self.cache), image_units("features", image_names(items)))

    def _mask_supports(self, items: Sequence[Item]) -> None:
        """Supports show masks made of names from here on, as the model's backbone and a classifier see them."""
        namer, levels = cam.namer(self.run, self.dataset.class_names), tuple(self.config.source.levels)
        function = MaskSupports(self.data, self.entries[-1].spec, self.cache, namer, levels)
        _, counts = self._map("supports", function, support_units(items), items="supports")
        self.support_iou = counts["intersection"] / max(counts["union"], 1)
        self.data = dataclasses.replace(self.data, supports=str(self.folder / supports.FOLDER))

    def _fitted(self, entry: Entry) -> Entry:
        """The entry, its head fitted on the images of the data set, unlabelled, if it needs that."""
        if entry.folder or not (head := entry.load()).needs_fit:
            return entry
        units = image_units(f"describe-{slug(entry.label)}", self.dataset.names)
        files, _ = self._map("describe", Describe(self.data, entry, self.cache), units)
        rows = [np.load(io.BytesIO(read_file(self.folder, file)), allow_pickle=False) for file in files]
        head.fit(np.concatenate(rows), self.config.seed)
        weights = save({name: value.cpu().contiguous() for name, value in head.state_dict().items()})
        path = self.folder / f"fitted/{slug(entry.label)}.safetensors"
        publish.write_bytes(path, weights)
        return Entry(entry.label, entry.spec, entry.head, entry.options, entry.folder, str(path))

    def _predictions(self, items: Sequence[Item]) -> tuple[bool, bool]:
        """Whether masks are saved, and whether episode numbers alone tell them apart."""
        lists = {item[:4] for item in items}
        return self.config.save_predictions, len(self.entries) == len(lists) == 1

    def _table(self, files: Sequence[File]) -> pa.Table:
        """All rows: models in order, then fold, shots, ways, seed, episode and way."""
        found = [io.BytesIO(read_file(self.folder, f)) for f in files if f.path.startswith("rows/")]
        table = pa.concat_tables([pq.read_table(file) for file in found])
        order = {entry.label: number for number, entry in enumerate(self.entries)}
        keys = ("way", "episode", "seed", "ways", "shots", "fold")
        models_of = np.array([order[name] for name in table["model"].to_pylist()])
        return table.take(np.lexsort([*(table[key].to_numpy() for key in keys), models_of]))

    def _selected(self, rows: pa.Table) -> tuple[pa.Table, dict[str, Any]]:
        by = self.config.select
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
        found = {(*item[:4], item.episode.index): item for item in items}
        keys = ("fold", "shots", "ways", "seed", "episode")
        by_step = {candidates.step_of(e.weights): e for e in self.entries if e.folder and e.weights}
        steps = selection.get("steps", {})

        def entry(row: Mapping[str, Any]) -> Entry:
            return by_step.get(steps.get(f"fold {row['fold']}, {row['shots']}-shot"), self.entries[-1])

        chosen = tuple(
            Picture(name, found[tuple(row[key] for key in keys)], entry(row))
            for name, row in figures.examples(rows).items()
        )
        return self._map("gallery", Draw(**vars(function)), [Unit("gallery", chosen)], items="pictures")[0]

    def _figures(self, rows: pa.Table, items: Sequence[Item], selection: dict[str, Any]) -> dict[str, Any]:
        chosen = self.config.protocol
        return {
            "format": 2,
            "dataset": {
                "name": self.data.name,
                "images": len(self.dataset.names),
                "folds": len(self.dataset.folds),
                "min_area": self.config.dataset.min_area,
            },
            "protocol": {
                "name": "list" if self.config.episode_list else chosen.name,
                "order": chosen.order,
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

    def _map(self, step: str, function: Any, units: Sequence[Unit], **words: str) -> tuple[list[File], dict[str, int]]:
        return map_units(self.run, self.folder, step, function, units, total=len(units), **{"parts": "blocks"} | words)


def _read(name: str) -> bytes:
    if not Path(name).is_file():
        raise ValueError(
            f"episode_list: expected a file that evaluate wrote (episode_list.parquet), there is no {name}"
        )
    return Path(name).read_bytes()


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def _work(run: Run, folder: Path) -> tuple[Sequence[File], Mapping[str, int]]:
    return _Evaluation(run, folder).work()


STAGE = Stage("evaluate", _inputs, _settings, _work, version=3)
