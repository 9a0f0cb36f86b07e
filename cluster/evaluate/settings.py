"""What shapes an evaluation, and where what it reads lies."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.config import Config, baselines, episodes, seeds, shots
from cluster.datasets import measured
from cluster.datasets.measured import MeasuredPlace, MeasuredSettings
from cluster.datasets.training import renders
from cluster.engine.settings import complaints, picked
from cluster.evaluate import episode_list, pairs
from cluster.features import backbone
from cluster.features.backbone import BackboneSettings
from cluster.features.head import HeadSettings
from cluster.label.sources import cam
from cluster.label.sources.cam import CamMeans, CamSettings
from cluster.storage import paths
from cluster.train import candidates
from fss import heads, segmenter, shards


@dataclass(frozen=True)
class DrawnSettings:
    """Which episodes are drawn, where none are listed."""

    fold: Any
    shots: tuple[int, ...]
    ways: int
    seeds: tuple[int, ...]
    episodes: int


@dataclass(frozen=True)
class ExportedSettings:
    """An exported model: hashes of its files, and of the candidates beside it where labels select among them."""

    files: Mapping[str, str]
    candidates: tuple[str, ...]


@dataclass(frozen=True)
class ProtocolSettings:
    """How episodes are drawn, scored and reported."""

    name: str
    order: str
    pairs: tuple[str, ...] | None
    """Hashes of HSNet's lists, where they are given."""
    tiny_queries: bool
    resolution: int | None
    supports: str
    headline: str


@dataclass(frozen=True)
class EvaluateSettings:
    """What shapes figures, tables and pictures."""

    seed: int
    """Of heads that are fitted, and of an untrained backbone beside."""
    data: MeasuredSettings
    protocol: ProtocolSettings
    drawn: DrawnSettings | None
    listed: str | None
    """A hash of the list of episodes that is run again."""
    names: CamSettings | None
    """What makes masks of names (protocol.supports=names)."""
    head: HeadSettings | None
    backbone: BackboneSettings | None
    tuned: bool
    """Whether training changed the backbone."""
    exported: ExportedSettings | None
    """Instead of the three above."""
    baselines: tuple[str, ...] | None
    select: str
    save_predictions: bool


@dataclass(frozen=True)
class EvaluateMeans:
    """Where what is read lies, and how much of what is computed is kept."""

    data: MeasuredPlace
    listed: str | None
    pairs: str | None
    names: CamMeans | None
    weights: str | None
    """Of the backbone."""
    exported: Path | None
    features: Path
    """Folder that all workers and runs share."""
    features_gib: float
    memory_gib: float
    threads: int
    """Images that a worker computes at a time."""


def settings(config: Config) -> EvaluateSettings:
    """What shapes this evaluation.

    Raises:
        ValueError: for files that are missing or cannot be used.
    """
    data, chosen, trained = measured.settings(config), config.protocol, config.model.name == "trained"
    return EvaluateSettings(
        seed=config.seed,
        data=data,
        protocol=picked(ProtocolSettings, chosen, pairs=pairs.hashes(chosen.pairs)),
        drawn=None if config.episode_list else _drawn(config),
        listed=shards.sha256(read(config.episode_list)) if config.episode_list else None,
        names=cam.namer_settings(config, data.classes) if chosen.supports == "names" else None,
        head=None if trained else HeadSettings(config.model.name, config.model.options).complete,
        backbone=None if trained else backbone.settings(config),
        tuned=not trained and bool(config.train.tune),
        exported=_exported(config) if trained else None,
        baselines=baselines(config),
        select=config.select,
        save_predictions=config.save_predictions,
    )


def _drawn(config: Config) -> DrawnSettings:
    return DrawnSettings(config.fold, shots(config), config.ways, seeds(config), episodes(config))


def _exported(config: Config) -> ExportedSettings:
    folder = exported(config)
    kept = [] if config.select == "holdout" else candidates.read(folder.parent)
    hashes = (shards.sha256(one.path.read_bytes()) for one in kept)
    return ExportedSettings(segmenter.read_about(folder)["sha256"], tuple(hashes))


def exported(config: Config) -> Path:
    """The exported model that model=PATH means.

    Raises:
        ValueError: if there is none.
    """
    if not config.model.path:
        raise ValueError("model.path: expected the folder of an exported model, got none; give it as model=FOLDER")
    return segmenter.find(config.model.path).resolve()


def read(name: str) -> bytes:
    """The list of episodes.

    Raises:
        ValueError: if there is no such file.
    """
    if not Path(name).is_file():
        raise ValueError(
            f"episode_list: expected a file that evaluate wrote (episode_list.parquet), there is no {name}; set "
            "episode_list=FILE, or null"
        )
    return Path(name).read_bytes()


def means(config: Config) -> EvaluateMeans:
    """Where this evaluation finds what it reads."""
    machines = config.cluster
    return EvaluateMeans(
        data=measured.place(config),
        listed=config.episode_list,
        pairs=config.protocol.pairs,
        names=cam.means(config) if config.protocol.supports == "names" else None,
        weights=backbone.place(config),
        exported=exported(config) if config.model.name == "trained" else None,
        features=Path(machines.features or paths.place(config.root) / "features").resolve(),
        features_gib=machines.features_gib,
        memory_gib=machines.memory_gib,
        threads=machines.cpus_per_worker,
    )


def check(config: Config) -> list[str]:
    """Whether the data set, the list of episodes, the word vectors and the model are there and go together."""
    data = measured.problems(config)
    wrong = [*data, *(_model(config) if config.model.name == "trained" else backbone.problems(config))]
    free = config.model.name in heads.training_free()
    if free and config.select != "holdout":
        wrong.append(
            f"select={config.select}: expected a trained model, {config.model.name} has no candidates to select from; "
            "set select=holdout"
        )
    if config.select == "base_classes" and config.fold != "all" and not config.episode_list:
        wrong.append("select=base_classes: expected several folds, the others' classes select; set fold=all")
    if config.episode_list:
        wrong += complaints(lambda: _listed(config, bool(data)))
    elif config.protocol.pairs is not None:
        wrong += _pairs(config, bool(data))
    if config.protocol.supports == "names":
        wrong += cam.check_files(config)
        if not wrong:
            wrong += complaints(lambda: cam.namer_settings(config, measured.settings(config).classes))
    if config.model.name == "trained" and not wrong and not config.episode_list:
        wrong += complaints(lambda: _unseen(config))
    return wrong


def _listed(config: Config, alone: bool) -> None:
    """Read the list, and unless it is `alone` look whether the data set, if it is not rendered, has what it names."""
    name = str(config.episode_list)
    content = read(name)
    if alone or renders(config):
        return
    decode(content, name, measured.given(config))


def _pairs(config: Config, alone: bool) -> list[str]:
    """Whether HSNet's lists are there and the data set, unless they are looked at `alone`, has what they name."""
    if config.ways != 1:
        return [
            f"ways: expected 1 with protocol.pairs, whose episodes ask for one class, got {config.ways}; set ways=1"
        ]
    if alone or renders(config):
        return []
    dataset, folder = measured.given(config), str(config.protocol.pairs)
    folds = range(len(dataset.folds)) if config.fold == "all" else [config.fold]
    draws = functools.partial(pairs.items, folder, dataset, folds=folds, count=episodes(config))
    return complaints(lambda: draws(shots=shots(config)[:1], seeds=seeds(config)[:1]))


def decode(content: bytes, name: str, dataset: Any) -> list[episode_list.Item]:
    """The items of the list `name`.

    Raises:
        ValueError: naming it, see `episode_list.decode`.
    """
    try:
        return episode_list.decode(content, dataset)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _model(config: Config) -> list[str]:
    """Whether the exported model is there and whole, and has candidates where one is to be selected."""
    wrong = complaints(lambda: segmenter.Segmenter.load(exported(config)))
    return wrong or complaints(lambda: config.select == "holdout" or enough(exported(config), config.select))


def enough(folder: Path, select: str) -> Sequence[candidates.Candidate]:
    """The candidates beside the exported model in `folder`.

    Raises:
        ValueError: if there are not several to select from.
    """
    kept = candidates.read(folder.parent)
    if len(kept) < 2:
        raise ValueError(
            f"select={select}: expected candidates of training beside {folder}, found {len(kept)}; train with "
            "train.candidates of at least 2, or leave select=holdout"
        )
    return kept


def _unseen(config: Config) -> None:
    folder = exported(config)
    refuse_seen(config.model.path or "", segmenter.read_about(folder)["facts"], measured.tested(config))


def refuse_seen(label: str, facts: Mapping[str, Any], tested: Sequence[str]) -> None:
    """Refuse to measure a model on classes whose labels or names it was trained on.

    Raises:
        ValueError: naming the model, some of the classes and the fold that it was trained for.
    """
    seen = sorted({*tested} & set(facts.get("classes", ())))
    if seen:
        raise ValueError(
            f"{label}: expected classes that it was not trained on with labels, got {', '.join(seen[:5])}"
            f"{' ...' if len(seen) > 5 else ''}; {_remedy(facts)}"
        )


def _remedy(facts: Mapping[str, Any]) -> str:
    if facts["fold"] == "all":
        return "no fold was kept from it: leave the names of the tested classes out of source.names and train again"
    return f"it was trained for fold {facts['fold']} of {facts['dataset']}: set fold={facts['fold']}"
